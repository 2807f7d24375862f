// Operators on turbo types: which of them there are, and how their kernels are started.

#include "turbo.cuh"

#include "fattn.cuh"
#include "turbo-attention-start.cuh"
#include "turbo-gpu.h"
#include "turbo-reads.h"
#include "turbo-terms.cuh"

#include <algorithm>
#include <mutex>
#include <set>
#include <tuple>

using turbo::view;

static constexpr int N_THREADS = 128;
static_assert(N_THREADS == turbo::encode_by_warps::N_THREADS, "one of its blocks");

static view view_of(const ggml_tensor * t) {
    view res = {};
    if (t) {
        res.data = (char *) t->data;
        for (int i = 0; i < 4; ++i) {
            res.ne[i] = t->ne[i];
            res.nb[i] = (int64_t) t->nb[i];
        }
    }
    return res;
}

static dim3 grid_of(int64_t n_threads) {
    const int64_t n = (n_threads + N_THREADS - 1)/N_THREADS;
    GGML_ASSERT(n <= INT32_MAX);
    return dim3((unsigned) n, 1, 1);
}

// f(integer) with the index bits of a turbo type
template <typename F> static void with_bits(ggml_type type, const F & f) {
    switch (type) {
        case GGML_TYPE_TURBO2: return f(std::integral_constant<int, 2>());
        case GGML_TYPE_TURBO3: return f(std::integral_constant<int, 3>());
        case GGML_TYPE_TURBO4: return f(std::integral_constant<int, 4>());
        default: GGML_ABORT("%s is no turbo type", ggml_type_name(type));
    }
}

//
// rows
//

// Up to so many blocks for each multiprocessor four warps encode a block sooner than four threads: by the budget of
// docs/cuda.md, 7,000 clocks and at most a block in 1,900, against 25,000 for all.
static constexpr int64_t BLOCKS_BY_WARPS = 12;

static bool are_few_blocks(int device, int64_t n_blocks) {
    return n_blocks <= BLOCKS_BY_WARPS*ggml_cuda_info().devices[device].nsm;
}

// f(encoder) with the one that has n_blocks done first
template <typename F> static void with_encoder(int device, int64_t n_blocks, const F & f) {
    if (are_few_blocks(device, n_blocks)) {
        f(turbo::encode_by_warps());
    } else {
        f(turbo::encode_by_threads());
    }
}

static turbo::rows_to_set rows_of(const ggml_turbo_write & write) {
    turbo::rows_to_set rows = {};
    rows.src        = view_of(write.n_rotated ? write.set_rows->src[0] : write.rows);
    rows.ids        = view_of(write.set_rows->src[1]);
    rows.dst        = view_of(write.set_rows);
    rows.anchors    = view_of(write.anchors);
    rows.anchor_ids = view_of(write.anchor_ids);
    rows.n_blocks   = ggml_nelements(write.set_rows->src[0])/turbo::QK;
    if (write.n_rotated) {
        const ggml_tensor * src = write.rows;
        turbo::rotation & before = rows.before;
        before.n      = write.n_rotated;
        before.factor = 1/sqrtf((float) before.n); // as fwht.cu has it
        before.src    = view_of(src);
        before.scale  = view_of(write.scale);
        // [d, 1, n_heads, n_tokens] as [d, n_heads, n_tokens], and contiguous rows as those of one head
        const bool has_heads = write.scale != nullptr;
        const int64_t n_values = has_heads ? src->ne[0] : write.set_rows->src[0]->ne[0];
        before.src.ne[0] = n_values;
        before.src.ne[1] = has_heads ? src->ne[2] : 1;
        before.src.ne[2] = has_heads ? src->ne[3] : write.set_rows->src[0]->ne[1];
        before.src.nb[1] = has_heads ? (int64_t) src->nb[2] : n_values*(int64_t) sizeof(float);
        before.src.nb[2] = has_heads ? (int64_t) src->nb[3] : n_values*(int64_t) sizeof(float);
    }
    return rows;
}

