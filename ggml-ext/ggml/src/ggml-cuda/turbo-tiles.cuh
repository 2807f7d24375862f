// Tiles of K and V for the attention kernel: 16 or 32 cells of a head, as the operands of small matrix products.
//
// The order of values within a row of 64 is each type's own, chosen so that a lane decodes what it multiplies: queries
// are laid out in that order before, and the results' columns tell their place. A turbo tile lies in shared memory word
// by word; of f16 and q8_0 a lane reads from the cache what it needs.

#pragma once

#include "turbo-expand.cuh"

namespace turbo {

// Cells of a tile: fewer where results take most of the registers.
template <int D> constexpr int tile_cells = D > 128 ? 16 : 32;

// a lane's place in matrix products
struct lane_t {
    int g; // 0 to 7
    int t; // 0 to 3
};

TQ_FN lane_t this_lane() {
    return { (int) threadIdx.x/4, (int) threadIdx.x%4 };
}

// The rows of a tile's cells, of one head and batch; cells behind the last are the last.
struct rows_t {
    const char * data;
    int64_t      stride;
    int          first;
    int          last;

    __device__ __forceinline__ const char * row(int cell) const {
        const int i = first + cell;
        return data + (i < last ? i : last)*stride;
    }
};

//
// turbo
//

template <int K, int D> struct turbo_tile {
    static constexpr int  BLOCKS    = D/QK;
    static constexpr int  WORDS     = 2*K;
    static constexpr bool HAS_SCALE = true;

    static constexpr int TILE = tile_cells<D>;

    // words of one kind are TILE + 8 apart: lanes that read two kinds from 8 cells each meet no bank twice
    uint32_t words [BLOCKS][WORDS][TILE + 8];
    float    scales[BLOCKS][TILE];

    // All lanes of a warp. Scales that are not finite are NaN; returns whether this lane loaded none.
    __device__ __forceinline__ bool load(const rows_t & rows) {
        // lanes next to each other load words next to each other
        [[maybe_unused]] constexpr int AT_ONCE = D > 128 ? 2 : 8;
#pragma unroll AT_ONCE
        for (int i = threadIdx.x; i < TILE*BLOCKS*WORDS; i += LANES) {
            const int w    = i%WORDS;
            const int b    = i/WORDS%BLOCKS;
            const int cell = i/WORDS/BLOCKS;
            words[b][w][cell] = load_word(rows.row(cell) + b*block_bytes<K> + 2 + 4*w);
        }
        bool finite = true;
        for (int i = threadIdx.x; i < TILE*BLOCKS; i += LANES) {
            const int b    = i%BLOCKS;
            const int cell = i/BLOCKS;
            const float scale = float_of_half(*(const uint16_t *) (rows.row(cell) + b*block_bytes<K>));
            const bool  fine  = fabsf(scale) < INFINITY;
            scales[b][cell] = fine ? scale : NAN;
            finite = finite && fine;
        }
        return finite;
    }

    // whether all of a cell's scales are finite
    __device__ bool is_finite(int cell) const {
        bool finite = true;
        for (int b = 0; b < BLOCKS; ++b) {
            finite = finite && !isnan(scales[b][cell]);
        }
        return finite;
    }

    // Makes scales that are NaN 0. All lanes call it.
    __device__ void drop_not_finite() {
        for (int i = threadIdx.x; i < TILE*BLOCKS; i += LANES) {
            float & scale = scales[i%BLOCKS][i/BLOCKS];
            scale = isnan(scale) ? 0.0f : scale;
        }
    }

    __device__ __forceinline__ float scale(int b, int cell) const {
        return scales[b][cell];
    }

    // the numbers of half h of a cell's block b, shifted right by w
    __device__ __forceinline__ planes<K + 1> numbers_at(int b, int cell, int h, int w) const {
        planes<K> p = {};
        p.w[0][0] = words[b][h][cell];
        p.w[0][1] = words[b][1 - h][cell];
#pragma unroll
        for (int k = 1; k < K; ++k) {
            p.w[k][0] = words[b][2*k + h][cell];
        }
        planes<K + 1> n = numbers<K>(p);
#pragma unroll
        for (int k = 0; k <= K; ++k) {
            n.w[k][0] >>= w;
        }
        return n;
    }

    // Of K: where a row's value of step s, place i of lane t is.
    static __device__ __forceinline__ int key_place(int s, int t, int i) {
        return 32*(t/2) + 16*(s%2) + 4*i + 2*(t%2) + s/2;
    }

    // the lane's words of a product's b for steps 0 to 3 of block b: values of one cell
    __device__ __forceinline__ void keys(uint32_t (&out)[4][2], int b, int cell, lane_t lane, const rows_t &) const {
        const planes<K + 1> n = numbers_at(b, cell, lane.t/2, 2*(lane.t%2));
#pragma unroll
        for (int w = 0; w < 2; ++w) {
            const eight x = levels_at<K>(n, 0, w);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                out[2*w + i][0] = pair_of_bytes<0, 1>(x.w[i], x.w[i]);
                out[2*w + i][1] = pair_of_bytes<2, 3>(x.w[i], x.w[i]);
            }
        }
    }

