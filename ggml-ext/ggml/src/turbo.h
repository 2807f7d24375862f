// The turbo types: what llama-turboquant's Rust core exports, and how ggml uses it.

#pragma once

#include "ggml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

//
// the Rust core (libturboquant)
//

// k values, k % 64 == 0; never fails
void tq_quantize_row_turbo2(const float * x, void * y, int64_t k);
void tq_quantize_row_turbo3(const float * x, void * y, int64_t k);
void tq_quantize_row_turbo4(const float * x, void * y, int64_t k);

void tq_dequantize_row_turbo2(const void * x, float * y, int64_t k);
void tq_dequantize_row_turbo3(const void * x, float * y, int64_t k);
void tq_dequantize_row_turbo4(const void * x, float * y, int64_t k);

// ggml_vec_dot_t; vy is q8_0
void tq_vec_dot_turbo2_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc);
void tq_vec_dot_turbo3_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc);
void tq_vec_dot_turbo4_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc);

// types as the core numbers them, independent of ggml's ids
enum tq_kv_type {
    TQ_KV_F32    = 0,
    TQ_KV_F16    = 1,
    TQ_KV_BF16   = 2,
    TQ_KV_Q8_0   = 3,
    TQ_KV_TURBO2 = 4,
    TQ_KV_TURBO3 = 5,
    TQ_KV_TURBO4 = 6,
    TQ_KV_I32    = 7, // anchor ids only
};

// a ggml tensor; strides in bytes
struct tq_fa_tensor {
    const void * data; // NULL: absent
    int32_t      type; // enum tq_kv_type
    int32_t      pad;
    int64_t      ne[4];
    size_t       nb[4];
};

// the sources and parameters of GGML_OP_FLASH_ATTN_EXT, as ggml has them (scale is not yet divided by logit_softcap)
struct tq_fa_args {
    struct tq_fa_tensor q;     // f32 [dk, n_tokens, n_head, n_batch]
    struct tq_fa_tensor k;     //     [dk, n_kv, n_head_kv, n_batch]
    struct tq_fa_tensor v;     //     [dv, n_kv, n_head_kv, n_batch]
    struct tq_fa_tensor mask;  // f16 [n_kv, n_tokens, 1 or n_head, 1 or n_batch], or absent
    struct tq_fa_tensor sinks; // f32 [n_head], or absent
    struct tq_fa_tensor anchors;    // f16 [dk, n_anchors, n_head_kv, n_batch of k], or absent
    struct tq_fa_tensor anchor_ids; // i32 [n_kv, n_batch of k], absent with anchors
    struct tq_fa_tensor dst;   // f32 [dv, n_head, n_tokens, n_batch]
    float scale;
    float max_bias;
    float logit_softcap;
};

// one of nth threads that run the same operator
struct tq_fa_thread {
    int    ith;
    int    nth;
    void * wdata; // shared by all threads
    size_t wsize;
    void (*barrier)(void * ctx); // waits for all nth threads
    void * ctx;
};

bool   tq_flash_attn_supported(int type_k, int type_v, int64_t dk, int64_t dv, bool anchors);
size_t tq_flash_attn_wsize(const struct tq_fa_args * args, int n_threads); // bytes of work buffer
void   tq_flash_attn(const struct tq_fa_args * args, const struct tq_fa_thread * thread);

//
// ggml
//

static inline bool ggml_is_turbo(enum ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

// for switches over types that list the quantized ones
#define GGML_TURBO_CASES    \
    case GGML_TYPE_TURBO2:  \
    case GGML_TYPE_TURBO3:  \
    case GGML_TYPE_TURBO4

#define GGML_TURBO_TRAITS_ONE(K)                          \
    [GGML_TYPE_TURBO##K] = {                              \
        .type_name      = "turbo" #K,                     \
        .blck_size      = QK_TURBO,                       \
        .type_size      = sizeof(block_turbo##K),         \
        .is_quantized   = true,                           \
        .to_float       = tq_dequantize_row_turbo##K,     \
        .from_float_ref = tq_quantize_row_turbo##K,       \
    }

// entries of ggml.c's type_traits
#define GGML_TURBO_TRAITS GGML_TURBO_TRAITS_ONE(2), GGML_TURBO_TRAITS_ONE(3), GGML_TURBO_TRAITS_ONE(4)

#define GGML_TURBO_TRAITS_CPU_ONE(K)                      \
    [GGML_TYPE_TURBO##K] = {                              \
        .from_float     = tq_quantize_row_turbo##K,       \
        .vec_dot        = tq_vec_dot_turbo##K##_q8_0,     \
        .vec_dot_type   = GGML_TYPE_Q8_0,                 \
        .nrows          = 1,                              \
    }

// entries of ggml-cpu.c's type_traits_cpu
#define GGML_TURBO_TRAITS_CPU GGML_TURBO_TRAITS_CPU_ONE(2), GGML_TURBO_TRAITS_CPU_ONE(3), GGML_TURBO_TRAITS_CPU_ONE(4)

// ggml_quantize_chunk: nrows rows of n_per_row values; returns the number of bytes written
static inline size_t ggml_turbo_quantize(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row) {
    GGML_ASSERT(ggml_is_turbo(type) && n_per_row % ggml_blck_size(type) == 0);
    ggml_get_type_traits(type)->from_float_ref(src, dst, nrows*n_per_row);
    return nrows*ggml_row_size(type, n_per_row);
}

// ggml-cpu/turbo-cpu.cpp

struct ggml_compute_params;

// runs dst (GGML_OP_FLASH_ATTN_EXT) with the Rust core if K or V is a turbo type.
// false: not ours, and nothing was done
bool ggml_turbo_flash_attn_ext(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// bytes of work buffer that ggml_turbo_flash_attn_ext needs; 0 if the operator is not ours
size_t ggml_turbo_flash_attn_wsize(const struct ggml_tensor * dst, int n_tasks);

// ggml-cpu/anchors-cpu.cpp

// runs sub (GGML_OP_SUB of keys and rows) without rows (GGML_OP_GET_ROWS of a table of anchors).
// false: they are other than that, and nothing was done
bool ggml_turbo_sub_rows(const struct ggml_compute_params * params, const struct ggml_tensor * rows, struct ggml_tensor * sub);

#ifdef __cplusplus
}
#endif
