// Flash attention of a few queries over turbo K or V: decoding.
//
// The queries of a KV head, all heads of its group and all tokens, are the rows of one matrix: a tile of K or V is
// decoded once for 16 of them, straight into the operands of tensor cores. Each warp has tiles of its own and an online
// softmax; a block adds its warps up, a second kernel the blocks. docs/cuda.md counts operations and bytes.
//
// Sources: Milakov & Gimelshein 2018 (online softmax), Dao et al. 2023 (split KV).

#pragma once

#include "turbo-tiles.cuh"

namespace turbo {

constexpr int   ROWS  = 16; // of a block
constexpr float LOG2E = 1.4426950408889634f;

// enough to keep a warp's tiles of K and V in a block's static shared memory
template <int D> constexpr int n_warps_of = D > 128 ? 2 : 4;

struct attention_args {
    view q;     // f32 [D, n_tokens, n_head, n_batch]
    view k;     // [D, n_kv, n_head_kv, n_batch_kv]
    view v;
    view mask;  // f16 [n_kv, n_tokens, 1 or n_head, 1 or n_batch], or none

    // what is done to a row's queries as they are loaded, and to its result
    int           n_before;      // values that are rotated together; 0: none
    int           n_after;
    float         factor_before; // 1/sqrt of these
    float         factor_after;
    const float * q_scale;       // [D, n_head_kv], before queries are rotated, or none

    view          ids;       // i32 [n_kv, n_batch_kv]: anchors, or none
    const float * terms;     // [n_batch, n_head_kv, n_anchors, n_rows]: q.m
    int           n_anchors;

    float scale;         // of logits; with a softcap, divided by it
    float softcap;       // 0: none
    float max_bias;      // ALiBi; 0: none
    int   n_head_log2;   // the largest power of two up to n_head

    int     n_splits;
    float *  out;   // [n_splits, n_batch, n_head_kv, n_rows, D], sums of weights times values
    float2 * stats; // [n_splits, n_batch, n_head_kv, n_rows]: the largest logit, the sum of weights; in units of log 2

    // rows of a KV head: token after token, and its heads of each
    __host__ __device__ __forceinline__ int group()  const { return (int) (q.ne[2]/k.ne[2]); }
    __host__ __device__ __forceinline__ int n_rows() const { return (int) q.ne[1]*group(); }

    // of all KV heads, ROWS rows each
    int n_groups() const { return (n_rows() + ROWS - 1)/ROWS*(int) k.ne[2]; }

    // the operator's parameters; after q
    void set_options(float op_scale, float op_max_bias, float op_softcap) {
        scale    = op_softcap == 0.0f ? op_scale : op_scale/op_softcap;
        max_bias = op_max_bias;
        softcap  = op_softcap;

        n_head_log2 = 1;
        while (2*n_head_log2 <= q.ne[2]) {
            n_head_log2 *= 2;
        }
    }

    __device__ __forceinline__ int token(int row)             const { return row/group(); }
    __device__ __forceinline__ int head (int head_kv, int row) const { return head_kv*group() + row%group(); }

    __device__ __forceinline__ const float * query(int head_kv, int row, int batch) const {
        return (const float *) (q.data + token(row)*q.nb[1] + head(head_kv, row)*q.nb[2] + batch*q.nb[3]);
    }

