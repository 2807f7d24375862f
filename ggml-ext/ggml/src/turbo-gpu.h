// What the CUDA and Vulkan back ends take of operators over turbo types, and attention as upstream's f16 kernels take it, which
// Metal's host code uses, too (what it takes is in ggml-metal-turbo.h, which is C in part).

#pragma once

#include "ggml.h"
#include "ggml-anchors.h"
#include "ggml-impl.h"
#include "turbo.h"

namespace turbo_gpu {

// whether it reads or writes a turbo type, or attends with anchors
inline bool is_ours(const ggml_tensor * op) {
    if (ggml_op_is_empty(op->op)) {
        return false;
    }
    bool res = ggml_is_turbo(op->type) || ggml_flash_attn_ext_has_anchors(op);
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        res = res || (op->src[i] && ggml_is_turbo(op->src[i]->type));
    }
    return res;
}

// types that rows are encoded from and decoded to
inline bool is_float(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16;
}

inline bool is_float_rows(const ggml_tensor * t) {
    return is_float(t->type) && t->nb[0] == ggml_type_size(t->type);
}

inline bool supports_set_rows(const ggml_tensor * op) {
    return is_float_rows(op->src[0]) && (op->src[1]->type == GGML_TYPE_I64 || op->src[1]->type == GGML_TYPE_I32);
}

inline bool supports_get_rows(const ggml_tensor * op) {
    return op->type == GGML_TYPE_F32 && op->src[1]->type == GGML_TYPE_I32;
}

inline bool supports_copy(const ggml_tensor * src, const ggml_tensor * dst) {
    if (ggml_is_turbo(src->type) && ggml_is_turbo(dst->type)) {
        return src->type == dst->type && ggml_is_contiguous(src) && ggml_is_contiguous(dst);
    }
    const bool    encode = ggml_is_turbo(dst->type);
    const int64_t block  = ggml_blck_size(encode ? dst->type : src->type);
    return is_float_rows(encode ? src : dst) && src->ne[0]%block == 0 && dst->ne[0]%block == 0;
}

// types of K and V that attention has with a turbo type, or with anchors
inline bool is_kv_type(ggml_type type) {
    return ggml_is_turbo(type) || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_F16;
}

// kernels that expand K and V take 32 values at a time
inline bool has_kv_types(const ggml_tensor * flash_attn) {
    const ggml_tensor * k = flash_attn->src[1];
    const ggml_tensor * v = flash_attn->src[2];
    return is_kv_type(k->type) && is_kv_type(v->type) && k->ne[0]%32 == 0 && v->ne[0]%32 == 0;
}

// queries to a KV head: tokens times the heads that share it
inline int64_t n_rows_of(const ggml_tensor * flash_attn) {
    const ggml_tensor * q = flash_attn->src[0];
    return q->ne[1]*(q->ne[2]/flash_attn->src[1]->ne[2]);
}

// K or V in f16 and one row after the other; where it lies is to be said
inline ggml_tensor as_f16(const ggml_tensor * t) {
    ggml_tensor res = *t;
    res.type      = GGML_TYPE_F16;
    res.buffer    = nullptr;
    res.data      = nullptr;
    res.view_src  = nullptr;
    res.view_offs = 0;
    res.nb[0]     = sizeof(ggml_fp16_t);
    for (int i = 1; i < GGML_MAX_DIMS; ++i) {
        res.nb[i] = res.nb[i - 1]*res.ne[i - 1];
    }
    return res;
}

// makes an operator attend to these, without anchors
inline void attend_to(ggml_tensor & op, ggml_tensor & k, ggml_tensor & v) {
    op.src[1] = &k;
    op.src[2] = &v;
    op.src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS]    = nullptr;
    op.src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS] = nullptr;
}

static constexpr size_t ALIGNMENT = 256; // of what lies behind a result: the most that Vulkan lets a device ask for

// Flash attention with K and V in f16 behind the result, and no anchors. Those that are f16 already, and have no anchors, stay.
struct expanded_op {
    ggml_tensor k;
    ggml_tensor v;
    ggml_tensor op;
    size_t      size; // bytes of the result with K and V

    explicit expanded_op(const ggml_tensor * dst) : k(*dst->src[1]), v(*dst->src[2]), op(*dst) {
        size = GGML_PAD(ggml_nbytes(dst), ALIGNMENT);
        if (k.type != GGML_TYPE_F16 || ggml_flash_attn_ext_has_anchors(dst)) {
            expand(k);
        }
        if (v.type != GGML_TYPE_F16) {
            expand(v);
        }
        attend_to(op, k, v);
    }

    expanded_op(const expanded_op &) = delete;

private:
    void expand(ggml_tensor & t) {
        t = as_f16(&t);
        t.buffer = op.buffer;
        t.data   = (char *) op.data + size;
        size += GGML_PAD(ggml_nbytes(&t), ALIGNMENT);
    }
};

} // namespace turbo_gpu
