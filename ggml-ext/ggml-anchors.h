// The key-anchor term of flash attention, for graphs that use it and back ends that compute it.
//
// K holds keys relative to anchors: K[cell] = key - m[ids[cell]]. The logit of a cell is
//   scale * (q.K[cell] + logits[ids[cell]]),   logits = q.m for every anchor,
// before softcap and mask. A back end that cannot add the term must not take the operator:
// ggml_backend_dev_supports_op says so for all but those that are known to.

#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GGML_FLASH_ATTN_EXT_SRC_ANCHOR_LOGITS 5 // F32 [n_anchors, n_tokens, n_head, n_batch]
#define GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS    6 // I32 [n_kv, n_batch of K]

static inline void ggml_flash_attn_ext_add_anchors(
        struct ggml_tensor * a,
        struct ggml_tensor * logits,
        struct ggml_tensor * ids) {
    GGML_ASSERT(a->op == GGML_OP_FLASH_ATTN_EXT);
    GGML_ASSERT(logits->type == GGML_TYPE_F32 && ids->type == GGML_TYPE_I32);
    GGML_ASSERT(logits->nb[0] == sizeof(float) && ids->nb[0] == sizeof(int32_t));
    GGML_ASSERT(logits->ne[1] == a->src[0]->ne[1] && logits->ne[2] == a->src[0]->ne[2] && logits->ne[3] == a->src[0]->ne[3]);
    GGML_ASSERT(ids->ne[0] == a->src[1]->ne[1] && ids->ne[1] == a->src[1]->ne[3]);

    a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_LOGITS] = logits;
    a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS]    = ids;
}

static inline bool ggml_flash_attn_ext_has_anchors(const struct ggml_tensor * a) {
    return a->op == GGML_OP_FLASH_ATTN_EXT && a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_LOGITS] != NULL;
}

// the term of cell ic of K's batch ik3, for query (iq1, iq2, iq3), not yet scaled; 0 if there are no anchors
static inline float ggml_flash_attn_ext_anchor_term(
        const struct ggml_tensor * a, int64_t ic, int64_t ik3, int64_t iq1, int64_t iq2, int64_t iq3) {
    const struct ggml_tensor * logits = a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_LOGITS];
    const struct ggml_tensor * ids    = a->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS];
    if (!logits) {
        return 0.0f;
    }
    const int32_t id = ((const int32_t *) ((const char *) ids->data + ik3*ids->nb[1]))[ic];
    if (id < 0) {
        return 0.0f; // a key that is stored as it is
    }
    GGML_ASSERT(id < logits->ne[0]);
    return ((const float *) ((const char *) logits->data + iq1*logits->nb[1] + iq2*logits->nb[2] + iq3*logits->nb[3]))[id];
}

#ifdef __cplusplus
}
#endif