    // of K, V and anchors
    __device__ __forceinline__ int batch_kv(int batch) const { return (int) (batch/(q.ne[3]/k.ne[3])); }
};

// A row's queries, scaled and rotated, by a warp; in `own`, which has room for D, where that is left to do.
template <int D> TQ_FN const float * queries_of(const attention_args & args, int head_kv, int row, int batch, float * own) {
    const float * q = args.query(head_kv, row, batch);
    if (args.n_before == 0) {
        return q;
    }
    const float * s = args.q_scale ? args.q_scale + head_kv*D : nullptr;
    ggml_cuda_syncwarp(); // what was there before has been read
    for (int at = 0; at < D; at += args.n_before) {
        rotate_up_to<D>(args.n_before, args.factor_before, (int) threadIdx.x,
            [&](int i) { return s ? mul(q[at + i], s[at + i]) : q[at + i]; }, [&](int i, float x) { own[at + i] = x; });
    }
    ggml_cuda_syncwarp();
    return own;
}

// ALiBi's slope of a head
TQ_FN float slope_of(const attention_args & args, int head) {
    if (args.max_bias == 0.0f) {
        return 1.0f;
    }
    const int   n    = args.n_head_log2;
    const float base = head < n ? exp2f(-args.max_bias/n) : exp2f(-args.max_bias/2.0f/n);
    return powf(base, (float) (head < n ? head + 1 : 2*(head - n) + 1));
}

// a pair of rows that a lane has logits of: g and g + 8
struct row_state {
    float largest;
    float sum;
    float factor; // of the row's queries as they are stored
    float slope;
    int   offset; // of the mask's row, in halves
    int   term;   // of the first anchor
};

// The rows of a block, as halves in the order of K's tiles; a row's largest value is 1. scratch: room for D floats of each warp
template <int D, typename KT> TQ_FN void load_queries(
        const attention_args & args, uint32_t (&out)[ROWS][D/2 + 4], float (&factors)[ROWS], float * scratch, int row0, int head_kv, int batch) {
    const int n_warps = (int) blockDim.y;
    for (int r = threadIdx.y; r < ROWS; r += n_warps) {
        const bool    there = row0 + r < args.n_rows();
        const float * q     = queries_of<D>(args, head_kv, there ? row0 + r : 0, batch, scratch + D*threadIdx.y);

        float largest = 0.0f;
        for (int i = threadIdx.x; i < D; i += LANES) {
            largest = fmaxf(largest, there ? fabsf(q[i]) : 0.0f);
        }
        largest = largest_of_warp(largest);
        const float inverse = largest > 0.0f ? 1.0f/largest : 0.0f;
        for (int i = threadIdx.x; i < D/2; i += LANES) {
            // columns 2 i and 2 i + 1 of all steps
            const int b = i/(QK/2);
            const int s = i/8%4;
            const int t = i%4;
            const int p = i%8/4*2;
            const float x = there ? q[b*QK + KT::key_place(s, t, p)]     : 0.0f;
            const float y = there ? q[b*QK + KT::key_place(s, t, p + 1)] : 0.0f;
            out[r][i] = pair_of(x*inverse, y*inverse);
        }
        if (threadIdx.x == 0) {
            factors[r] = largest;
        }
    }
}

// Products of a block's rows with a tile's 8 N cells, of which every lane has those of mma's results.
template <int D, int N, typename KT> TQ_FN void add_logits(
        float (&products)[N][4], const uint32_t (&queries)[ROWS][D/2 + 4], KT & k, const rows_t & rows, lane_t lane) {
#pragma unroll 1
    for (int b = 0; b < D/QK; ++b) {
        uint32_t q[4][4];
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            const int column = b*(QK/2) + 8*s + lane.t;
            q[s][0] = queries[lane.g]    [column];
            q[s][1] = queries[lane.g + 8][column];
            q[s][2] = queries[lane.g]    [column + 4];
            q[s][3] = queries[lane.g + 8][column + 4];
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            uint32_t keys[4][2];
            k.keys(keys, b, 8*n + lane.g, lane, rows);
            float sums[4] = {};
#pragma unroll
            for (int s = 0; s < 4; ++s) {
                multiply_add(sums, q[s], keys[s][0], keys[s][1]);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                products[n][i] += KT::HAS_SCALE ? sums[i]*k.scale(b, 8*n + 2*lane.t + i%2) : sums[i];
            }
        }
    }
}

