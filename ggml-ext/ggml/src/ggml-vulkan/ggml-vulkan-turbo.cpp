// Operators on turbo types: which of them there are, and how their shaders are started.

#include "ggml-vulkan-turbo.h"

#include "turbo-gpu.h"

// values of a block
static constexpr uint32_t QK = 64;

// index bits of a turbo type
static uint32_t bits_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_TURBO2: return 2;
        case GGML_TYPE_TURBO3: return 3;
        case GGML_TYPE_TURBO4: return 4;
        default: GGML_ABORT("%s is no turbo type", ggml_type_name(type));
    }
}

// bytes of what shaders count strides and offsets in: a value, or half a word of a block
static size_t unit_of(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_I32 || type == GGML_TYPE_I64 ? 4 : 2;
}

// A tensor as a shader has it: a buffer, where the tensor begins in it, and its strides, in units.
struct turbo_view {
    vk_subbuffer buffer;
    uint32_t     ne[4];
    uint32_t     nb[4];
    uint32_t     at;

    turbo_view(const ggml_backend_vk_context * ctx, const ggml_tensor * t) {
        const size_t unit = unit_of(t->type);
        buffer = ggml_vk_tensor_subbuffer(ctx, t, true);
        at     = (uint32_t) (get_misalign_bytes(ctx, t)/unit);
        for (int i = 0; i < 4; ++i) {
            ne[i] = (uint32_t) t->ne[i];
            nb[i] = (uint32_t) (t->nb[i]/unit);
        }
    }
};

std::string ggml_vk_turbo_pipeline_name(const char * family, const std::vector<uint32_t> & constants) {
    std::string res = family;
    for (uint32_t x : constants) {
        res += "_" + std::to_string(x);
    }
    return res;
}

// Starts a pipeline in n groups, in rows of at most as many as every device takes.
static void start(ggml_backend_vk_context * ctx, vk_context & subctx, const char * family, const std::vector<uint32_t> & constants,
                  std::initializer_list<vk::DescriptorBufferInfo> buffers, const std::vector<uint32_t> & push, int64_t n_groups) {
    vk_pipeline & pipeline = ctx->device->pipeline_turbo.at(ggml_vk_turbo_pipeline_name(family, constants));
    ggml_pipeline_request_descriptor_sets(ctx, pipeline, 1);

    const uint32_t x = (uint32_t) std::min<int64_t>(n_groups, 32768);
    const uint32_t y = (uint32_t) ((n_groups + x - 1)/x);
    ggml_vk_dispatch_pipeline(ctx, subctx, pipeline, buffers, push, { x, y, 1 });
}

static int64_t div_up(int64_t n, int64_t m) {
    return (n + m - 1)/m;
}

//
// rows
//

static constexpr int64_t ENCODE_BLOCKS = 8;  // of a group of turbo_encode
static constexpr int64_t DECODE_BLOCKS = 16; // of a group of turbo_decode

// Rows of src to rows of dst, one of which is of a turbo type. ids: which rows of it, or null
static void rows(ggml_backend_vk_context * ctx, vk_context & subctx, const ggml_tensor * src, const ggml_tensor * ids, const ggml_tensor * dst) {
    const bool          encode = ggml_is_turbo(dst->type);
    const ggml_tensor * turbo  = encode ? dst : src;
    const ggml_tensor * floats = encode ? src : dst;

    const int64_t n_blocks = ggml_nelements(floats)/QK;
    if (n_blocks == 0) {
        return;
    }
    const turbo_view s(ctx, src);
    const turbo_view d(ctx, dst);
    const turbo_view i(ctx, ids ? ids : src);
    const std::vector<uint32_t> push = {
        (uint32_t) n_blocks,
        s.ne[0]/QK, s.ne[1], s.ne[2], s.nb[1], s.nb[2], s.nb[3], s.at,
        d.ne[0]/QK, d.ne[1], d.ne[2], d.nb[1], d.nb[2], d.nb[3], d.at,
        i.ne[0],    i.ne[1], i.ne[2], i.nb[0], i.nb[1], i.nb[2], i.at,
    };
    const uint32_t f16 = floats->type == GGML_TYPE_F16;
    const uint32_t id  = !ids ? 0 : ids->type == GGML_TYPE_I64 ? 2 : 1;
    start(ctx, subctx, encode ? "turbo_encode" : "turbo_decode", { bits_of(turbo->type), f16, id },
        { s.buffer, i.buffer, d.buffer }, push, div_up(n_blocks, encode ? ENCODE_BLOCKS : DECODE_BLOCKS));
}

