// The key-anchor term of flash attention, for graphs that use it and back ends that compute it.
//
// K holds keys relative to anchors: K[cell] = key - m[ids[cell]]. The logit of a cell is
//   scale * (q.K[cell] + q.m[ids[cell]]),
// before softcap and mask. A back end that cannot add the term must not take the operator:
// ggml_backend_dev_supports_op says so for all but the CPU's and those that have the procedure below.

#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// what a back end answers ggml_backend_reg_get_proc_address with, if its supports_op knows of anchors: any address
#define GGML_FLASH_ATTN_EXT_ANCHORS_PROC "ggml_flash_attn_ext_anchors"

#define GGML_FLASH_ATTN_EXT_SRC_ANCHORS    5 // m: F16 [n_embd_head, n_anchors, n_head of K, n_batch of K]
#define GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS 6 // I32 [n_kv, n_batch of K], negative: none

#if GGML_MAX_SRC <= GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS
#error "operators have too few sources for anchors"
#endif

static inline void ggml_flash_attn_ext_add_anchors(
        struct ggml_tensor * a,
        struct ggml_tensor * anchors,
        struct ggml_tensor * ids) {
    GGML_ASSERT(a->op == GGML_OP_FLASH_ATTN_EXT);
    GGML_ASSERT(anchors->type == GGML_TYPE_F16 && ids->type == GGML_TYPE_I32);
    GGML_ASSERT(anchors->nb[0] == sizeof(ggml_fp16_t) && ids->nb[0] == sizeof(int32_t));

    const struct ggml_tensor * k = a->src[1];
    GGML_ASSERT(anchors->ne[0] == k->ne[0] && anchors->ne[2] == k->ne[2] && anchors->ne[3] == k->ne[3]);
    GGML_ASSERT(ids->ne[0] == k->ne[1] && ids->ne[1] == k->ne[3]);

    // a source that upstream has come to use
    GGML_ASSERT(a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS] == NULL && a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS] == NULL);

    a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS]    = anchors;
    a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS] = ids;
}

static inline bool ggml_flash_attn_ext_has_anchors(const struct ggml_tensor * a) {
    return a->op == GGML_OP_FLASH_ATTN_EXT && a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS] != NULL;
}

// the term of the last cell that had another anchor than the cell before: cells in a row mostly share theirs
struct ggml_flash_attn_ext_anchor_term {
    int32_t id;
    float   qm;
};

#define GGML_FLASH_ATTN_EXT_NO_ANCHOR_TERM { -1, 0.0f }

// q.m of cell ic of K's head ik2 and batch ik3, not yet scaled; 0 if there are no anchors
//   q: the query, n_embd_head floats; last: that of this query's cell before
static inline float ggml_flash_attn_ext_get_anchor_term(
        const struct ggml_tensor * a, const float * q, int64_t ic, int64_t ik2, int64_t ik3,
        struct ggml_flash_attn_ext_anchor_term * last) {
    const struct ggml_tensor * anchors = a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS];
    const struct ggml_tensor * ids     = a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS];
    if (!anchors) {
        return 0.0f;
    }
    const int32_t id = ((const int32_t *) ((const char *) ids->data + ik3*ids->nb[1]))[ic];
    if (id != last->id) {
        last->id = id;
        last->qm = 0.0f;
        if (id >= 0) {
            GGML_ASSERT(id < anchors->ne[1]);
            const ggml_fp16_t * m = (const ggml_fp16_t *) ((const char *) anchors->data + id*anchors->nb[1] + ik2*anchors->nb[2] + ik3*anchors->nb[3]);
            for (int64_t i = 0; i < anchors->ne[0]; ++i) {
                last->qm += q[i]*ggml_fp16_to_fp32(m[i]);
            }
        }
    }
    return last->qm;
}

#ifdef __cplusplus
}
#endif