static ggml_turbo_write plain_write(ggml_tensor * set_rows) {
    ggml_turbo_write write = {};
    write.rows     = set_rows->src[0];
    write.set_rows = set_rows;
    return write;
}

static void set_rows(ggml_backend_cuda_context & ctx, const ggml_turbo_write & write) {
    const turbo::rows_to_set rows = rows_of(write);
    if (rows.n_blocks == 0) {
        return;
    }
    const auto start = [&](auto bits, auto x, auto id) {
        with_encoder(ctx.device, rows.n_blocks, [&](auto encoder) {
            turbo::set_rows_kernel<decltype(encoder), decltype(bits)::value, decltype(x), decltype(id)>
                <<<grid_of(rows.n_blocks*encoder.N_THREADS), N_THREADS, 0, ctx.stream()>>>(rows);
        });
    };
    with_bits(write.set_rows->type, [&](auto bits) {
        const bool is_long = write.set_rows->src[1]->type == GGML_TYPE_I64;
        if (write.rows->type == GGML_TYPE_F32) {
            is_long ? start(bits, float(), int64_t()) : start(bits, float(), int32_t());
        } else {
            is_long ? start(bits, half(),  int64_t()) : start(bits, half(),  int32_t());
        }
    });
}

// Keys and values of one layer in one kernel, where warps encode them. The kernel has the types that caches are written from.
static bool set_both(ggml_backend_cuda_context & ctx, const ggml_turbo_write & k, const ggml_turbo_write & v) {
    if (k.set_rows->data == v.set_rows->data) {
        return false; // the later one wins
    }
    for (const ggml_turbo_write * write : { &k, &v }) {
        if (write->rows->type != GGML_TYPE_F32 || write->set_rows->src[1]->type != GGML_TYPE_I64) {
            return false;
        }
    }
    const turbo::rows_to_set keys   = rows_of(k);
    const turbo::rows_to_set values = rows_of(v);
    if (keys.n_blocks == 0 || values.n_blocks == 0 || !are_few_blocks(ctx.device, keys.n_blocks + values.n_blocks)) {
        return false;
    }
    dim3 grid = grid_of(std::max(keys.n_blocks, values.n_blocks)*turbo::encode_by_warps::N_THREADS);
    grid.y = 2;
    with_bits(k.set_rows->type, [&](auto kk) {
        with_bits(v.set_rows->type, [&](auto kv) {
            turbo::set_both_kernel<decltype(kk)::value, decltype(kv)::value><<<grid, N_THREADS, 0, ctx.stream()>>>(keys, values);
        });
    });
    return true;
}

static void get_rows(cudaStream_t stream, ggml_tensor * op) {
    const ggml_tensor * src = op->src[0];

    const int64_t n_blocks  = ggml_nelements(op)/turbo::QK;
    const int64_t n_threads = n_blocks*turbo::BLOCK_THREADS_DECODE;
    if (n_blocks == 0) {
        return;
    }
    with_bits(src->type, [&](auto bits) {
        turbo::get_rows_kernel<decltype(bits)::value>
            <<<grid_of(n_threads), N_THREADS, 0, stream>>>(view_of(src), view_of(op->src[1]), view_of(op), n_blocks);
    });
}

// dst is that of the copy: src[1] of GGML_OP_CPY, else the operator itself
static void copy(ggml_backend_cuda_context & ctx, const ggml_tensor * src, const ggml_tensor * dst) {
    cudaStream_t stream = ctx.stream();
    const int64_t n_blocks = ggml_nelements(src)/turbo::QK;
    if (n_blocks == 0) {
        return;
    }
    if (ggml_is_turbo(src->type) && ggml_is_turbo(dst->type)) {
        CUDA_CHECK(cudaMemcpyAsync(dst->data, src->data, ggml_nbytes(src), cudaMemcpyDeviceToDevice, stream));
    } else if (ggml_is_turbo(dst->type)) {
        with_bits(dst->type, [&](auto bits) {
            const auto start = [&](auto x) {
                with_encoder(ctx.device, n_blocks, [&](auto encoder) {
                    turbo::encode_kernel<decltype(encoder), decltype(bits)::value, decltype(x)>
                        <<<grid_of(n_blocks*encoder.N_THREADS), N_THREADS, 0, stream>>>(view_of(src), view_of(dst), n_blocks);
                });
            };
            src->type == GGML_TYPE_F32 ? start(float()) : start(half());
        });
    } else {
        with_bits(src->type, [&](auto bits) {
            const auto start = [&](auto y) {
                turbo::decode_kernel<decltype(bits)::value, decltype(y)>
                    <<<grid_of(n_blocks*turbo::BLOCK_THREADS_DECODE), N_THREADS, 0, stream>>>(view_of(src), view_of(dst), n_blocks);
            };
            dst->type == GGML_TYPE_F32 ? start(float()) : start(half());
        });
    }
}