static void copy(ggml_backend_vk_context * ctx, vk_context & subctx, const ggml_tensor * src, ggml_tensor * dst) {
    if (src->type == dst->type) {
        ggml_vk_cpy(ctx, subctx, src, dst); // whole words, whatever they mean
    } else {
        rows(ctx, subctx, src, nullptr, dst);
    }
}

//
// flash attention
//

// table and ids: the anchors that keys get back, or null
static void expand(ggml_backend_vk_context * ctx, vk_context & subctx, const ggml_tensor * kv, const ggml_tensor * table, const ggml_tensor * ids,
                   const ggml_tensor * dst) {
    const int64_t n_threads = ggml_nelements(kv)/4;
    const turbo_view x(ctx, kv);
    const turbo_view m(ctx, table ? table : kv);
    const turbo_view i(ctx, ids ? ids : kv);
    const turbo_view y(ctx, dst);
    const std::vector<uint32_t> push = {
        (uint32_t) n_threads, x.ne[0]/4, x.ne[2], x.ne[1],
        x.nb[1], x.nb[2], x.nb[3], x.at,
        m.nb[1], m.nb[2], m.nb[3], m.at,
        i.nb[1], i.at,
    };
    const uint32_t kind = kv->type == GGML_TYPE_F16 ? 0 : kv->type == GGML_TYPE_Q8_0 ? 8 : bits_of(kv->type);
    start(ctx, subctx, "turbo_expand", { kind, table ? 1u : 0u }, { x.buffer, m.buffer, i.buffer, y.buffer }, push, div_up(n_threads, 256));
}

// Beyond so many queries to a KV head expansion costs less than decoding the cache once more for every tile of them.
static constexpr int64_t MAX_ROWS = 32;

// Whether upstream's scalar shader reads K and V as they are (turbo_attention.glsl): decoding. Else they are expanded.
static bool is_direct(const ggml_tensor * dst) {
    return (ggml_is_turbo(dst->src[1]->type) || ggml_is_turbo(dst->src[2]->type)) && turbo_gpu::n_rows_of(dst) <= MAX_ROWS;
}

// Where turbo_terms puts its result: behind the operator's own.
struct terms_layout {
    size_t   at;
    uint32_t n_ids;
    uint32_t n_terms;

    explicit terms_layout(const ggml_tensor * dst) {
        const ggml_tensor * q     = dst->src[0];
        const ggml_tensor * table = dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS];
        at      = GGML_PAD(ggml_nbytes(dst), turbo_gpu::ALIGNMENT);
        n_ids   = (uint32_t) (dst->src[1]->ne[1]*dst->src[1]->ne[3]);
        n_terms = (uint32_t) (table->ne[1]*q->ne[1]*q->ne[2]*q->ne[3]);
    }
    size_t size() const {
        return ((size_t) n_ids + n_terms)*sizeof(float);
    }
};

vk_subbuffer ggml_vk_turbo_terms(ggml_backend_vk_context * ctx, const ggml_tensor * dst) {
    const terms_layout layout(dst);
    vk_subbuffer res = ggml_vk_tensor_subbuffer(ctx, dst);
    res.offset += layout.at;
    res.size    = layout.size();
    return res;
}

static void terms(ggml_backend_vk_context * ctx, vk_context & subctx, const ggml_tensor * dst) {
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * table = dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS];
    const terms_layout  layout(dst);
    const turbo_view q(ctx, dst->src[0]);
    const turbo_view m(ctx, table);
    const turbo_view i(ctx, dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS]);
    const std::vector<uint32_t> push = {
        layout.n_ids, layout.n_terms, (uint32_t) k->ne[1], m.ne[1], q.ne[0], q.ne[1], q.ne[2], q.ne[3],
        q.ne[2]/(uint32_t) k->ne[2], q.ne[3]/(uint32_t) k->ne[3],
        q.nb[1], q.nb[2], q.nb[3], q.at,
        m.nb[1], m.nb[2], m.nb[3], m.at,
        i.nb[1], i.at,
    };
    start(ctx, subctx, "turbo_terms", {}, { q.buffer, m.buffer, i.buffer, ggml_vk_turbo_terms(ctx, dst) }, push,
        div_up(std::max(layout.n_ids, layout.n_terms), 64));
}