// Blocks: splits, rows of KV heads by ROWS, batches. Threads: 32, n_warps_of<D>.
template <int D, typename TK, typename TV> __global__ void
__launch_bounds__(LANES*n_warps_of<D>, 2)
attention_kernel(const attention_args args) {
    typedef typename tile_of<TK, D>::type k_tile;
    typedef typename tile_of<TV, D>::type v_tile;

    constexpr int N_WARPS = n_warps_of<D>;
    constexpr int BLOCKS  = D/QK;
    constexpr int TILE    = tile_cells<D>;
    constexpr int N       = TILE/8;  // products side by side for logits
    constexpr int STEPS   = TILE/16; // and one after the other for results

    struct tiles_t {
        k_tile k;
        v_tile v;
    };
    union shared_t {
        tiles_t tiles[N_WARPS];
        float   sums[ROWS][D];
        __device__ shared_t() {}
    };
    alignas(16) __shared__ char shared_bytes[sizeof(shared_t)];
    __shared__ uint32_t queries[ROWS][D/2 + 4];
    __shared__ float    factors[ROWS];
    __shared__ float    largests[N_WARPS][ROWS];
    __shared__ float    sums[N_WARPS][ROWS];
    shared_t & shared = *(shared_t *) shared_bytes;

    const lane_t lane = this_lane();
    const int    warp = (int) threadIdx.y;

    const int n_rows    = args.n_rows();
    const int per_head  = (n_rows + ROWS - 1)/ROWS;
    const int head_kv   = (int) blockIdx.y/per_head;
    const int row0      = (int) blockIdx.y%per_head*ROWS;
    const int batch     = (int) blockIdx.z;
    const int batch_kv  = args.batch_kv(batch);
    const int n_kv      = (int) args.k.ne[1];

    load_queries<D, k_tile>(args, queries, factors, &shared.sums[0][0], row0, head_kv, batch);
    __syncthreads();

    row_state rows[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int  r     = lane.g + 8*i;
        const int  row   = row0 + r < n_rows ? row0 + r : 0; // one that is there
        const int  head  = args.head(head_kv, row);
        rows[i].largest = -INFINITY;
        rows[i].sum     = 0.0f;
        rows[i].factor  = factors[r]*args.scale;
        rows[i].slope   = slope_of(args, head);
        rows[i].offset  = args.mask.data ? (int) ((args.token(row)*args.mask.nb[1] + head%args.mask.ne[2]*args.mask.nb[2])/2) : 0;
        rows[i].term    = row;
    }

    float    result[BLOCKS][8][4] = {};
    uint32_t exponent[BLOCKS] = {}; // of the largest scale of V's so far, as f16's bits have it

    k_tile & k = shared.tiles[warp].k;
    v_tile & v = shared.tiles[warp].v;

    const uint16_t * masks = (const uint16_t *) args.mask.data;
    if (masks) {
        masks += batch%args.mask.ne[3]*args.mask.nb[3]/2;
    }
    const float * terms = args.terms + ((int64_t) batch*args.k.ne[2] + head_kv)*args.n_anchors*n_rows;

    rows_t k_rows = { args.k.data + head_kv*args.k.nb[2] + batch_kv*args.k.nb[3], args.k.nb[1], 0, n_kv - 1 };
    rows_t v_rows = { args.v.data + head_kv*args.v.nb[2] + batch_kv*args.v.nb[3], args.v.nb[1], 0, n_kv - 1 };

    const int n_tiles = (n_kv + TILE - 1)/TILE;
    const int begin   = (int) ((int64_t) n_tiles* blockIdx.x     /gridDim.x);
    const int end     = (int) ((int64_t) n_tiles*(blockIdx.x + 1)/gridDim.x);
    for (int tile = begin + warp; tile < end; tile += N_WARPS) {
        const int first = tile*TILE;

        // masks first: nothing else is read of a tile that nobody sees
        float logits[N][4];
        bool  seen = false;
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int cell = first + 8*n + 2*lane.t + i%2;
                float mask = cell < n_kv ? 0.0f : -INFINITY;
                if (masks && cell < n_kv) {
                    mask = float_of_half(masks[rows[i/2].offset + cell]);
                }
                logits[n][i] = mask;
                seen = seen || mask != -INFINITY;
            }
        }
        if (!__any_sync(0xffffffff, seen)) {
            continue;
        }

        k_rows.first = first;
        v_rows.first = first;
        ggml_cuda_syncwarp(); // the tile before has been read
        k.load(k_rows);
        [[maybe_unused]] const bool v_finite = v.load(v_rows);
        ggml_cuda_syncwarp();

        // logits
        float products[N][4] = {};
        add_logits<D>(products, queries, k, k_rows, lane);

        // values that are not finite: NaN for rows that see them, nothing for the others
        if constexpr (v_tile::HAS_SCALE) {
            if (__any_sync(0xffffffff, !v_finite)) {
#pragma unroll
                for (int n = 0; n < N; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        if (!v.is_finite(8*n + 2*lane.t + i%2)) {
                            products[n][i] = NAN;
                        }
                    }
                }
                ggml_cuda_syncwarp();
                v.drop_not_finite();
                ggml_cuda_syncwarp();
            }
        }

        // what anchors add, the softcap, the mask
        float largest[2] = { rows[0].largest, rows[1].largest };
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const row_state & row = rows[i/2];
                float x = products[n][i]*row.factor;
                if (args.ids.data) {
                    const int cell = first + 8*n + 2*lane.t + i%2;
                    const int id   = cell < n_kv ? *(const int32_t *) (args.ids.data + cell*args.ids.nb[0] + batch_kv*args.ids.nb[1]) : -1;
                    x += id < 0 ? 0.0f : terms[id*n_rows + row.term]*args.scale;
                }
                if (args.softcap != 0.0f) {
                    x = args.softcap*tanhf(x);
                }
                x = (x + row.slope*logits[n][i])*LOG2E;
                logits[n][i] = logits[n][i] == -INFINITY ? -INFINITY : x;
                largest[i/2] = fmaxf(largest[i/2], logits[n][i]);
            }
        }

        // weights
        float correction[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 1));
            largest[i] = fmaxf(largest[i], shuffle_xor(largest[i], 2));
            correction[i] = largest[i] == -INFINITY ? 1.0f : exp2f(rows[i].largest - largest[i]);
            rows[i].largest = largest[i];
            rows[i].sum    *= correction[i];
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                row_state & row = rows[i/2];
                logits[n][i] = logits[n][i] == -INFINITY ? 0.0f : exp2f(logits[n][i] - row.largest);
                row.sum += logits[n][i];
            }
        }

        // results: a weight is multiplied with its value's scale, and brought into the range of halves