//
// flash attention
//

static void expand(cudaStream_t stream, const ggml_tensor * kv, const turbo::anchor_view & anchors, void * dst) {
    GGML_ASSERT(ggml_nelements(kv)/32 <= INT32_MAX); // what there is room for as f16 is less
    const uint32_t n_threads = (uint32_t) (ggml_nelements(kv)/32);
    const auto start = [&](auto type) {
        turbo::expand_kernel<decltype(type)>
            <<<grid_of(n_threads), N_THREADS, 0, stream>>>(view_of(kv), anchors, (half *) dst, n_threads);
    };
    switch (kv->type) {
        case GGML_TYPE_TURBO2: return start(turbo::kv_turbo<2>());
        case GGML_TYPE_TURBO3: return start(turbo::kv_turbo<3>());
        case GGML_TYPE_TURBO4: return start(turbo::kv_turbo<4>());
        case GGML_TYPE_Q8_0:   return start(turbo::kv_q8_0());
        case GGML_TYPE_F16:    return start(turbo::kv_f16());
        default: GGML_ABORT("flash attention with %s", ggml_type_name(kv->type));
    }
}

// A block of turbo-attention.cuh reads the whole cache for so many rows; beyond a few blocks, expansion costs less.
static constexpr int64_t MAX_ROWS = 2*turbo::ROWS;

static bool has_few_rows(const ggml_tensor * dst) {
    return turbo_gpu::n_rows_of(dst) <= MAX_ROWS;
}

// without .attention if expansion it has to be
static turbo::attention_kernels find_attention(int device, const ggml_tensor * dst) {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    if (!has_few_rows(dst) || k->ne[0] != v->ne[0] || k->ne[2] != v->ne[2] || k->ne[3] != v->ne[3] ||
            !turing_mma_available(ggml_cuda_info().devices[device].cc)) {
        return {};
    }
    switch (k->ne[0]) {
        case 64:  return turbo::find_attention_64 (k->type, v->type);
        case 128: return turbo::find_attention_128(k->type, v->type);
        case 256: return turbo::find_attention_256(k->type, v->type);
        default:  return {};
    }
}

// What is done to queries before and to the result after, where attention does it. Queries are seen where they are then.
static void set_rotations(turbo::attention_args & args, const ggml_turbo_read & read) {
    if (read.n_rotated) {
        const ggml_tensor * queries = read.queries;
        args.n_before      = read.n_rotated;
        args.factor_before = 1/sqrtf((float) args.n_before); // as fwht.cu has it
        args.q.data        = (char *) queries->data;
        if (read.scale) {
            args.q_scale = (const float *) read.scale->data;
            args.q.nb[2] = (int64_t) queries->nb[1];
            args.q.nb[1] = (int64_t) queries->nb[3];
            args.q.nb[3] = args.q.ne[1]*args.q.nb[1];
        }
    }
    if (read.rotated) {
        args.n_after      = (int) read.rotated->ne[0];
        args.factor_after = 1/sqrtf((float) args.n_after);
    }
}

static ggml_turbo_read plain_read(ggml_tensor * attention) {
    ggml_turbo_read read = {};
    read.attention = attention;
    return read;
}

