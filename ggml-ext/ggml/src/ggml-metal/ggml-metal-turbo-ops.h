// What ggml-metal-ops.cpp calls at the beginning of its functions, for the turbo types and for attention with anchors.

#pragma once

#include "ggml-metal-ops.h"
#include "ggml-metal-turbo.h"

#include "ggml-backend-impl.h"
#include "turbo-gpu.h"

#include <algorithm>
#include <string>

static inline ggml_metal_buffer_id ggml_metal_turbo_buffer(const ggml_tensor * t) {
    const ggml_tensor * owner = t->view_src ? t->view_src : t;
    return ggml_metal_buffer_get_id((ggml_metal_buffer_t) owner->buffer->context, t);
}

//
// encoding
//

// A block is encoded by a threadgroup: a simdgroup for each of the encoder's scales.
static inline void ggml_metal_turbo_dispatch_encoder(ggml_metal_encoder_t enc, const ggml_tensor * src, int nk0) {
    ggml_metal_encoder_set_threadgroup_memory_size(enc, 16, 0);
    ggml_metal_encoder_dispatch_threadgroups(enc, nk0*(int) src->ne[1], (int) src->ne[2], (int) src->ne[3], 32, 4, 1);
}

static inline void ggml_metal_turbo_set_rows(ggml_metal_library_t lib, ggml_metal_encoder_t enc, const ggml_tensor * op) {
    const ggml_tensor * src = op->src[0];
    const ggml_tensor * ids = op->src[1];

    ggml_metal_kargs_set_rows args = {};
    args.nk0  = (int32_t) (op->ne[0]/ggml_blck_size(op->type));
    args.ne01 = (int32_t) src->ne[1];
    args.nb01 = src->nb[1];
    args.nb02 = src->nb[2];
    args.nb03 = src->nb[3];
    args.ne11 = (int32_t) ids->ne[1];
    args.ne12 = (int32_t) ids->ne[2];
    args.nb10 = ids->nb[0];
    args.nb11 = ids->nb[1];
    args.nb12 = ids->nb[2];
    args.nb1  = op->nb[1];
    args.nb2  = op->nb[2];
    args.nb3  = op->nb[3];

    ggml_metal_encoder_set_pipeline(enc, ggml_metal_library_get_pipeline_set_rows(lib, op));
    ggml_metal_encoder_set_bytes   (enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(src), 1);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(ids), 2);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(op),  3);
    ggml_metal_turbo_dispatch_encoder(enc, src, args.nk0);
}

static inline void ggml_metal_turbo_cpy(ggml_metal_library_t lib, ggml_metal_encoder_t enc, const ggml_tensor * op) {
    const ggml_tensor * src = op->src[0];

    ggml_metal_kargs_cpy args = {};
    args.nk0  = src->ne[0]/ggml_blck_size(op->type);
    args.ne00 = src->ne[0];
    args.ne01 = src->ne[1];
    args.ne02 = src->ne[2];
    args.ne03 = src->ne[3];
    args.nb00 = src->nb[0];
    args.nb01 = src->nb[1];
    args.nb02 = src->nb[2];
    args.nb03 = src->nb[3];
    args.ne0  = op->ne[0];
    args.ne1  = op->ne[1];
    args.ne2  = op->ne[2];
    args.ne3  = op->ne[3];
    args.nb0  = op->nb[0];
    args.nb1  = op->nb[1];
    args.nb2  = op->nb[2];
    args.nb3  = op->nb[3];

    ggml_metal_encoder_set_pipeline(enc, ggml_metal_library_get_pipeline_cpy(lib, src->type, op->type));
    ggml_metal_encoder_set_bytes   (enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(src), 1);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(op),  2);
    ggml_metal_turbo_dispatch_encoder(enc, src, (int) args.nk0);
}

// encodes an operator that writes turbo rows; false: it is not one
static inline bool ggml_metal_turbo_op(ggml_metal_library_t lib, ggml_metal_encoder_t enc, const ggml_tensor * op) {
    if (!ggml_metal_turbo_is(op->type)) {
        return false;
    }
    switch (op->op) {
        case GGML_OP_SET_ROWS:
            ggml_metal_turbo_set_rows(lib, enc, op);
            return true;
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            ggml_metal_turbo_cpy(lib, enc, op);
            return true;
        default:
            return false;
    }
}

