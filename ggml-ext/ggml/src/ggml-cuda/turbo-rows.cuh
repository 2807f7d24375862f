// Rows of turbo blocks on a GPU: encoded by four threads a block or by four warps, one for each scale, decoded by two
// threads, one for each half.

#pragma once

#include "turbo-codec-lanes.h"
#include "turbo-codec-thread.h"
#include "turbo-levels.cuh"
#include "turbo-rotate.cuh"

namespace turbo {

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

//
// encoders: which block of 64 values a thread works on, and its work
//

// Values of as many blocks as a block of threads encodes, each block's in other banks.
template <typename encoder> struct shared_values {
    float at[encoder::BLOCKS][QK + 1];
};

// Four threads next to each other: the search of 160 steps over 64 states in a thread's registers; what the threads share
// are the values. The least work.
struct encode_by_threads {
    static constexpr int N_THREADS = TQ_SCALES;
    static constexpr int BLOCKS    = 128/N_THREADS; // of 128 threads

    static __device__ __forceinline__ int64_t block() {
        return ((int64_t) blockIdx.x*blockDim.x + threadIdx.x)/N_THREADS;
    }

    // The values of a warp's blocks, as r makes them of those before, to `shared`.
    static __device__ __forceinline__ void rotate_values(const rotation & r, int64_t n_blocks, shared_values<encode_by_threads> & shared) {
        constexpr int BLOCKS_EACH = LANES/N_THREADS;
        const int     at    = (int) threadIdx.x/LANES*BLOCKS_EACH;
        const int64_t first = ((int64_t) blockIdx.x*BLOCKS + at)*QK;
        for (int i = 0; i < BLOCKS_EACH*QK && first + i < n_blocks*QK; i += r.n) {
            rotate_at(r, first + i, [&](int j, float value) { shared.at[at + (i + j)/QK][(i + j)%QK] = value; });
        }
        ggml_cuda_syncwarp();
    }

    // this thread's block in `shared`
    static __device__ __forceinline__ int place() {
        return (int) threadIdx.x/N_THREADS;
    }

    // The best of four candidates, to each of the threads: the first of several.
    static __device__ __forceinline__ int best_of(float score, int i) {
        int best = i;
#pragma unroll
        for (int offset = 1; offset < N_THREADS; offset *= 2) {
            const float other_score = shuffle_xor(score, offset);
            const int   other       = shuffle_xor(best, offset);
            if (other_score > score || (other_score == score && other < best)) {
                score = other_score;
                best  = other;
            }
        }
        return best;
    }

    // x(e) is value e, which may be in `shared`. All threads of the warp are here, those without a block with is_there = false.
    template <int K, typename F> static __device__ __forceinline__ void
    encode_block(const F & x, char * dst, bool is_there, shared_values<encode_by_threads> & shared) {
        const int i = (int) threadIdx.x%N_THREADS;
        const values v = normalize<N_THREADS>(
            [&](int e) { return is_there ? x(e) : 0.0f; }, [](auto z, int offset) { return shuffle_xor(z, offset); },
            i, shared.at[place()]);
        ggml_cuda_syncwarp();
        candidate<K> c = {};
        if (v.extent > 0.0f) {
            c = encode<K>(v, i);
        }
        if (best_of(c.score, i) != i || !is_there) {
            return;
        }
        const turbo::block<K> b = make_block<K>(v, c);
        *(uint16_t *) dst = b.scale;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            store_word(dst + 2 + 8*k,     b.index.w[k][0]);
            store_word(dst + 2 + 8*k + 4, b.index.w[k][1]);
        }
    }
};

// Four warps, which are a block of threads: the soonest.
struct encode_by_warps {
    static constexpr int N_THREADS = TQ_SCALES*LANES;
    static constexpr int BLOCKS    = 1;

    static __device__ __forceinline__ int64_t block() {
        return blockIdx.x;
    }

    // One warp does all that the block is rotated with.
    static __device__ __forceinline__ void rotate_values(const rotation & r, int64_t n_blocks, shared_values<encode_by_warps> & shared) {
        if (block() < n_blocks && threadIdx.x < LANES) {
            const int at = (int) (block()*QK%r.n);
            rotate_at(r, block()*QK - at, [&](int j, float value) {
                if (j/QK == at/QK) {
                    shared.at[0][j%QK] = value;
                }
            });
        }
        __syncthreads();
    }

    static __device__ __forceinline__ int place() {
        return 0;
    }