#pragma unroll
        for (int b = 0; b < BLOCKS; ++b) {
            float unit     = 1.0f;
            float rescale0 = correction[0];
            float rescale1 = correction[1];
            if constexpr (v_tile::HAS_SCALE) {
                uint32_t e = half_of(largest_of_warp(fabsf(v.scale(b, (int) threadIdx.x%TILE)))) >> 10;
                e = e > exponent[b] ? e : exponent[b];
                // of scales below 2^(e - 14), weights up to 2^15
                unit = power(29 - (int) e);
                const float shrink = power((int) exponent[b] - (int) e);
                rescale0 *= shrink;
                rescale1 *= shrink;
                exponent[b] = e;
            }
#pragma unroll
            for (int s = 0; s < 8; ++s) {
                result[b][s][0] *= rescale0;
                result[b][s][1] *= rescale0;
                result[b][s][2] *= rescale1;
                result[b][s][3] *= rescale1;
            }
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                uint32_t weights[4];
                uint32_t values[2][8];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int n    = 2*step + i;
                    const int cell = 8*n + 2*lane.t;
                    const float scale0 = v.scale(b, cell)*unit;
                    const float scale1 = v.scale(b, cell + 1)*unit;
                    weights[2*i]     = pair_of(logits[n][0]*scale0, logits[n][1]*scale1);
                    weights[2*i + 1] = pair_of(logits[n][2]*scale0, logits[n][3]*scale1);
                    v.values(values[i], b, cell, cell + 1, lane, v_rows);
                }
