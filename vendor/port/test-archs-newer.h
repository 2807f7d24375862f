// What test-llama-archs needs for architectures that its version of upstream does not know, and a way to save models of every
// architecture: upstream's own saver leaves out tensors of some.

#pragma once

#include "test-archs-port.h"

#include "../src/llama-model.h"

#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

// sizes that are not upstream's: of newer architectures, and heads that turbo types can have
static void test_newer_dims(const llm_arch arch, uint32_t & n_embd, uint32_t & n_head, uint32_t & n_ff, uint32_t & n_layer) {
    switch (arch) {
        case LLM_ARCH_DEEPSEEK41:
            n_embd  = 512;
            n_head  = 8;
            n_ff    = 1024;
            n_layer = 4;
            break;
        case LLM_ARCH_MISTRAL_LARGE4:
            n_embd = 128;
            n_head = 1;
            n_ff   = 192;
            break;
        case LLM_ARCH_GEMMA4:
            n_embd = 256; // layers with sliding windows have half of that a head
            break;
        case LLM_ARCH_STEP35:
        case LLM_ARCH_LAGUNA:
            n_embd = 256;
            break;
        case LLM_ARCH_LFM3:
            n_layer = 3; // recurrent, full attention, sliding window
            break;
        default:
            break;
    }
}

// whether an architecture that upstream's list lacks has experts in every model
static bool test_newer_is_moe(const llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_BEAM:
        case LLM_ARCH_DEEPSEEK2OCR:
        case LLM_ARCH_DEEPSEEK41:
        case LLM_ARCH_FLINT:
        case LLM_ARCH_K2_HORIZON:
        case LLM_ARCH_KOLIBRI1:
        case LLM_ARCH_MAION_CODER:
        case LLM_ARCH_MISTRAL_LARGE4:
        case LLM_ARCH_MUSE_SPARK:
            return true;
        default:
            return false;
    }
}