    template <int K, typename F> static __device__ __forceinline__ void
    encode_block(const F & x, char * dst, bool is_there, shared_values<encode_by_warps> &) {
        if (!is_there) {
            return; // nor is any other thread
        }
        const int l = (int) threadIdx.x%LANES;
        const int i = (int) threadIdx.x/LANES;

        const lane_values v = normalize(x(l), x(l + LANES), l);
        lane_candidate c = {};
        if (v.extent > 0.0f) {
            c = encode<K>(v, i, l);
        }
        __shared__ float scores[TQ_SCALES];
        scores[i] = c.score;
        __syncthreads();
        int best = 0;
#pragma unroll
        for (int s = 1; s < TQ_SCALES; ++s) {
            best = scores[s] > scores[best] ? s : best;
        }
        if (i != best) {
            return;
        }
        const uint16_t scale = c.score > 0.0f ? scale_bits(c.scale, v.exponent) : 0;
        const uint16_t word  = planes_word<K>(c, l);
        if (l < 4*K) {
            *(uint16_t *) (dst + 2 + 2*l) = scale ? word : 0;
        }
        if (l == 0) {
            *(uint16_t *) dst = scale;
        }
    }
};

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

// Rows of floats to the rows of dst that ids names. Row i is measured from row anchor_ids[i] of anchors, which are
// halves, if there are any. Where they are rotated first, src has their shape alone.
struct rows_to_set {
    view     src;
    view     ids;
    view     dst;
    view     anchors;
    view     anchor_ids;
    int64_t  n_blocks;
    rotation before;
};

template <typename encoder, int K, typename src_t, typename id_t> static __device__ __forceinline__ void set_block(const rows_to_set & rows) {
    const int64_t block = encoder::block();
    const bool    there = block < rows.n_blocks;
    const int64_t b     = there ? block : 0;

    const int64_t per_row = rows.src.ne[0]/QK;
    const int64_t r  = b/per_row;
    const int64_t i1 = r%rows.src.ne[1];
    const int64_t i2 = r/rows.src.ne[1]%rows.src.ne[2];
    const int64_t i3 = r/rows.src.ne[1]/rows.src.ne[2];
    const int64_t id = *(const id_t *) (rows.ids.data + i1*rows.ids.nb[0] + i2%rows.ids.ne[1]*rows.ids.nb[1] + i3%rows.ids.ne[2]*rows.ids.nb[2]);

    const src_t * x = (const src_t *) rows.src.row(r) + b%per_row*QK;
    char        * y = rows.dst.data + id*rows.dst.nb[1] + i2*rows.dst.nb[2] + i3*rows.dst.nb[3] + b%per_row*block_bytes<K>;

    const uint16_t * m = nullptr;
    if (rows.anchors.data) {
        const int32_t anchor = *(const int32_t *) (rows.anchor_ids.data + i1*rows.anchor_ids.nb[0]);
        m = (const uint16_t *) (rows.anchors.data + anchor*rows.anchors.nb[1]) + b%per_row*QK;
    }
    __shared__ shared_values<encoder> shared;
    if (rows.before.n) {
        encoder::rotate_values(rows.before, rows.n_blocks, shared);
        x = nullptr;
    }
    const float * rotated = shared.at[encoder::place()];
    encoder::template encode_block<K>([&](int e) {
        const float value = x ? (float) x[e] : rotated[e];
        return m ? value - float_of_half(m[e]) : value;
    }, y, there, shared);
}

// GGML_OP_SET_ROWS
template <typename encoder, int K, typename src_t, typename id_t> static __global__ void
set_rows_kernel(const rows_to_set rows) {
    set_block<encoder, K, src_t, id_t>(rows);
}

// The new keys and values of a layer at once: blockIdx.y tells which.
template <int KK, int KV> static __global__ void
set_both_kernel(const rows_to_set keys, const rows_to_set values) {
    if (blockIdx.y == 0) {
        set_block<encode_by_warps, KK, float, int64_t>(keys);
    } else {
        set_block<encode_by_warps, KV, float, int64_t>(values);
    }
}

// GGML_OP_CPY to a turbo type; both rows are whole blocks, and their lengths may differ
template <typename encoder, int K, typename src_t> static __global__ void
encode_kernel(const view src, const view dst, const int64_t n_blocks) {
    const int64_t block = encoder::block();
    const bool    there = block < n_blocks;
    const int64_t b      = there ? block : 0;

    const int64_t s = src.ne[0]/QK;
    const int64_t d = dst.ne[0]/QK;
    const src_t * x = (const src_t *) src.row(b/s) + b%s*QK;
    __shared__ shared_values<encoder> shared;
    encoder::template encode_block<K>([&](int e) { return (float) x[e]; }, dst.row(b/d) + b%d*block_bytes<K>, there, shared);
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