//
// flash attention
//
// Upstream's function attends with a pair of one type, or with f16, and knows no anchors. It is given an operator that it
// can take as it is, in the place of the graph's.
//

// what marks an operator (extra) whose K and V have become f16
static inline void * ggml_metal_turbo_fa_made_f16() {
    static char mark;
    return &mark;
}

// Whether few queries, too, go to the kernels for many: those of heads without a kernel of ours, on their way through f16.
static inline bool ggml_metal_turbo_fa_no_vec(const ggml_tensor * op) {
    return op->extra == ggml_metal_turbo_fa_made_f16() || (ggml_metal_turbo_fa_pair(op) && !ggml_metal_turbo_fa_has_vec(op));
}

static inline bool ggml_metal_turbo_fa_is_ours(const ggml_tensor * op) {
    return ggml_metal_turbo_fa_pair(op) || ggml_flash_attn_ext_has_anchors(op);
}

// The kernels for many queries have neither the pairs nor the term: K and V become f16, and f16 keys need no term.
static inline bool ggml_metal_turbo_fa_through_f16(const ggml_tensor * op) {
    return ggml_metal_turbo_fa_is_ours(op) && !ggml_metal_op_flash_attn_ext_use_vec(op);
}

// V is the beginning of K's rows, as in latent attention
static inline bool ggml_metal_turbo_fa_v_in_k(const ggml_tensor * op) {
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];

    const bool same = (k->view_src ? k->view_src : k) == (v->view_src ? v->view_src : v);

    return same && k->view_offs == v->view_offs && k->type == v->type && std::equal(k->nb, k->nb + GGML_MAX_DIMS, v->nb);
}

// The anchors as arguments at, at + 1, at + 2 of a kernel. Those that are not there are not read.
static inline void ggml_metal_turbo_set_anchors(ggml_metal_encoder_t enc, const ggml_tensor * op, int at) {
    const bool has = ggml_flash_attn_ext_has_anchors(op);

    const ggml_tensor * m   = has ? op->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS]    : op->src[0];
    const ggml_tensor * ids = has ? op->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS] : op->src[0];

    ggml_metal_kargs_turbo_anchors args = {};
    if (has) {
        args.n_kv   = (int32_t) ids->ne[0];
        args.nb1    = m->nb[1];
        args.nb2    = m->nb[2];
        args.nb3    = m->nb[3];
        args.nb_ids = ids->nb[1];
    }
    ggml_metal_encoder_set_bytes (enc, &args, sizeof(args), at);
    ggml_metal_encoder_set_buffer(enc, ggml_metal_turbo_buffer(m),   at + 1);
    ggml_metal_encoder_set_buffer(enc, ggml_metal_turbo_buffer(ids), at + 2);
}

// K (i = 1) or V (i = 2) to f16
static inline ggml_metal_pipeline_with_params ggml_metal_turbo_get_pipeline_kv_f16(ggml_metal_library_t lib, const ggml_tensor * op, int i) {
    const char * anchors = i == 1 && ggml_flash_attn_ext_has_anchors(op) ? "_anchors" : "";
    const std::string name = std::string("kernel_turbo_kv_") + ggml_type_name(op->src[i]->type) + anchors + "_f16";

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, name.c_str());
    if (!res.pipeline) {
        res = ggml_metal_library_compile_pipeline(lib, name.c_str(), name.c_str(), nullptr);
    }
    return res;
}

