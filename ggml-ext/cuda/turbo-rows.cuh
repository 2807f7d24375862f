// Rows of turbo blocks on a GPU: encoded by four threads a block, one for each scale, decoded by two, one for each half.
//
// The encoder is a search of 160 steps over 64 states in a thread's registers; what the threads of a block share are
// the values, which the first of them to read brings into the cache.

#pragma once

#include "turbo-levels.cuh"

namespace turbo {

constexpr int WARP = 32;

// what the lane has whose number differs by these bits
template <typename T> TQ_FN T exchange(T x, int offset) {
    return __shfl_xor_sync(0xffffffff, x, offset, WARP);
}

constexpr int BLOCK_THREADS_ENCODE = TQ_SCALES;
constexpr int BLOCK_THREADS_DECODE = 2;

// bytes of a block
template <int K> constexpr int block_bytes = 2 + 8*K;

// a word at an address of which no more is known than that it is even
TQ_FN uint32_t load_word(const char * p) {
    const uint16_t * h = (const uint16_t *) p;
    return h[0] | (uint32_t) h[1] << 16;
}

TQ_FN void store_word(char * p, uint32_t x) {
    uint16_t * h = (uint16_t *) p;
    h[0] = (uint16_t) x;
    h[1] = (uint16_t) (x >> 16);
}

// The best of a block's candidates, to every thread of the block: the first of several.
TQ_FN int best_of_block(float score, int i) {
    int best = i;
#pragma unroll
    for (int offset = 1; offset < TQ_SCALES; offset *= 2) {
        const float other_score = exchange(score, offset);
        const int   other       = exchange(best, offset);
        if (other_score > score || (other_score == score && other < best)) {
            score = other_score;
            best  = other;
        }
    }
    return best;
}

// 64 values to a block, by TQ_SCALES threads next to each other, of which this is number i; all threads of the warp
// are here, those without a block with is_there = false
template <int K, typename src_t> TQ_FN void encode_block(const src_t * x, char * dst, int i, bool is_there) {
    values v;
    for (int e = 0; e < QK; ++e) {
        v.y[e] = is_there ? (float) x[e] : 0.0f;
    }
    normalize(v);

    candidate c = {};
    if (v.extent > 0.0f) {
        c = encode<K>(v, i);
    }
    if (best_of_block(c.score, i) != i || !is_there) {
        return;
    }
    block<K> b = {};
    if (c.score > 0.0f) {
        b = make_block<K>(v, c, i);
    }
    *(uint16_t *) dst = b.scale;
#pragma unroll
    for (int k = 0; k < K; ++k) {
        store_word(dst + 2 + 8*k,     b.index.w[k][0]);
        store_word(dst + 2 + 8*k + 4, b.index.w[k][1]);
    }
}

// The numbers of half h, as if it were the first: a path that is rotated by 32 is decoded like any other.
template <int K> TQ_FN planes<K + 1> load_numbers(const char * src, int h) {
    planes<K> p = {};
    p.w[0][0] = load_word(src + 2 + 4*h);
    p.w[0][1] = load_word(src + 6 - 4*h);
#pragma unroll
    for (int k = 1; k < K; ++k) {
        p.w[k][0] = load_word(src + 2 + 8*k + 4*h);
    }
    return numbers<K>(p);
}

// Half h of a block: values 32 h to 32 h + 31, to out(i, value) with i from 0 to 31.
template <int K, typename F> TQ_FN void decode_half(const char * src, int h, const F & out) {
    const float         scale = float_of_half(*(const uint16_t *) src);
    const planes<K + 1> n     = load_numbers<K>(src, h);
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        const eight x = levels_at<K>(n, 0, w);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            out(4*j + w, scale*level_float(x.w[j/4], j%4));
        }
    }
}

// A tensor of four dimensions; strides in bytes.
struct view {
    char *  data;
    int64_t ne[4];
    int64_t nb[4];

    // where value i of dimension 0 of a row is, rows numbered through dimensions 1 to 3
    __device__ __forceinline__ char * row(int64_t r) const {
        return data + r%ne[1]*nb[1] + r/ne[1]%ne[2]*nb[2] + r/ne[1]/ne[2]*nb[3];
    }
};

