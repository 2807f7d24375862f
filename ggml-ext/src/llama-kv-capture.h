// What attention of every KV layer sees while a text runs: some of the queries, all keys and values.

#pragma once

#include "ggml.h"

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <vector>

class llama_kv_capture {
public:
    // the queries of a layer that attends to a K, one in `stride` tokens
    struct queries_t {
        uint32_t n_head      = 0;
        uint32_t n_embd_head = 0;

        float scale    = 1.0f;
        float softcap  = 0.0f;
        float max_bias = 0.0f;

        std::vector<float> q;     // [n_q][n_head][n_embd_head_k]
        std::vector<float> mask;  // [n_q][n_tokens], -inf: hidden
        std::vector<float> sinks; // [n_head], or empty

        uint32_t n_q() const { return n_head == 0 ? 0 : q.size()/n_head/n_embd_head; }
    };

    struct layer_t {
        uint32_t n_head_kv     = 0;
        uint32_t n_embd_head_k = 0;
        uint32_t n_embd_head_v = 0;

        std::vector<ggml_fp16_t> k; // [n_tokens][n_head_kv][n_embd_head_k]
        std::vector<ggml_fp16_t> v; // [n_tokens][n_head_kv][n_embd_head_v]

        std::vector<queries_t> queries; // of the layers that share this K
    };

    // called after each layer of a batch: where the batch begins, its tokens, and how many layers of it have been seen. what it
    // throws ends the batch
    using on_layer_t = std::function<void(uint32_t pos, uint32_t n_batch, uint32_t n_layers)>;

    // n_tokens: of the text, in one sequence; cell i of the cache has token i
    llama_kv_capture(uint32_t n_tokens, uint32_t stride, on_layer_t on_layer)
        : n_tokens(n_tokens), stride(stride), on_layer(std::move(on_layer)) {}

    // before each batch. pos: of its first token
    void begin(uint32_t pos, uint32_t n_batch);

    // a ggml_backend_sched_eval_callback; user_data: this
    static bool callback(ggml_tensor * t, bool ask, void * user_data);

    // throws what went wrong while a batch was computed, if anything did: exceptions do not pass through a graph
    void check() const;

    // by layer of the model
    const std::map<uint32_t, layer_t> & layers() const { return res; }

private:
    const uint32_t n_tokens;
    const uint32_t stride;

    const on_layer_t on_layer;

    uint32_t pos      = 0;
    uint32_t n_batch  = 0;
    uint32_t n_layers = 0; // seen in this batch

    std::map<uint32_t, uint32_t> n_seen; // attention to this K so far in this batch

    std::map<uint32_t, layer_t> res;

    std::exception_ptr error;

    void see(const ggml_tensor * t);
};
