// Flash attention over turbo K or V: fills the arguments of the Rust core from ggml's tensors.

#include "turbo.h"

#include "ggml-anchors.h"
#include "ggml-cpu-impl.h"

#include <cstring>

// -1: the core does not read this type
static int turbo_kv_type(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:    return TQ_KV_F32;
        case GGML_TYPE_F16:    return TQ_KV_F16;
        case GGML_TYPE_BF16:   return TQ_KV_BF16;
        case GGML_TYPE_Q8_0:   return TQ_KV_Q8_0;
        case GGML_TYPE_TURBO2: return TQ_KV_TURBO2;
        case GGML_TYPE_TURBO3: return TQ_KV_TURBO3;
        case GGML_TYPE_TURBO4: return TQ_KV_TURBO4;
        case GGML_TYPE_I32:    return TQ_KV_I32;
        default:               return -1;
    }
}

static bool turbo_is_ours(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    const bool anchors = ggml_flash_attn_ext_has_anchors(dst);

    if (!ggml_is_turbo(k->type) && !ggml_is_turbo(v->type) && !anchors) {
        return false;
    }

    // every other pair (turbo with q4_0, say) takes ggml's own path through the type traits, which is exact but slow
    const int type_k = turbo_kv_type(k->type);
    const int type_v = turbo_kv_type(v->type);

    return q->type == GGML_TYPE_F32 && type_k >= 0 && type_v >= 0 &&
        tq_flash_attn_supported(type_k, type_v, k->ne[0], v->ne[0], anchors);
}

static tq_fa_tensor turbo_tensor(const ggml_tensor * t) {
    tq_fa_tensor res = {};
    if (t) {
        res.data = t->data;
        res.type = turbo_kv_type(t->type);
        memcpy(res.ne, t->ne, sizeof(res.ne));
        memcpy(res.nb, t->nb, sizeof(res.nb));
    }
    return res;
}

static tq_fa_args turbo_args(const ggml_tensor * dst) {
    tq_fa_args args = {};
    args.q     = turbo_tensor(dst->src[0]);
    args.k     = turbo_tensor(dst->src[1]);
    args.v     = turbo_tensor(dst->src[2]);
    args.mask  = turbo_tensor(dst->src[3]);
    args.sinks = turbo_tensor(dst->src[4]);
    args.anchors    = turbo_tensor(dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS]);
    args.anchor_ids = turbo_tensor(dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS]);
    args.dst   = turbo_tensor(dst);
    memcpy(&args.scale,         (const float *) dst->op_params + 0, sizeof(float));
    memcpy(&args.max_bias,      (const float *) dst->op_params + 1, sizeof(float));
    memcpy(&args.logit_softcap, (const float *) dst->op_params + 2, sizeof(float));
    return args;
}

static void turbo_barrier(void * ctx) {
    ggml_barrier((ggml_threadpool *) ctx);
}

bool ggml_turbo_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    // use_ref asks for the reference: ggml's own path, which de-quantizes row by row
    if (params->use_ref || !turbo_is_ours(dst)) {
        return false;
    }

    const ggml_tensor * mask  = dst->src[3];
    const ggml_tensor * sinks = dst->src[4];

    GGML_ASSERT(!mask  || mask->type  == GGML_TYPE_F16);
    GGML_ASSERT(!sinks || sinks->type == GGML_TYPE_F32);
    GGML_ASSERT(dst->type == GGML_TYPE_F32 && dst->nb[0] == sizeof(float));
    for (int i = 0; i < 3; ++i) {
        GGML_ASSERT(dst->src[i]->nb[0] == ggml_type_size(dst->src[i]->type));
    }

    const tq_fa_args   args   = turbo_args(dst);
    const tq_fa_thread thread = {
        /*.ith     =*/ params->ith,
        /*.nth     =*/ params->nth,
        /*.wdata   =*/ params->wdata,
        /*.wsize   =*/ params->wsize,
        /*.barrier =*/ turbo_barrier,
        /*.ctx     =*/ params->threadpool,
    };
    tq_flash_attn(&args, &thread);

    return true;
}

size_t ggml_turbo_flash_attn_wsize(const ggml_tensor * dst, int n_tasks) {
    if (!turbo_is_ours(dst)) {
        return 0;
    }
    const tq_fa_args args = turbo_args(dst);
    return tq_flash_attn_wsize(&args, n_tasks);
}