static void attend(ggml_backend_cuda_context & ctx, const ggml_turbo_read & read, const turbo::attention_kernels & kernels) {
    ggml_tensor       * dst   = read.attention;
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * sinks = dst->src[4];
    const ggml_tensor * table = dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS];

    turbo::attention_args args = {};
    args.q    = view_of(q);
    args.k    = view_of(k);
    args.v    = view_of(dst->src[2]);
    args.mask = view_of(dst->src[3]);
    args.ids  = view_of(dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS]);
    args.n_anchors = table ? (int) table->ne[1] : 0;

    float options[3]; // scale, max_bias, softcap
    memcpy(options, dst->op_params, sizeof(options));
    args.set_options(options[0], options[1], options[2]);
    set_rotations(args, read);

    const int64_t n_rows   = args.n_rows();
    const int64_t n_groups = args.n_groups();

    // two blocks for each multiprocessor, if there are as many cells
    const int64_t n_sm     = ggml_cuda_info().devices[ctx.device].nsm;
    const int64_t n_wanted = (2*n_sm + n_groups*q->ne[3] - 1)/(n_groups*q->ne[3]);
    const int64_t n_most   = (k->ne[1] + kernels.n_cells - 1)/kernels.n_cells;
    args.n_splits = (int) std::max<int64_t>(1, std::min(n_wanted, n_most));

    const int64_t n_all = args.n_splits*q->ne[3]*k->ne[2]*n_rows;
    ggml_cuda_pool_alloc<float>  out  (ctx.pool(), n_all*k->ne[0]);
    ggml_cuda_pool_alloc<float2> stats(ctx.pool(), n_all);
    ggml_cuda_pool_alloc<float>  terms(ctx.pool());
    args.out   = out.get();
    args.stats = stats.get();

    const dim3 heads = dim3(1, (unsigned) k->ne[2], (unsigned) q->ne[3]);
    if (table) {
        args.terms = terms.alloc(q->ne[3]*k->ne[2]*args.n_anchors*n_rows);
        const auto start = [&](auto dim) {
            turbo::terms_kernel<decltype(dim)::value>
                <<<dim3((unsigned) args.n_anchors, heads.y, heads.z), turbo::LANES, 0, ctx.stream()>>>(args, view_of(table), terms.get());
        };
        switch (k->ne[0]) {
            case 64:  start(std::integral_constant<int, 64>());  break;
            case 128: start(std::integral_constant<int, 128>()); break;
            default:  start(std::integral_constant<int, 256>()); break;
        }
    }
    kernels.attention(args, dim3((unsigned) args.n_splits, (unsigned) n_groups, heads.z), ctx.stream());
    view result = view_of(dst);
    result.data = read.rotated ? (char *) read.rotated->data : result.data;
    kernels.combine(args, sinks ? (const float *) sinks->data : nullptr, result, dim3((unsigned) n_rows, heads.y, heads.z), ctx.stream());
}

// says once for every kind that decoding reads more than it has to
static void note_expansion(int device, const ggml_tensor * dst) {
    static std::mutex mutex;
    static std::set<std::tuple<int, ggml_type, ggml_type, int64_t>> noted;

    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    if (!has_few_rows(dst)) {
        return;
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (noted.insert({ device, k->type, v->type, k->ne[0] }).second) {
        GGML_LOG_WARN("%s: %s keys and %s values of head_dim %d, %d queries to a KV head: attention converts them to f16 on device %d, "
            "decoding is no faster than with an f16 cache\n", __func__, ggml_type_name(k->type), ggml_type_name(v->type),
            (int) k->ne[0], (int) turbo_gpu::n_rows_of(dst), device);
    }
}

static void flash_attn(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    const turbo::attention_kernels kernels = find_attention(ctx.device, dst);
    if (kernels.attention) {
        attend(ctx, plain_read(dst), kernels);
        return;
    }
    note_expansion(ctx.device, dst);

    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    const turbo::anchor_view anchors = {
        view_of(dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHORS]),
        view_of(dst->src[GGML_FLASH_ATTN_EXT_SRC_ANCHOR_IDS]),
    };
    turbo_gpu::expanded_op expanded(dst);
    if (expanded.k.data != k->data) {
        expand(ctx.stream(), k, anchors, expanded.k.data);
    }
    if (expanded.v.data != v->data) {
        expand(ctx.stream(), v, {}, expanded.v.data);
    }
    ggml_cuda_flash_attn_ext(ctx, &expanded.op);
}