// rows of floats to the rows of dst that ids names: GGML_OP_SET_ROWS
template <int K, typename src_t, typename id_t> static __global__ void
set_rows_kernel(const view src, const view ids, const view dst, const int64_t n_blocks) {
    const int64_t thread = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t block  = thread/BLOCK_THREADS_ENCODE;
    const bool    there  = block < n_blocks;
    const int64_t b      = there ? block : 0;

    const int64_t per_row = src.ne[0]/QK;
    const int64_t r  = b/per_row;
    const int64_t i1 = r%src.ne[1];
    const int64_t i2 = r/src.ne[1]%src.ne[2];
    const int64_t i3 = r/src.ne[1]/src.ne[2];
    const int64_t id = *(const id_t *) (ids.data + i1*ids.nb[0] + i2%ids.ne[1]*ids.nb[1] + i3%ids.ne[2]*ids.nb[2]);

    const src_t * x = (const src_t *) src.row(r) + b%per_row*QK;
    char        * y = dst.data + id*dst.nb[1] + i2*dst.nb[2] + i3*dst.nb[3] + b%per_row*block_bytes<K>;
    encode_block<K>(x, y, (int) (thread%BLOCK_THREADS_ENCODE), there);
}

// GGML_OP_CPY to a turbo type; both rows are whole blocks, and their lengths may differ
template <int K, typename src_t> static __global__ void
encode_kernel(const view src, const view dst, const int64_t n_blocks) {
    const int64_t thread = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t block  = thread/BLOCK_THREADS_ENCODE;
    const bool    there  = block < n_blocks;
    const int64_t b      = there ? block : 0;

    const int64_t s = src.ne[0]/QK;
    const int64_t d = dst.ne[0]/QK;
    const src_t * x = (const src_t *) src.row(b/s) + b%s*QK;
    encode_block<K>(x, dst.row(b/d) + b%d*block_bytes<K>, (int) (thread%BLOCK_THREADS_ENCODE), there);
}

TQ_FN void put(float * dst, float x) { *dst = x; }
TQ_FN void put(half  * dst, float x) { *dst = __float2half_rn(x); }

// GGML_OP_CPY from a turbo type, likewise
template <int K, typename dst_t> static __global__ void
decode_kernel(const view src, const view dst, const int64_t n_blocks) {
    const int64_t thread = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t b      = thread/BLOCK_THREADS_DECODE;
    const int     h      = (int) (thread%BLOCK_THREADS_DECODE);
    if (b >= n_blocks) {
        return;
    }
    const int64_t s = src.ne[0]/QK;
    const int64_t d = dst.ne[0]/QK;
    dst_t * y = (dst_t *) dst.row(b/d) + b%d*QK + 32*h;
    decode_half<K>(src.row(b/s) + b%s*block_bytes<K>, h, [&](int i, float x) { put(y + i, x); });
}

// GGML_OP_GET_ROWS
template <int K> static __global__ void
get_rows_kernel(const view src, const view ids, const view dst, const int64_t n_blocks) {
    const int64_t thread = (int64_t) blockIdx.x*blockDim.x + threadIdx.x;
    const int64_t b      = thread/BLOCK_THREADS_DECODE;
    const int     h      = (int) (thread%BLOCK_THREADS_DECODE);
    if (b >= n_blocks) {
        return;
    }
    const int64_t per_row = src.ne[0]/QK;
    const int64_t r  = b/per_row;
    const int64_t i0 = r%ids.ne[0];
    const int64_t i1 = r/ids.ne[0]%ids.ne[1];
    const int64_t i2 = r/ids.ne[0]/ids.ne[1];
    const int64_t id = *(const int32_t *) (ids.data + i0*ids.nb[0] + i1*ids.nb[1] + i2*ids.nb[2]);

    const char * x = src.data + id*src.nb[1] + i1*src.nb[2] + i2*src.nb[3] + b%per_row*block_bytes<K>;
    float      * y = (float *) (dst.data + i0*dst.nb[1] + i1*dst.nb[2] + i2*dst.nb[3]) + b%per_row*QK + 32*h;
    decode_half<K>(x, h, [&](int i, float value) { put(y + i, value); });
}

} // namespace turbo
