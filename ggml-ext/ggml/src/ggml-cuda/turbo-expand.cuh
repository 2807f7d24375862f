// K or V as f16 for upstream's flash attention, which reads no turbo type: prefill, where a conversion of the cache is
// shared by hundreds of queries, and what the kernel of turbo-attention.cuh does not take. Keys get their anchors back
// here, so that no attention has to know of them.

#pragma once

#include "turbo-warp.cuh"

namespace turbo {

// Types of K and V, read 32 values at a time: values 32 c to 32 c + 31 of a row to out(i, value).
template <int K> struct kv_turbo {
    template <typename F> static __device__ __forceinline__ void read(const char * row, int64_t c, const F & out) {
        decode_half<K>(row + c/2*block_bytes<K>, (int) (c%2), out);
    }
};

struct kv_q8_0 {
    static constexpr int BYTES = 34; // of a block of 32
    template <typename F> static __device__ __forceinline__ void read(const char * row, int64_t c, const F & out) {
        const char * block = row + c*BYTES;
        const float  d     = float_of_half(*(const uint16_t *) block);
#pragma unroll
        for (int i = 0; i < 32; i += 2) {
            const uint16_t pair = *(const uint16_t *) (block + 2 + i);
            out(i,     d*(float) (int8_t) (pair & 0xff));
            out(i + 1, d*(float) (int8_t) (pair >> 8));
        }
    }
};

struct kv_f16 {
    template <typename F> static __device__ __forceinline__ void read(const char * row, int64_t c, const F & out) {
        const uint16_t * x = (const uint16_t *) row + 32*c;
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            out(i, float_of_half(x[i]));
        }
    }
};

// What keys were stored without; without a table, nothing.
struct anchor_view {
    view           table; // f16 [dk, n_anchors, n_head, n_batch]
    view           ids;   // i32 [n_kv, n_batch]
};

// where the anchor of a cell is, or null
TQ_FN const uint16_t * anchor_of(const anchor_view & anchors, int64_t cell, int64_t head, int64_t batch) {
    if (!anchors.table.data) {
        return nullptr;
    }
    const int32_t id = *(const int32_t *) (anchors.ids.data + cell*anchors.ids.nb[0] + batch*anchors.ids.nb[1]);
    if (id < 0) {
        return nullptr;
    }
    const view & t = anchors.table;
    return (const uint16_t *) (t.data + id*t.nb[1] + head*t.nb[2] + batch*t.nb[3]);
}

// kv: [d, n_kv, n_head, n_batch], d % 32 == 0; dst: the same without gaps. A thread for 32 values, those of a cell's
// heads next to each other, as they lie in a cache. In 32 bits, since a division of 64 takes as long as eight values.
template <typename T> static __global__ void
expand_kernel(const view kv, const anchor_view anchors, half * dst, const uint32_t n_threads) {
    const uint32_t thread = blockIdx.x*blockDim.x + threadIdx.x;
    if (thread >= n_threads) {
        return;
    }
    const uint32_t per_row = (uint32_t) kv.ne[0]/32;
    const uint32_t n_heads = (uint32_t) kv.ne[2];
    const uint32_t n_cells = (uint32_t) kv.ne[1];
    const int64_t c     = thread%per_row;
    const int64_t head  = thread/per_row%n_heads;
    const int64_t cell  = thread/per_row/n_heads%n_cells;
    const int64_t batch = thread/per_row/n_heads/n_cells;

    float x[32];
    T::read(kv.data + cell*kv.nb[1] + head*kv.nb[2] + batch*kv.nb[3], c, [&](int i, float value) { x[i] = value; });

    // 64 bytes at a multiple of as many, of tables and results
    const uint16_t * m = anchor_of(anchors, cell, head, batch);
    if (m) {
#pragma unroll
        for (int i = 0; i < 32; i += 8) {
            const uint4    eight    = *(const uint4 *) (m + 32*c + i);
            const uint32_t words[4] = { eight.x, eight.y, eight.z, eight.w };
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                x[i + j] += float_of_half((uint16_t) (words[j/2] >> 16*(j%2)));
            }
        }
    }
    uint4 * y = (uint4 *) (dst + ((batch*kv.ne[2] + head)*kv.ne[1] + cell)*kv.ne[0] + 32*c);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float * z = x + 8*i;
        y[i] = make_uint4(pair_of(z[0], z[1]), pair_of(z[2], z[3]), pair_of(z[4], z[5]), pair_of(z[6], z[7]));
    }
}

} // namespace turbo