// adds metadata, or puts it in the place of what is there
static void test_newer_kv(test_model_kv & ms, const llm_arch arch, uint32_t n_embd, uint32_t n_head, uint32_t n_layer) {
    // every other layer has the window
    std::vector<uint32_t> pattern;
    for (uint32_t il = 0; il < n_layer; il++) {
        pattern.push_back(il % 2);
    }
    switch (arch) {
        case LLM_ARCH_BEAM:
        case LLM_ARCH_KOLIBRI1:
        case LLM_ARCH_FLINT:
        case LLM_ARCH_MAION_CODER:
        case LLM_ARCH_MUSE_SPARK:
            ms.add_kv(LLM_KV_ATTENTION_SLIDING_WINDOW_PATTERN, pattern);
            ms.add_kv(LLM_KV_ATTENTION_ROPE_PATTERN,           pattern);
            ms.add_kv(LLM_KV_ROPE_FREQ_BASE_SWA,               10000.0f);
            ms.add_kv(LLM_KV_EXPERT_WEIGHTS_SCALE,             1.0f);
            ms.add_kv(LLM_KV_EXPERT_WEIGHTS_NORM,              true);
            ms.add_kv(LLM_KV_MOE_LATENT_SIZE,                  uint32_t(64));
            ms.add_kv(LLM_KV_POST_NORM_EPS,                    1e-5f);
            ms.add_kv(LLM_KV_FINAL_LOGIT_SOFTCAPPING,          30.0f);
            break;
        case LLM_ARCH_K2_HORIZON:
            ms.add_kv(LLM_KV_ATTENTION_VALUE_EXPERT_COUNT,      uint32_t(2));
            ms.add_kv(LLM_KV_ATTENTION_VALUE_EXPERT_USED_COUNT, uint32_t(1));
            ms.add_kv(LLM_KV_ATTENTION_GROUPNORM_GROUPS,        uint32_t(1));
            break;
        case LLM_ARCH_LFM3:
            ms.add_kv(LLM_KV_ATTENTION_HEAD_COUNT,             n_head);
            ms.add_kv(LLM_KV_ATTENTION_HEAD_COUNT_KV,          std::vector<uint32_t>({ 0, n_head, n_head }));
            ms.add_kv(LLM_KV_ATTENTION_SLIDING_WINDOW_PATTERN, std::vector<uint32_t>({ 0, 0, 1 }));
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH,             n_embd/n_head);
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH,           n_embd/n_head);
            ms.add_kv(LLM_KV_ROPE_FREQ_BASE_SWA,               10000.0f);
            break;
        case LLM_ARCH_LIMITE:
            ms.add_kv(LLM_KV_ATTENTION_SCALE, 0.1f);
            break;
        case LLM_ARCH_SENSENOVA_U1:
            ms.add_kv(LLM_KV_ROPE_FREQ_BASE_SPATIAL, 10000.0f);
            break;
        case LLM_ARCH_MISTRAL_LARGE4:
            ms.add_kv(LLM_KV_ATTENTION_HEAD_COUNT_KV,    uint32_t(1));
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH,       uint32_t(576));
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH,     uint32_t(512));
            ms.add_kv(LLM_KV_ROPE_DIMENSION_COUNT,       uint32_t(64));
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH_MLA,   uint32_t(192));
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH_MLA, uint32_t(128));
            break;
        case LLM_ARCH_DEEPSEEK41:
            ms.add_kv(LLM_KV_ATTENTION_HEAD_COUNT_KV,              uint32_t(1));
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH,                 n_embd/n_head);
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH,               n_embd/n_head);
            ms.add_kv(LLM_KV_ROPE_DIMENSION_COUNT,                 n_embd/n_head/2);
            ms.add_kv(LLM_KV_ATTENTION_Q_LORA_RANK,                uint32_t(64));
            ms.add_kv(LLM_KV_ATTENTION_OUTPUT_GROUP_COUNT,         uint32_t(8));
            ms.add_kv(LLM_KV_ATTENTION_OUTPUT_LORA_RANK,           uint32_t(32));
            ms.add_kv(LLM_KV_ATTENTION_COMPRESS_RATIOS,            std::vector<uint32_t>({ 0, 1, 2, 2 }));
            ms.add_kv(LLM_KV_ATTENTION_KV_SOURCE_LAYERS,           std::vector<uint32_t>({ 1, 2 }));
            ms.add_kv(LLM_KV_ATTENTION_INDEXER_SOURCE_LAYERS,      std::vector<uint32_t>({ 1, 2 }));
            ms.add_kv(LLM_KV_ATTENTION_COMPRESS_ROPE_FREQ_BASE,    160000.0f);
            ms.add_kv(LLM_KV_HYPER_CONNECTION_COUNT,               uint32_t(4));
            ms.add_kv(LLM_KV_HYPER_CONNECTION_SINKHORN_ITERATIONS, uint32_t(2));
            ms.add_kv(LLM_KV_HYPER_CONNECTION_EPSILON,             1.0e-6f);
            ms.add_kv(LLM_KV_HASH_LAYER_COUNT,                     uint32_t(0));
            ms.add_kv(LLM_KV_SWIGLU_CLAMP_EXP,                     10.0f);
            ms.add_kv(LLM_KV_EXPERT_WEIGHTS_SCALE,                 1.0f);
            ms.add_kv(LLM_KV_EXPERT_WEIGHTS_NORM,                  true);
            ms.add_kv(LLM_KV_EXPERT_GATING_FUNC,                   uint32_t(4)); // sqrtsoftplus
            break;
        case LLM_ARCH_GEMMA4:
            // heads of layers with a sliding window are half of those without, as they are in every Gemma 4
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH,             n_embd/n_head);
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH,           n_embd/n_head);
            ms.add_kv(LLM_KV_ATTENTION_KEY_LENGTH_SWA,         n_embd/n_head/2);
            ms.add_kv(LLM_KV_ATTENTION_VALUE_LENGTH_SWA,       n_embd/n_head/2);
            ms.add_kv(LLM_KV_ROPE_DIMENSION_COUNT,             n_embd/n_head);
            ms.add_kv(LLM_KV_ROPE_DIMENSION_COUNT_SWA,         n_embd/n_head/2);
            ms.add_kv(LLM_KV_ATTENTION_SLIDING_WINDOW_PATTERN, pattern);
            break;
        case LLM_ARCH_GRANITE_SWITCH:
            ms.add_kv(LLM_KV_ADAPTER_COUNT,                uint32_t(1));
            ms.add_kv(LLM_KV_ADAPTER_LORA_RANK,            uint32_t(8));
            ms.add_kv(LLM_KV_ADAPTER_TOKEN_IDS_ACTIVATE,   std::vector<uint32_t>({ 5 }));
            ms.add_kv(LLM_KV_ADAPTER_TOKEN_IDS_SUBSTITUTE, std::vector<uint32_t>({ 6 }));
            break;
        default:
            break;
    }
}