static void flash_attn(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * dst) {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    // What is behind the result may still be read or written by what had that memory before: only results are looked at.
    ggml_vk_sync_buffers(ctx, subctx);

    if (is_direct(dst)) {
        if (ggml_flash_attn_ext_has_anchors(dst)) {
            terms(ctx, subctx, dst);
            ggml_vk_sync_buffers(ctx, subctx);
        }
        ggml_vk_flash_attn(ctx, subctx, dst->src[0], k, v, dst->src[3], dst->src[4], dst);
        return;
    }
    turbo_gpu::expanded_op expanded(dst);
    if (expanded.k.data != k->data) {
        expand(ctx, subctx, k, dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS], dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS], &expanded.k);
    }
    if (expanded.v.data != v->data) {
        expand(ctx, subctx, v, nullptr, nullptr, &expanded.v);
    }
    ggml_vk_sync_buffers(ctx, subctx);
    ggml_vk_flash_attn(ctx, subctx, dst->src[0], &expanded.k, &expanded.v, dst->src[3], dst->src[4], &expanded.op);
}

static size_t flash_attn_size(const ggml_tensor * dst) {
    if (!is_direct(dst)) {
        return turbo_gpu::expanded_op(dst).size;
    }
    if (!ggml_flash_attn_ext_has_anchors(dst)) {
        return ggml_nbytes(dst);
    }
    const terms_layout layout(dst);
    return layout.at + layout.size();
}

// upstream's answer for f16
static bool supports_f16_flash_attn(const vk_device & device, const ggml_tensor * op) {
    const ggml_tensor * mask  = op->src[3];
    const ggml_tensor * sinks = op->src[4];
    return op->src[0]->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 &&
        (!mask || mask->type == GGML_TYPE_F16) && (!sinks || sinks->type == GGML_TYPE_F32) &&
        (device->coopmat2 || (device->subgroup_shuffle && device->subgroup_vote));
}

static bool supports_flash_attn(const vk_device & device, const ggml_tensor * op) {
    if (!turbo_gpu::has_kv_types(op) || !supports_f16_flash_attn(device, op) || flash_attn_size(op) > device->max_buffer_size) {
        return false;
    }
    if (is_direct(op)) {
        return device->subgroup_shuffle && device->subgroup_vote;
    }
    const turbo_gpu::expanded_op expanded(op);
    const size_t      limit = device->properties.limits.maxStorageBufferRange;
    return ggml_nbytes(&expanded.k) <= limit && ggml_nbytes(&expanded.v) <= limit;
}

//
// what ggml-vulkan.cpp asks and calls
//

bool ggml_vk_turbo_is_ours(const ggml_tensor * op) {
    return turbo_gpu::is_ours(op);
}

// what the encoder has in shared memory
static bool has_encoder(const vk_device & device) {
    return device->properties.limits.maxComputeSharedMemorySize >= 24*1024;
}

bool ggml_vk_turbo_supports_op(const vk_device & device, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_SET_ROWS:
            return has_encoder(device) && turbo_gpu::supports_set_rows(op);
        case GGML_OP_GET_ROWS:
            return turbo_gpu::supports_get_rows(op);
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            return has_encoder(device) && turbo_gpu::supports_copy(op->src[0], op);
        case GGML_OP_FLASH_ATTN_EXT:
            return supports_flash_attn(device, op);
        default:
            return false;
    }
}

void ggml_vk_turbo_compute(ggml_backend_vk_context * ctx, vk_context & subctx, ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_SET_ROWS:       rows(ctx, subctx, op->src[0], op->src[1], op); break;
        case GGML_OP_GET_ROWS:       rows(ctx, subctx, op->src[0], op->src[1], op); break;
        case GGML_OP_CPY:
        case GGML_OP_DUP:
        case GGML_OP_CONT:           copy(ctx, subctx, op->src[0], op);             break;
        case GGML_OP_FLASH_ATTN_EXT: flash_attn(ctx, subctx, op);                   break;
        default: GGML_ABORT("%s on turbo types", ggml_op_desc(op));
    }
}

size_t ggml_vk_turbo_alloc_size(const ggml_tensor * op) {
    return op->op == GGML_OP_FLASH_ATTN_EXT && ggml_vk_turbo_is_ours(op) ? flash_attn_size(op) : ggml_nbytes(op);
}

void * ggml_vk_turbo_get_proc_address(ggml_backend_reg_t reg, const char * name) {
    GGML_UNUSED(reg);
    return strcmp(name, GGML_FLASH_ATTN_EXT_ANCHORS_PROC) == 0 ? (void *) ggml_vk_turbo_is_ours : nullptr;
}
