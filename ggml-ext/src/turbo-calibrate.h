// Scales of key channels, fitted to a layer's captured queries, keys and values: what llama-turboquant's Rust core
// exports for it.
//
// Attention does not change if keys are multiplied by scales and queries divided by them; what quantized keys cost it
// does. Channels that RoPE turns together have one scale, so keys may be multiplied before RoPE or after.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// channels of a key that RoPE turns together, of the first n_rot
enum tq_rope {
    TQ_ROPE_NONE     = 0,
    TQ_ROPE_ADJACENT = 1, // 2i and 2i + 1
    TQ_ROPE_HALVES   = 2, // i and i + n_rot/2
};

// queries of one layer; all arrays here are f32 without gaps, the last dimension runs fastest
struct tq_fit_queries {
    const float * q;     // [n_q][n_head][head_dim], after RoPE
    size_t        n_q;   // >= 2
    size_t        n_head;
    const float * mask;  // [n_q][n_kv], added to the logits times ALiBi's slope; -INFINITY hides the key
    const float * sinks; // [n_head], or NULL
    float scale;
    float softcap;       // logit = softcap*tanh(scale*q.k/softcap); 0: none
    float max_bias;      // 0: none
};

// keys and values of a layer, and one set of queries for each layer that attends to them
struct tq_fit_layer {
    const float * k; // [n_kv][n_head_kv][head_dim], after RoPE, in the order of positions from 0
    const float * v; // [n_kv][n_head_kv][head_dim_v]
    size_t  n_kv;
    size_t  n_head_kv;
    size_t  head_dim; // a multiple of 64
    size_t  head_dim_v;
    int32_t rope;     // enum tq_rope
    size_t  n_rot;    // even
    const struct tq_fit_queries * queries; // [n_queries]
    size_t  n_queries;
};

// sum |o' - o|^2 / sum |o|^2 over queries that the scales were not fitted to, o' with quantized keys
struct tq_fit_head {
    float power;         // of the scales that minimise the error of a model; 0: all scales are 1
    float error_without;
    float error_with;
};

// fits the scales of one layer on n_threads threads.
// false: scales and heads are as they were, and error (may be NULL) has the reason, cut to n_error bytes with its NUL
bool tq_fit_key_scales(
        const struct tq_fit_layer * layer,
        size_t n_threads,
        float * scales,              // [n_head_kv][head_dim], each in 1/64 .. 64, geometric mean 1 in each head
        struct tq_fit_head * heads,  // [n_head_kv]
        char * error,
        size_t n_error);

// the text to capture from: UTF-8, *n_bytes bytes (n_bytes may be NULL) and a NUL
const char * tq_calibration_text(size_t * n_bytes);

#ifdef __cplusplus
}
#endif