static inline void ggml_metal_turbo_kv_f16(ggml_metal_library_t lib, ggml_metal_encoder_t enc, const ggml_tensor * op, int i, const ggml_tensor * to) {
    const ggml_tensor * from = op->src[i];

    // values for a thread
    const int64_t block   = from->type == GGML_TYPE_F16 ? 16 : ggml_blck_size(from->type);
    const int64_t nblocks = ggml_nelements(from)/block;
    GGML_ASSERT(nblocks <= INT32_MAX);

    ggml_metal_kargs_flash_attn_ext_kv_f16 args = {};
    args.ne0     = (int32_t) from->ne[0];
    args.ne1     = (int32_t) from->ne[1];
    args.ne2     = (int32_t) from->ne[2];
    args.ne3     = (int32_t) from->ne[3];
    args.nb0     = from->nb[0];
    args.nb1     = from->nb[1];
    args.nb2     = from->nb[2];
    args.nb3     = from->nb[3];
    args.nblocks = (int32_t) nblocks;

    const ggml_metal_pipeline_with_params pipeline = ggml_metal_turbo_get_pipeline_kv_f16(lib, op, i);
    const int nth = std::min(ggml_metal_pipeline_max_theads_per_threadgroup(pipeline), 256);

    ggml_metal_encoder_set_pipeline(enc, pipeline);
    ggml_metal_encoder_set_bytes   (enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(from), 1);
    ggml_metal_encoder_set_buffer  (enc, ggml_metal_turbo_buffer(to),   2);
    ggml_metal_turbo_set_anchors   (enc, op, 3);
    ggml_metal_encoder_dispatch_threadgroups(enc, (int) ((nblocks + nth - 1)/nth), 1, 1, nth, 1, 1);
}

class ggml_metal_turbo_fa {
public:
    // whether K and V become f16, in memory behind the result
    const bool through_f16;

    explicit ggml_metal_turbo_fa(const ggml_tensor * of) : through_f16(ggml_metal_turbo_fa_through_f16(of)), of(of), op(*of) {
        if (ggml_metal_turbo_fa_is_ours(of)) {
            // the hint by which upstream gathers cells, with kernels that know neither pairs nor anchors
            ggml_flash_attn_ext_set_n_kv_max(&op, 0);
        }
        if (!through_f16) {
            return;
        }
        k = f16(of->src[1]);
        v = f16(of->src[2]);
        // anchors are added to K alone
        v_in_k = ggml_metal_turbo_fa_v_in_k(of) && !ggml_flash_attn_ext_has_anchors(of);
        if (v_in_k) {
            std::copy_n(k.nb, GGML_MAX_DIMS, v.nb);
        }
        turbo_gpu::attend_to(op, k, v);
        op.extra = ggml_metal_turbo_fa_made_f16();
    }

    ggml_metal_turbo_fa(const ggml_metal_turbo_fa &) = delete;
    ggml_metal_turbo_fa & operator=(const ggml_metal_turbo_fa &) = delete;

    // The operator for upstream's function. If through_f16, kernels have been launched that write what it reads.
    ggml_tensor * begin(ggml_metal_library_t lib, ggml_metal_encoder_t enc) {
        if (!through_f16) {
            // of the kernel for few queries: what is bound stays so while upstream binds its own
            ggml_metal_turbo_set_anchors(enc, of, 9);
            return &op;
        }
        // where upstream makes its quantized types f16; f16 needs none of it
        char * scratch = (char *) op.data + ggml_nbytes(&op) +
            ggml_metal_op_flash_attn_ext_extra_pad(&op) +
            ggml_metal_op_flash_attn_ext_extra_blk(&op) +
            ggml_metal_op_flash_attn_ext_extra_tmp(&op);
        k.data = scratch;
        v.data = v_in_k ? scratch : scratch + bytes(&k);

        ggml_metal_turbo_kv_f16(lib, enc, of, 1, &k);
        if (!v_in_k) {
            ggml_metal_turbo_kv_f16(lib, enc, of, 2, &v);
        }
        return &op;
    }

    // of memory behind the result, what ggml_metal_op_flash_attn_ext_extra_pad has to say: besides upstream's for f16, what
    // the scratch takes that upstream does not reserve for its own
    size_t extra_pad() const {
        const size_t need = bytes(&k) + (v_in_k ? 0 : bytes(&v));
        const size_t has  = ggml_metal_op_flash_attn_ext_extra_kv_f16(of);
        return ggml_metal_op_flash_attn_ext_extra_pad(&op) + (need > has ? need - has : 0);
    }

private:
    const ggml_tensor * of; // the graph's
    ggml_tensor         op; // upstream's
    ggml_tensor         k;
    ggml_tensor         v;

    bool v_in_k = false;

    ggml_tensor f16(const ggml_tensor * from) const {
        ggml_tensor res = turbo_gpu::as_f16(from);
        res.buffer = of->view_src ? of->view_src->buffer : of->buffer;
        return res;
    }

    static size_t bytes(const ggml_tensor * t) {
        return GGML_PAD(ggml_nelements(t)*sizeof(ggml_fp16_t), 16);
    }
};