// why there can be no model of an architecture in a test of the KV cache; null: there can
static const char * test_why_no_model(const llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_CLIP:
            return "sees pictures: it is a part of other models, and has no KV cache";
        case LLM_ARCH_GPTJ:
            return "llama.cpp knows the name alone, and runs no such model";
        case LLM_ARCH_BERT:
        case LLM_ARCH_MODERN_BERT:
        case LLM_ARCH_NOMIC_BERT:
        case LLM_ARCH_NOMIC_BERT_MOE:
        case LLM_ARCH_NEO_BERT:
        case LLM_ARCH_JINA_BERT_V2:
        case LLM_ARCH_JINA_BERT_V3:
        case LLM_ARCH_EUROBERT:
        case LLM_ARCH_GEMMA_EMBEDDING:
        case LLM_ARCH_GEMMA_EMBEDDING2:
            return "embeds texts, and has no KV cache";
        case LLM_ARCH_T5ENCODER:
            return "is an encoder, and has no KV cache";
        case LLM_ARCH_WAVTOKENIZER_DEC:
            return "makes sound, and has no KV cache";
        case LLM_ARCH_RWKV6:
        case LLM_ARCH_RWKV6QWEN2:
        case LLM_ARCH_RWKV7:
        case LLM_ARCH_ARWKV7:
            return "is recurrent, and has no KV cache";
        case LLM_ARCH_CLEF:
            return "scores options in one batch, and has no KV cache";
        case LLM_ARCH_VLLM_DECISION2:
            return "scores options by a head whose tensors are not made here. Its attention is that of qwen3";
        case LLM_ARCH_PLM:
            return "not in the sweep: llama.cpp's graph does not fit a model as small";
        case LLM_ARCH_EAGLE3:
        case LLM_ARCH_DFLASH:
            return "drafts for another model, whose hidden states it reads, and does not run alone";
        case LLM_ARCH_GEMMA4_ASSISTANT:
            return "drafts for Gemma 4, whose KV cache it reads: it has none of its own";
        default:
            return nullptr;
    }
}

// saves the metadata that a model was made of, and its tensors
static void test_save_model(const gguf_context * made_of, const llama_model * model, const std::string & path) {
    gguf_context_ptr gguf { gguf_init_empty() };
    gguf_set_kv(gguf.get(), made_of);
    std::set<std::string> names;
    for (const auto & [name, tensor] : llama_internal_get_tensor_map(model)) {
        // some are in the list for each layer that uses them
        if (names.insert(name).second) {
            gguf_add_tensor(gguf.get(), tensor);
        }
    }
    if (!gguf_write_to_file(gguf.get(), path.c_str(), false)) {
        throw std::runtime_error("cannot write " + path);
    }
}

// Makes and saves the models of an architecture. What cannot be made is a line in not-made.txt, and ends nothing.
template <typename make_t, typename has_t>
static void test_save_models(const llm_arch arch, const std::string & dir, const has_t & has, const make_t & make) {
    for (bool moe : { false, true }) {
        if (!has(moe)) {
            continue;
        }
        const char * why = test_why_no_model(arch);
        std::string error;
        if (!why) {
            try {
                make(moe, dir + "/" + llm_arch_name(arch) + (moe ? "-moe.gguf" : "-dense.gguf"));
                continue;
            } catch (const std::exception & err) {
                error = std::string("error: ") + err.what();
                why = error.c_str();
            }
        }
        std::ofstream(dir + "/not-made.txt", std::ios::app) << llm_arch_name(arch) << '\t' << why << '\n';
    }
}