#pragma unroll
                for (int s = 0; s < 8; ++s) {
                    multiply_add(result[b][s], weights, values[0][s], values[1][s]);
                }
            }
        }
    }

    // the warps' results, added up one after the other
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        rows[i].sum += shuffle_xor(rows[i].sum, 1);
        rows[i].sum += shuffle_xor(rows[i].sum, 2);
        if (lane.t == 0) {
            largests[warp][lane.g + 8*i] = rows[i].largest;
            sums    [warp][lane.g + 8*i] = rows[i].sum;
        }
    }
    __syncthreads();

    float weight[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int r = lane.g + 8*i;
        float largest = -INFINITY;
        for (int w = 0; w < N_WARPS; ++w) {
            largest = fmaxf(largest, largests[w][r]);
        }
        weight[i] = rows[i].largest == -INFINITY ? 0.0f : exp2f(rows[i].largest - largest);
    }
    for (int w = 0; w < N_WARPS; ++w) {
        if (w == warp) {
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) {
                const float unit = v_tile::HAS_SCALE ? power((int) exponent[b] - 29) : 1.0f;
#pragma unroll
                for (int s = 0; s < 8; ++s) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        float & sum = shared.sums[lane.g + 8*(i/2)][b*QK + v_tile::value_place(s, 2*lane.t + i%2)];
                        const float x = result[b][s][i]*weight[i/2]*unit;
                        sum = w == 0 ? x : sum + x;
                    }
                }
            }
        }
        __syncthreads();
    }

    const int64_t out_row = (((int64_t) blockIdx.x*args.q.ne[3] + batch)*args.k.ne[2] + head_kv)*n_rows + row0;
    for (int i = (int) threadIdx.y*LANES + (int) threadIdx.x; i < ROWS*D; i += N_WARPS*LANES) {
        if (row0 + i/D < n_rows) {
            args.out[(out_row + i/D)*D + i%D] = shared.sums[i/D][i%D];
        }
    }
    const int r = (int) threadIdx.x;
    if (warp == 0 && r < ROWS && row0 + r < n_rows) {
        float largest = -INFINITY;
        for (int w = 0; w < N_WARPS; ++w) {
            largest = fmaxf(largest, largests[w][r]);
        }
        float sum = 0.0f;
        for (int w = 0; w < N_WARPS; ++w) {
            // a sum that is NaN stays, also of a row that sees nothing but NaN, whose largest logit is -infinity
            sum += sums[w][r] == 0.0f ? 0.0f : sums[w][r]*exp2f(largests[w][r] - largest);
        }
        args.stats[out_row + r] = make_float2(largest, sum);
    }
}

// The splits of a row, with the head's sink: f32 [D, n_head, n_tokens, n_batch]. Blocks: rows, KV heads, batches.
template <int D> static __global__ void
combine_kernel(const attention_args args, const float * sinks, const view dst) {
    const int row     = (int) blockIdx.x;
    const int head_kv = (int) blockIdx.y;
    const int batch   = (int) blockIdx.z;
    const int token   = args.token(row);
    const int head    = args.head(head_kv, row);

    const int64_t n_all = args.q.ne[3]*args.k.ne[2]*args.n_rows(); // rows of a split
    const int64_t first = ((int64_t) batch*args.k.ne[2] + head_kv)*args.n_rows() + row;

    float largest = sinks ? sinks[head]*LOG2E : -INFINITY;
    for (int s = 0; s < args.n_splits; ++s) {
        largest = fmaxf(largest, args.stats[s*n_all + first].x);
    }
    float sum = sinks ? exp2f(sinks[head]*LOG2E - largest) : 0.0f;
    for (int s = 0; s < args.n_splits; ++s) {
        const float2 stats = args.stats[s*n_all + first];
        sum += stats.y == 0.0f ? 0.0f : stats.y*exp2f(stats.x - largest);
    }
    __shared__ float result[D];
    float * out = (float *) (dst.data + head*dst.nb[1] + token*dst.nb[2] + batch*dst.nb[3]);
    for (int i = (int) threadIdx.x; i < D; i += (int) blockDim.x) {
        float x = 0.0f;
        for (int s = 0; s < args.n_splits; ++s) {
            const float m = args.stats[s*n_all + first].x;
            x += m == -INFINITY ? 0.0f : args.out[(s*n_all + first)*D + i]*exp2f(m - largest);
        }
        x = sum == 0.0f ? 0.0f : x/sum;
        args.n_after ? result[i] = x : out[i] = x;
    }
    if (args.n_after == 0) {
        return;
    }
    __syncthreads();
    const int at = (int) threadIdx.x/LANES*args.n_after;
    if (at < D) {
        rotate_up_to<D>(args.n_after, args.factor_after, (int) threadIdx.x%LANES,
            [&](int i) { return result[at + i]; }, [&](int i, float x) { out[at + i] = x; });
    }
}

} // namespace turbo
