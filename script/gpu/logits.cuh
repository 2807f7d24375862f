// Logits of a few queries against many keys, by kernels alone: what logits.cu measures.
//
// logits_kernel is the first half of turbo-attention.cuh's kernel: its tiles, its order of values, its products.
// plain_logits_kernel is for keys that are plain numbers, and has nothing to decode: what else a key of f16 or f32 could cost.

#pragma once

#include "turbo-attention.cuh"

namespace turbo {

// Logits of KV head h, row r (a query head of its group) and cell c are at logits[(h*n_rows + r)*n_kv + c]; nothing is scaled.
// Blocks: splits, groups of ROWS rows of all KV heads. Threads: LANES, n_warps_of<D>.
template <int D, typename TK> static __global__ void
__launch_bounds__(LANES*n_warps_of<D>, 2)
logits_kernel(const attention_args args, float * logits) {
    typedef typename tile_of<TK, D>::type k_tile;

    constexpr int N_WARPS = n_warps_of<D>;
    constexpr int TILE    = tile_cells<D>;

    struct tiles_t {
        k_tile of[N_WARPS];
    };
    alignas(16) __shared__ char bytes[sizeof(tiles_t)];
    __shared__ uint32_t queries[ROWS][D/2 + 4];
    __shared__ float    factors[ROWS];
    __shared__ float    scratch[N_WARPS][D];

    const lane_t lane = this_lane();
    const int    warp = (int) threadIdx.y;

    const int n_rows   = args.n_rows();
    const int per_head = (n_rows + ROWS - 1)/ROWS;
    const int head_kv  = (int) blockIdx.y/per_head;
    const int row0     = (int) blockIdx.y%per_head*ROWS;
    const int n_kv     = (int) args.k.ne[1];

    load_queries<D, k_tile>(args, queries, factors, &scratch[0][0], row0, head_kv, 0);
    __syncthreads();

    k_tile & k    = ((tiles_t *) bytes)->of[warp];
    rows_t   rows = { args.k.data + head_kv*args.k.nb[2], args.k.nb[1], 0, n_kv - 1 };

    const int n_tiles = (n_kv + TILE - 1)/TILE;
    const int begin   = (int) ((int64_t) n_tiles* blockIdx.x     /gridDim.x);
    const int end     = (int) ((int64_t) n_tiles*(blockIdx.x + 1)/gridDim.x);
    for (int tile = begin + warp; tile < end; tile += N_WARPS) {
        rows.first = tile*TILE;
        ggml_cuda_syncwarp(); // the tile before has been read
        k.load(rows);
        ggml_cuda_syncwarp();

        float products[TILE/8][4] = {};
        add_logits<D>(products, queries, k, rows, lane);
#pragma unroll
        for (int n = 0; n < TILE/8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int row  = row0 + lane.g + 8*(i/2);
                const int cell = rows.first + 8*n + 2*lane.t + i%2;
                if (row < n_rows && cell < n_kv) {
                    logits[((int64_t) head_kv*n_rows + row)*n_kv + cell] = products[n][i]*factors[row - row0];
                }
            }
        }
    }
}

constexpr int LANES_OF_KEY = 8; // a warp reads four keys at a time, 128 bytes of each next to each other

TQ_FN void plain_values(float (&out)[4], const float * x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[i] = x[i];
    }
}

TQ_FN void plain_values(float (&out)[4], const uint16_t * x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[i] = float_of_half(x[i]);
    }
}

// T: float, or uint16_t for f16's bits. Blocks: as many as there are, KV heads. Threads: LANES, N_WARPS.
template <int D, int N_ROWS, int N_WARPS, typename T> static __global__ void
plain_logits_kernel(const attention_args args, float * logits) {
    constexpr int STEPS = D/(4*LANES_OF_KEY);

    const int head_kv = (int) blockIdx.y;
    const int n_kv    = (int) args.k.ne[1];
    const int place   = (int) threadIdx.x%LANES_OF_KEY;

    float q[N_ROWS][STEPS][4];
#pragma unroll
    for (int r = 0; r < N_ROWS; ++r) {
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            plain_values(q[r][s], args.query(head_kv, r, 0) + 4*(s*LANES_OF_KEY + place));
        }
    }
    const int per_warp = LANES/LANES_OF_KEY;
    const int first    = ((int) blockIdx.x*N_WARPS + (int) threadIdx.y)*per_warp;
    for (int cell0 = first; cell0 < n_kv; cell0 += (int) gridDim.x*N_WARPS*per_warp) {
        // all lanes go on to the end: sums need them
        const int  cell  = cell0 + (int) threadIdx.x/LANES_OF_KEY;
        const bool there = cell < n_kv;
        const T *  key   = (const T *) (args.k.data + (there ? cell : 0)*args.k.nb[1] + head_kv*args.k.nb[2]);
        float sums[N_ROWS] = {};
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            float k[4];
            plain_values(k, key + 4*(s*LANES_OF_KEY + place));
#pragma unroll
            for (int r = 0; r < N_ROWS; ++r) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    sums[r] += q[r][s][i]*k[i];
                }
            }
        }
#pragma unroll
        for (int r = 0; r < N_ROWS; ++r) {
#pragma unroll
            for (int offset = 1; offset < LANES_OF_KEY; offset *= 2) {
                sums[r] += shuffle_xor(sums[r], offset);
            }
            if (there && place == r%LANES_OF_KEY) {
                logits[((int64_t) head_kv*N_ROWS + r)*n_kv + cell] = sums[r];
            }
        }
    }
}

} // namespace turbo
