// Keys and values on their way to the cache: scaled, and rotated by the Hadamard matrix with which llama.cpp's graph multiplies
// them. In the order of ggml_mul's and of fwht.cu's additions.

#pragma once

#include "turbo-codec-lanes.h"

namespace turbo {

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

// Floats by head and token: [d, n_heads, n_tokens].
struct rotation {
    int   n;      // values that are rotated together, 64 to 512, all of one head; 0: none are
    float factor; // 1/sqrt(n)
    view  src;    // strides of the values themselves: 4 bytes
    view  scale;  // null, or [d, n_heads] without gaps
};

// N values x(i), by a warp, to y(i, value).
template <int N, typename X, typename Y> TQ_FN void rotate(float factor, int l, const X & x, const Y & y) {
    constexpr int EACH = N/LANES;
    float own[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        own[j] = mul(x(l + LANES*j), factor);
    }
#pragma unroll
    for (int h = 1; h < LANES; h *= 2) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const float other = shuffle_xor(own[j], h);
            own[j] = l & h ? add(other, -own[j]) : add(own[j], other);
        }
    }
#pragma unroll
    for (int h = 1; h < EACH; h *= 2) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            if (j & h) {
                continue;
            }
            const float a = own[j];
            const float b = own[j + h];
            own[j]     = add(a, b);
            own[j + h] = add(a, -b);
        }
    }
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
        y(l + LANES*j, own[j]);
    }
}

// The values from `first` on, a multiple of r.n, of all that r has one after the other: N = r.n of them.
template <int N, typename Y> TQ_FN void rotate_at(const rotation & r, int64_t first, const Y & y) {
    const uint32_t d       = (uint32_t) r.src.ne[0];
    const uint32_t n_heads = (uint32_t) r.src.ne[1];
    const uint32_t row     = (uint32_t) (first/N)/(d/N);
    const uint32_t at      = (uint32_t) (first/N)%(d/N)*N;
    const uint32_t head    = row%n_heads;
    const uint32_t token   = row/n_heads;

    const float * x = (const float *) (r.src.data + head*r.src.nb[1] + token*r.src.nb[2]) + at;
    const float * s = r.scale.data ? (const float *) r.scale.data + head*d + at : nullptr;
    rotate<N>(r.factor, (int) threadIdx.x%LANES, [&](int i) { return s ? mul(x[i], s[i]) : x[i]; }, y);
}

// Likewise, with y(i, value) for value first + i.
template <typename Y> TQ_FN void rotate_at(const rotation & r, int64_t first, const Y & y) {
    switch (r.n) {
        case 64:  return rotate_at<64> (r, first, y);
        case 128: return rotate_at<128>(r, first, y);
        case 256: return rotate_at<256>(r, first, y);
        default:  return rotate_at<512>(r, first, y);
    }
}

// n values by a warp, as rotate<N>; n: 64 to D
template <int D, typename X, typename Y> TQ_FN void rotate_up_to(int n, float factor, int l, const X & x, const Y & y) {
    if constexpr (D > 64) {
        if (n < D) {
            return rotate_up_to<D/2>(n, factor, l, x, y);
        }
    }
    rotate<D>(factor, l, x, y);
}

} // namespace turbo
