// Key scales: the cache holds s*k, and attention takes q/s, channel by channel. That is exact whatever s is. s evens
// out what channels of keys and queries carry, so that the error of quantized keys falls where queries look least.
// docs/keys.md in llama-turboquant.
//
// Channels that RoPE turns together have the same scale, so that RoPE and scales commute: a K-shift needs to know
// nothing of them.

#pragma once

#include "llama.h"

#include "ggml-cpp.h"
#include "turbo-calibrate.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

struct llama_kv_fit;
struct llama_model;

class llama_kv_scales {
public:
    // puts the scales of a fit to this model where attention is computed. throws std::runtime_error
    //   offload: where the K cache is, on the layers' devices or the CPU
    llama_kv_scales(const llama_model & model, const llama_kv_fit & fit, bool offload);

    // what keys are multiplied by, and queries: F32 [n_embd_head_k, 1, n_head_kv]; null: layer il has no keys
    ggml_tensor * key  (uint32_t il) const { return layers[il].key; }
    ggml_tensor * query(uint32_t il) const { return layers[il].query; }

    // of the values; saved states carry it
    uint64_t id() const { return hash; }

    // which channels RoPE turns together, as a K-shift does
    static tq_rope rope_of(const llama_model & model);

    // channels a and b, a < b, of a head that RoPE turns together
    static std::vector<std::pair<uint32_t, uint32_t>> rope_pairs(const llama_model & model, uint32_t il);

private:
    struct layer_t {
        ggml_tensor * key   = nullptr;
        ggml_tensor * query = nullptr;
    };

    std::vector<layer_t> layers; // [n_layer]

    uint64_t hash;

    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> ctxs_bufs;
};

// why keys of this model cannot have scales; empty: they can
std::string llama_kv_scales_why_not(const llama_model & model);

// t: [n_embd_head, n_head, n_tokens], by: F32 [n_embd_head, 1, n_head_kv]; heads of one group stand together.
// t itself if there are no scales
ggml_tensor * llama_kv_scales_mul(ggml_context * ctx, ggml_tensor * t, ggml_tensor * by);