    // Of V: where the value of step s, lane group g is in a row's block.
    static __device__ __forceinline__ int value_place(int s, int g) {
        return 32*(g/4) + 4*s + g%4;
    }

    // the lane's words for steps 0 to 7 of block b: one value of each of two cells
    __device__ __forceinline__ void values(uint32_t (&out)[8], int b, int cell0, int cell1, lane_t lane, const rows_t &) const {
        const eight x = levels_at<K>(numbers_at(b, cell0, lane.g/4, lane.g%4), 0, 0);
        const eight y = levels_at<K>(numbers_at(b, cell1, lane.g/4, lane.g%4), 0, 0);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            out[4*i + 0] = pair_of_bytes<0, 0>(x.w[i], y.w[i]);
            out[4*i + 1] = pair_of_bytes<1, 1>(x.w[i], y.w[i]);
            out[4*i + 2] = pair_of_bytes<2, 2>(x.w[i], y.w[i]);
            out[4*i + 3] = pair_of_bytes<3, 3>(x.w[i], y.w[i]);
        }
    }
};

//
// f16 and q8_0: a lane has 16 values in a row of a key, 8 of a value
//

struct direct_tile {
    static constexpr bool HAS_SCALE = false;

    // values are not looked at: validation keeps those that are not finite out of restored caches
    __device__ __forceinline__ bool load(const rows_t &) {
        return true;
    }

    __device__ __forceinline__ float scale(int, int) const {
        return 1.0f;
    }

    static __device__ __forceinline__ int key_place(int s, int t, int i) {
        return 16*t + 4*s + i;
    }

    static __device__ __forceinline__ int value_place(int s, int g) {
        return 8*g + s;
    }
};

struct f16_tile : direct_tile {
    __device__ __forceinline__ void keys(uint32_t (&out)[4][2], int b, int cell, lane_t lane, const rows_t & rows) const {
        const uint32_t * x = (const uint32_t *) (rows.row(cell) + 2*(b*QK + 16*lane.t));
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            out[s][0] = x[2*s];
            out[s][1] = x[2*s + 1];
        }
    }

    __device__ __forceinline__ void values(uint32_t (&out)[8], int b, int cell0, int cell1, lane_t lane, const rows_t & rows) const {
        const uint32_t * x = (const uint32_t *) (rows.row(cell0) + 2*(b*QK + 8*lane.g));
        const uint32_t * y = (const uint32_t *) (rows.row(cell1) + 2*(b*QK + 8*lane.g));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            out[2*i]     = __byte_perm(x[i], y[i], 0x5410);
            out[2*i + 1] = __byte_perm(x[i], y[i], 0x7632);
        }
    }
};

struct q8_0_tile : direct_tile {
    static constexpr int BYTES = kv_q8_0::BYTES;

    // four quants from a block's quant i on, as bytes that stand for byte - 128
    static __device__ __forceinline__ uint32_t quants(const char * block, int i) {
        return load_word(block + 2 + i) ^ 0x80808080;
    }

    static __device__ __forceinline__ uint32_t scale_pair(const char * block) {
        return *(const uint16_t *) block*0x00010001u;
    }

    __device__ __forceinline__ void keys(uint32_t (&out)[4][2], int b, int cell, lane_t lane, const rows_t & rows) const {
        const char *   block = rows.row(cell) + (2*b + lane.t/2)*BYTES;
        const uint32_t d     = scale_pair(block);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            const uint32_t x = quants(block, 16*(lane.t%2) + 4*s);
            out[s][0] = pair_mul(d, pair_of_bytes<0, 1>(x, x));
            out[s][1] = pair_mul(d, pair_of_bytes<2, 3>(x, x));
        }
    }

    __device__ __forceinline__ void values(uint32_t (&out)[8], int b, int cell0, int cell1, lane_t lane, const rows_t & rows) const {
        const char *   block0 = rows.row(cell0) + (2*b + lane.g/4)*BYTES;
        const char *   block1 = rows.row(cell1) + (2*b + lane.g/4)*BYTES;
        const uint32_t d      = __byte_perm(scale_pair(block0), scale_pair(block1), 0x5410);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32_t x = quants(block0, 8*(lane.g%4) + 4*i);
            const uint32_t y = quants(block1, 8*(lane.g%4) + 4*i);
            out[4*i + 0] = pair_mul(d, pair_of_bytes<0, 0>(x, y));
            out[4*i + 1] = pair_mul(d, pair_of_bytes<1, 1>(x, y));
            out[4*i + 2] = pair_mul(d, pair_of_bytes<2, 2>(x, y));
            out[4*i + 3] = pair_mul(d, pair_of_bytes<3, 3>(x, y));
        }
    }
};

// kv_turbo<K>, kv_f16 and kv_q8_0 to their tiles
template <typename T, int D> struct tile_of;
template <int K, int D> struct tile_of<kv_turbo<K>, D> { typedef turbo_tile<K, D> type; };
template <int D>        struct tile_of<kv_f16,      D> { typedef f16_tile         type; };
template <int D>        struct tile_of<kv_q8_0,     D> { typedef q8_0_tile        type; };

} // namespace turbo
