// The turbo types and key anchors in the Vulkan back end: what ggml-vulkan.cpp asks and calls.

#pragma once

#include "ggml-vulkan-common.h"
#include "ggml-anchors.h"
#include "turbo.h"

// whether the operator is one of ggml-vulkan-turbo.cpp's: it reads or writes a turbo type, or attends with anchors
bool ggml_vk_turbo_is_ours(const ggml_tensor * op);

// of ours
bool ggml_vk_turbo_supports_op(const vk_device & device, const ggml_tensor * op);
void ggml_vk_turbo_compute(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * op);

// bytes that any operator's result takes, with what flash attention of ours puts behind it
size_t ggml_vk_turbo_alloc_size(const ggml_tensor * op);

// what anchors add to logits, where ggml_vk_turbo_compute has put it for the scalar shader
vk_subbuffer ggml_vk_turbo_terms(ggml_backend_vk_context * ctx, const ggml_tensor * dst);

// ggml_backend_reg_i's
void * ggml_vk_turbo_get_proc_address(ggml_backend_reg_t reg, const char * name);

//
// pipelines, by name
//

// a pipeline of the family "turbo_encode" with its specialization constants
std::string ggml_vk_turbo_pipeline_name(const char * family, const std::vector<uint32_t> & constants);

// calls create, which is ggml_vk_load_shaders' own, for every pipeline
template <typename F> void ggml_vk_turbo_load_shaders(vk_device & device, const F & create) {
    const auto add = [&](const char * family, size_t size, const void * data, uint32_t n_buffers, uint32_t n_push, const std::vector<uint32_t> & constants) {
        const std::string name = ggml_vk_turbo_pipeline_name(family, constants);
        create(device, device->pipeline_turbo[name], name.c_str(), size, data, "main", n_buffers, n_push*sizeof(uint32_t), { 1, 1, 1 }, constants, 1);
    };
    for (uint32_t bits : { 2u, 3u, 4u }) {
        for (uint32_t f16 : { 0u, 1u }) {
            for (uint32_t ids : { 0u, 1u, 2u }) {
                add("turbo_encode", turbo_encode_len, turbo_encode_data, 3, 22, { bits, f16, ids });
            }
            for (uint32_t ids : { 0u, 1u }) {
                add("turbo_decode", turbo_decode_len, turbo_decode_data, 3, 22, { bits, f16, ids });
            }
        }
    }
    for (uint32_t kind : { 0u, 2u, 3u, 4u, 8u }) {
        for (uint32_t anchors : { 0u, 1u }) {
            add("turbo_expand", turbo_expand_len, turbo_expand_data, 4, 14, { kind, anchors });
        }
    }
    add("turbo_terms", turbo_terms_len, turbo_terms_data, 4, 20, {});
}