static bool supports_flash_attn(int device, const ggml_tensor * op) {
    if (!turbo_gpu::has_kv_types(op)) {
        return false;
    }
    if (find_attention(device, op).attention) {
        return true;
    }
    const turbo_gpu::expanded_op expanded(op);
    return ggml_cuda_flash_attn_ext_supported(device, &expanded.op);
}

size_t ggml_cuda_turbo_flash_attn_alloc_size(int device, const ggml_tensor * op) {
    if (!ggml_cuda_turbo_is_ours(op)) {
        return ggml_cuda_flash_attn_ext_get_alloc_size(device, op);
    }
    return find_attention(device, op).attention ? ggml_nbytes(op) : turbo_gpu::expanded_op(op).size;
}

//
// what ggml-cuda.cu asks and calls
//

bool ggml_cuda_turbo_is_ours(const ggml_tensor * op) {
    return turbo_gpu::is_ours(op);
}

bool ggml_cuda_turbo_supports_op(int device, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_SET_ROWS:
            return turbo_gpu::supports_set_rows(op);
        case GGML_OP_GET_ROWS:
            return turbo_gpu::supports_get_rows(op);
        case GGML_OP_CPY:
            return turbo_gpu::supports_copy(op->src[0], op->src[1]);
        case GGML_OP_DUP:
        case GGML_OP_CONT:
            return turbo_gpu::supports_copy(op->src[0], op);
        case GGML_OP_FLASH_ATTN_EXT:
            return supports_flash_attn(device, op);
        default:
            return false;
    }
}

void ggml_cuda_turbo_compute(ggml_backend_cuda_context & ctx, ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_SET_ROWS:       set_rows(ctx, plain_write(op));                   break;
        case GGML_OP_GET_ROWS:       get_rows(ctx.stream(), op);                          break;
        case GGML_OP_CPY:            copy(ctx, op->src[0], op->src[1]);                   break;
        case GGML_OP_DUP:
        case GGML_OP_CONT:           copy(ctx, op->src[0], op);                           break;
        case GGML_OP_FLASH_ATTN_EXT: flash_attn(ctx, op);                                 break;
        default: GGML_ABORT("%s on turbo types", ggml_op_desc(op));
    }
    CUDA_CHECK(cudaGetLastError());
}

void ggml_cuda_turbo_order(ggml_cgraph * graph) {
    ggml_turbo_bring_rotations(graph);
    ggml_turbo_bring_queries(graph);
}

static int try_read(ggml_backend_cuda_context & ctx, const ggml_cgraph * graph, int i) {
    ggml_turbo_read read;
    const int n = ggml_turbo_match_read(graph, i, read);
    if (n == 0 || !ggml_cuda_turbo_is_ours(read.attention)) {
        return 0;
    }
    const turbo::attention_kernels kernels = find_attention(ctx.device, read.attention);
    if (!kernels.attention) {
        return 0;
    }
    attend(ctx, read, kernels);
    CUDA_CHECK(cudaGetLastError());
    return n - 1;
}

int ggml_cuda_turbo_try_fuse(ggml_backend_cuda_context & ctx, const ggml_cgraph * graph, int i) {
    if (const int n_skip = try_read(ctx, graph, i)) {
        return n_skip;
    }
    ggml_turbo_write first;
    const int n_first = ggml_turbo_match_write(graph, i, first);
    if (n_first == 0) {
        return 0;
    }
    ggml_turbo_write second;
    const int n_second = ggml_turbo_match_next_write(graph, i + n_first, second);
    if (n_second != 0 && set_both(ctx, first, second)) {
        CUDA_CHECK(cudaGetLastError());
        return n_first + n_second - 1;
    }
    if (n_first == 1) {
        return 0; // as any operator
    }
    set_rows(ctx, first);
    CUDA_CHECK(cudaGetLastError());
    return n_first - 1;
}
