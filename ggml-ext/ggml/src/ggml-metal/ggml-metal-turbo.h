// The turbo types in the host code of the Metal back end: which operators have kernels, and which kernel is chosen.

#pragma once

#include "ggml.h"
#include "ggml-anchors.h"

#include "ggml-metal-device.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline bool ggml_metal_turbo_is(enum ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

// whether it has to do with the types at all
static inline bool ggml_metal_turbo_has(const struct ggml_tensor * op) {
    bool res = ggml_metal_turbo_is(op->type);
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        res = res || (op->src[i] && ggml_metal_turbo_is(op->src[i]->type));
    }
    return res;
}

//
// flash attention
//

// a pair of K and V types that is ours
static inline bool ggml_metal_turbo_fa_pair(const struct ggml_tensor * op) {
    const enum ggml_type k = op->src[1]->type;
    const enum ggml_type v = op->src[2]->type;

    const bool known = (ggml_metal_turbo_is(k) || k == GGML_TYPE_Q8_0 || k == GGML_TYPE_F16) &&
                       (ggml_metal_turbo_is(v) || v == GGML_TYPE_Q8_0 || v == GGML_TYPE_F16);

    return known && (k != v || ggml_metal_turbo_is(k));
}

// Whether the kernel for a few queries is there for these heads. Others go through f16, as many queries do.
static inline bool ggml_metal_turbo_fa_has_vec(const struct ggml_tensor * op) {
    const int64_t dk = op->src[1]->ne[0];
    const int64_t dv = op->src[2]->ne[0];

    return dk == dv && (dk == 64 || dk == 128 || dk == 256);
}

// whether K or V can be made f16
static inline bool ggml_metal_turbo_fa_to_f16(const struct ggml_tensor * t) {
    switch ((int) t->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
            return t->ne[0] % 32 == 0;
        case GGML_TYPE_TURBO2:
        case GGML_TYPE_TURBO3:
        case GGML_TYPE_TURBO4:
            return t->ne[0] % 64 == 0;
        default:
            return false;
    }
}

static inline bool ggml_metal_turbo_fa_supported(const struct ggml_tensor * op) {
    const int64_t dk = op->src[1]->ne[0];
    const int64_t dv = op->src[2]->ne[0];

    // heads of upstream's kernels over f16
    const bool heads = (dk == dv && (dk == 32 || dk == 64 || dk == 96 || dk == 128 || dk == 192 || dk == 256 || dk == 512)) ||
                       (dk ==  96 && dv ==  64) ||
                       (dk == 192 && dv == 128) ||
                       (dk == 320 && dv == 256) ||
                       (dk == 576 && dv == 512);

    return heads && ggml_metal_turbo_fa_to_f16(op->src[1]) && ggml_metal_turbo_fa_to_f16(op->src[2]);
}

//
// other operators
//

static inline bool ggml_metal_turbo_op_supported(const struct ggml_tensor * op) {
    const struct ggml_tensor * src = op->src[0];

    switch (op->op) {
        case GGML_OP_GET_ROWS:
            return op->type == GGML_TYPE_F32;
        case GGML_OP_SET_ROWS:
            return src->type == GGML_TYPE_F32 && src->nb[0] == sizeof(float);
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            if (ggml_metal_turbo_is(op->type)) {
                return src->type == GGML_TYPE_F32 && src->nb[0] == sizeof(float) && src->ne[0] % 64 == 0;
            }
            return (op->type == GGML_TYPE_F32 || op->type == GGML_TYPE_F16) &&
                op->nb[0] == ggml_type_size(op->type) && op->ne[0] % 16 == 0;
        case GGML_OP_FLASH_ATTN_EXT:
            return ggml_metal_turbo_fa_pair(op) && ggml_metal_turbo_fa_supported(op);
        default:
            return false;
    }
}

// 1 or 0: an operator over these types, a pair of theirs, or with anchors, and whether there are kernels for it; -1: not
// one of these, for upstream's code to say
static inline int ggml_metal_turbo_supports_op(const struct ggml_tensor * op, bool has_simdgroup_mm) {
    const bool is_fa = op->op == GGML_OP_FLASH_ATTN_EXT;

    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_PERMUTE:
            return -1;
        default:
            break;
    }
    if (ggml_metal_turbo_has(op) || (is_fa && ggml_metal_turbo_fa_pair(op))) {
        return has_simdgroup_mm && ggml_metal_turbo_op_supported(op);
    }
    // upstream's types with anchors: what upstream takes and what can be made f16
    if (is_fa && ggml_flash_attn_ext_has_anchors(op) && !ggml_metal_turbo_fa_supported(op)) {
        return 0;
    }
    return -1;
}

#ifdef __cplusplus
}
#endif
