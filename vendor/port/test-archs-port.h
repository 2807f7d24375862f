// The metadata of a model that is yet to be made: llama_model_saver takes models alone since.

#pragma once

#include "../src/llama-ext.h"

#include <cstdint>
#include <string>
#include <vector>

struct test_model_kv {
    llm_arch       arch;
    gguf_context * gguf_ctx;

    void add_kv(llm_kv key, uint32_t     value) { gguf_set_val_u32 (gguf_ctx, name(key).c_str(), value); }
    void add_kv(llm_kv key, int32_t      value) { gguf_set_val_i32 (gguf_ctx, name(key).c_str(), value); }
    void add_kv(llm_kv key, uint64_t     value) { gguf_set_val_u64 (gguf_ctx, name(key).c_str(), value); }
    void add_kv(llm_kv key, float        value) { gguf_set_val_f32 (gguf_ctx, name(key).c_str(), value); }
    void add_kv(llm_kv key, bool         value) { gguf_set_val_bool(gguf_ctx, name(key).c_str(), value); }
    void add_kv(llm_kv key, const char * value) { gguf_set_val_str (gguf_ctx, name(key).c_str(), value); }

    void add_kv(llm_kv key, const std::vector<uint32_t> & values) { add_array(key, GGUF_TYPE_UINT32,  values); }
    void add_kv(llm_kv key, const std::vector<uint64_t> & values) { add_array(key, GGUF_TYPE_UINT64,  values); }
    void add_kv(llm_kv key, const std::vector<float>    & values) { add_array(key, GGUF_TYPE_FLOAT32, values); }

    void add_kv(llm_kv key, const std::vector<std::string> & values) {
        std::vector<const char *> texts;
        for (const auto & value : values) {
            texts.push_back(value.c_str());
        }
        gguf_set_arr_str(gguf_ctx, name(key).c_str(), texts.data(), texts.size());
    }

  private:
    std::string name(llm_kv key) const {
        return llama_arch_kv_name(arch, key);
    }

    template <typename T>
    void add_array(llm_kv key, gguf_type type, const std::vector<T> & values) {
        if (!values.empty()) {
            gguf_set_arr_data(gguf_ctx, name(key).c_str(), type, values.data(), values.size());
        }
    }
};
