// The codec of the turbo types for devices: one text for CUDA C++ and HIP, Metal, and C++17 on the host, where tests
// compare it with the Rust core bit for bit. docs/format.md says what a block is.

#pragma once

#include "turbo-tables.h"

#if defined(__METAL_VERSION__)
#   include <metal_stdlib>
#   define TQ_FN     static inline
#   define TQ_THREAD thread
#   define TQ_DATA   static constexpr constant
#   define TQ_UNROLL _Pragma("unroll")
#elif defined(__CUDACC__) || defined(__HIPCC__) || defined(__MUSACC__)
#   include <stdint.h>
#   define TQ_CUDA   1
#   define TQ_FN     static __device__ __forceinline__
#   define TQ_THREAD
#   define TQ_DATA   static __device__ constexpr
#   define TQ_UNROLL _Pragma("unroll")
#else
#   include <math.h>
#   include <stdint.h>
#   include <string.h>
#   define TQ_FN     static inline
#   define TQ_THREAD
#   define TQ_DATA   static constexpr
#   define TQ_UNROLL
#endif

// instructions of NVIDIA's devices
#if defined(TQ_CUDA) && defined(__CUDA_ARCH__) && !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)
#   define TQ_NVIDIA 1
#endif

namespace turbo {

enum : int { QK = 64 }; // not a variable, which Metal has in constant memory alone

//
// arithmetic that is the same everywhere: rounded to nearest, products not fused with sums
//

#if defined(__METAL_VERSION__)
TQ_FN uint32_t bits_of (float x)    { return as_type<uint32_t>(x); }
TQ_FN float    float_of(uint32_t x) { return as_type<float>(x); }
TQ_FN float mul (float a, float b) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    return a*b;
}
TQ_FN float add (float a, float b) {
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
    return a + b;
}
TQ_FN float div (float a, float b) { return metal::precise::divide(a, b); }
TQ_FN float root(float x)          { return metal::precise::sqrt(x); }
#elif defined(TQ_CUDA)
TQ_FN uint32_t bits_of (float x)    { return __float_as_uint(x); }
TQ_FN float    float_of(uint32_t x) { return __uint_as_float(x); }
TQ_FN float mul (float a, float b) { return __fmul_rn(a, b); }
TQ_FN float add (float a, float b) { return __fadd_rn(a, b); }
TQ_FN float div (float a, float b) { return __fdiv_rn(a, b); }
TQ_FN float root(float x)          { return __fsqrt_rn(x); }
#else // with -ffp-contract=off
TQ_FN uint32_t bits_of (float x)    { uint32_t y; memcpy(&y, &x, 4); return y; }
TQ_FN float    float_of(uint32_t x) { float    y; memcpy(&y, &x, 4); return y; }
TQ_FN float mul (float a, float b) { return a*b; }
TQ_FN float add (float a, float b) { return a + b; }
TQ_FN float div (float a, float b) { return a/b; }
TQ_FN float root(float x)          { return sqrtf(x); }
#endif

// f16's bits, to nearest, and back
#if defined(__METAL_VERSION__)
TQ_FN uint16_t half_of      (float x)    { return as_type<uint16_t>((half) x); }
TQ_FN float    float_of_half(uint16_t x) { return (float) as_type<half>(x); }
#elif defined(TQ_CUDA)
TQ_FN uint16_t half_of      (float x)    { return __half_as_ushort(__float2half_rn(x)); }
TQ_FN float    float_of_half(uint16_t x) { return __half2float(__ushort_as_half(x)); }
#else
TQ_FN uint16_t half_of      (float x)    { const _Float16 h = (_Float16) x; uint16_t y; memcpy(&y, &h, 2); return y; }
TQ_FN float    float_of_half(uint16_t x) { _Float16 y; memcpy(&y, &x, 2); return (float) y; }
#endif

// 2^e, -127 < e < 128
TQ_FN float power(int e) {
    return float_of((uint32_t) (127 + e) << 23);
}

//
// decoding
//

// Planes of 64 bits: word h has those of values 32 h to 32 h + 31. A block's, or those of its levels' numbers.
template <int N> struct planes {
    uint32_t w[N][2];
};

// word h of a 64-bit number that is rotated left by n, 0 < n < 32, from word h and the other one
TQ_FN uint32_t rotl_word(uint32_t word, uint32_t other, int n) {
    return word << n | other >> (32 - n);
}

// the numbers of a block's levels, low bit first: z0 and z1 from the path, then the index as it is stored
template <int K> TQ_FN planes<K + 1> numbers(planes<K> block) {
    planes<K + 1> res;
    TQ_UNROLL
    for (int h = 0; h < 2; ++h) {
        const uint32_t u = block.w[0][h];
        const uint32_t v = block.w[0][1 - h];
        res.w[0][h] = rotl_word(u, v, 2) ^ rotl_word(u, v, 4);
        res.w[1][h] = u ^ rotl_word(u, v, 1) ^ rotl_word(u, v, 6);
        TQ_UNROLL
        for (int k = 1; k < K; ++k) {
            res.w[k + 1][h] = block.w[k][h];
        }
    }
    return res;
}

// the number of value e
template <int N> TQ_FN int number_at(planes<N> n, int e) {
    int res = 0;
    TQ_UNROLL
    for (int i = 0; i < N; ++i) {
        res |= (int) ((e < 32 ? n.w[i][0] : n.w[i][1]) >> (e & 31) & 1) << i;
    }
    return res;
}

// COUNT bits of eight numbers, from bit FIRST on, in the nibbles of a word: nibble j is of value 32 h + 4 j + w.
// AT: the place within a nibble of the first of them
template <int FIRST, int COUNT, int AT = 0, int N> TQ_FN uint32_t nibbles(planes<N> n, int h, int w) {
    uint32_t res = 0;
    TQ_UNROLL
    for (int i = 0; i < COUNT; ++i) {
        const uint32_t x  = n.w[FIRST + i][h];
        const int      at = AT + i;
        res |= (at < w ? x >> (w - at) : x << (at - w)) & (0x11111111u << at);
    }
    return res;
}

//
// levels, and what a branch of the trellis costs
//

template <int N> struct level_list {
    int8_t at[N];
};

// for each of the four subsets of levels, a byte: the cost of its nearest level, and that level's number
struct branch {
    uint32_t costs;
    uint32_t numbers;
};

// the branches of a value, by its place on the grid
struct branch_table {
    branch at[TQ_GRID_LEN];
};

template <int N> constexpr branch make_branch(level_list<N> levels, int cost_unit, int value) {
    int distance[4] = { 1 << 30, 1 << 30, 1 << 30, 1 << 30 };
    int nearest[4]  = { 0, 0, 0, 0 };
    for (int n = 0; n < N; ++n) {
        const int d = value - levels.at[n]*TQ_GRID_STEPS;
        if (d*d < distance[n%4]) {
            distance[n%4] = d*d;
            nearest[n%4]  = n;
        }
    }
    int least = distance[0];
    for (int s = 1; s < 4; ++s) {
        least = distance[s] < least ? distance[s] : least;
    }
    const int unit = cost_unit*TQ_GRID_STEPS*TQ_GRID_STEPS;
    branch res = { 0, 0 };
    for (int s = 0; s < 4; ++s) {
        const int cost = (distance[s] - least + unit/2)/unit;
        res.costs   |= (uint32_t) (cost < TQ_COST_MAX ? cost : TQ_COST_MAX) << 8*s;
        res.numbers |= (uint32_t) nearest[s] << 8*s;
    }
    return res;
}

template <int N> constexpr branch_table make_branches(level_list<N> levels, int cost_unit) {
    branch_table res = {};
    for (int i = 0; i < TQ_GRID_LEN; ++i) {
        res.at[i] = make_branch(levels, cost_unit, i - TQ_GRID_LEN/2);
    }
    return res;
}

template <int N> struct scale_list {
    float at[N];
};

// level_of<K>(number), branch_of<K>(place), scale_of<K>(i)
template <int K> TQ_FN int    level_of (int number);
template <int K> TQ_FN branch branch_of(int place);
template <int K> TQ_FN float  scale_of (int i);

#define TQ_TYPE(K)                                                                              \
    TQ_DATA level_list<2 << K>     levels_##K   = { { TQ_LEVELS_##K } };                        \
    TQ_DATA scale_list<TQ_SCALES>  scales_##K   = { { TQ_SCALES_##K } };                        \
    template <> TQ_SPECIAL int    level_of <K>(int number) { return levels_##K.at[number]; }    \
    template <> TQ_SPECIAL float  scale_of <K>(int i)      { return scales_##K.at[i]; }         \
    TQ_BRANCHES(K)

// Metal's encoder looks at a value's branches once for each scale, and finds them without a table.
#if defined(__METAL_VERSION__)
#   define TQ_BRANCHES(K) \
    template <> TQ_SPECIAL branch branch_of<K>(int place) { return make_branch(level_list<2 << K>{ { TQ_LEVELS_##K } }, TQ_COST_UNIT_##K, place - TQ_GRID_LEN/2); }
#else
#   define TQ_BRANCHES(K)                                                                       \
    TQ_DATA branch_table           branches_##K = make_branches<2 << K>({ { TQ_LEVELS_##K } }, TQ_COST_UNIT_##K); \
    template <> TQ_SPECIAL branch branch_of<K>(int place)  { return branches_##K.at[place]; }
#endif

#if defined(TQ_CUDA)
#   define TQ_SPECIAL __device__ __forceinline__
#else
#   define TQ_SPECIAL inline
#endif

TQ_TYPE(2)
TQ_TYPE(3)
TQ_TYPE(4)

#undef TQ_TYPE
#undef TQ_BRANCHES
#undef TQ_SPECIAL

//
// encoding: a block at one of the scales. The encoder takes the best of all, the first of several
//

// The values of a block, at a magnitude at which nothing overflows: x = y * 2^exponent.
struct values {
    float y[QK];
    float extent; // what scales are multiples of; 0: nothing but zeros can be coded
    int   exponent;
};

// Eight running sums over a block, value e in sum e%8, folded in halves: the order of additions of every encoder.
struct running_sums {
    float at[8];
};

TQ_FN float fold(running_sums s) {
    TQ_UNROLL
    for (int n = 4; n > 0; n /= 2) {
        TQ_UNROLL
        for (int i = 0; i < n; ++i) {
            s.at[i] = add(s.at[i], s.at[i + n]);
        }
    }
    return s.at[0];
}

// The bits of a finite value's magnitude; NaN and infinity are coded as 0.
TQ_FN bool is_finite(uint32_t magnitude) {
    return magnitude < 0x7f800000;
}

// peak: the largest magnitude of a block. Below f16's smallest scale times the largest level all is zero
TQ_FN bool is_zero(uint32_t peak) {
    return float_of(peak) < 1e-9f;
}

// 2^-127 would be subnormal
TQ_FN int exponent_of(uint32_t peak) {
    const int exponent = (int) (peak >> 23) - 127;
    return exponent < 126 ? exponent : 126;
}

// energy, peak: of the normalized block
TQ_FN float extent_of(float energy, float peak) {
    return add(mul(TQ_EXTENT_RMS, root(mul(energy, 1.0f/QK))), mul(TQ_EXTENT_PEAK, peak));
}

// y: the block as it is
TQ_FN void normalize(TQ_THREAD values & v) {
    uint32_t peak = 0;
    for (int e = 0; e < QK; ++e) {
        const uint32_t magnitude = bits_of(v.y[e]) & 0x7fffffff;
        if (is_finite(magnitude)) {
            peak = magnitude > peak ? magnitude : peak;
        } else {
            v.y[e] = 0.0f;
        }
    }
    v.extent   = 0.0f;
    v.exponent = 0;
    if (is_zero(peak)) {
        return;
    }
    v.exponent = exponent_of(peak);
    const float factor = power(-v.exponent);
    for (int e = 0; e < QK; ++e) {
        v.y[e] = mul(v.y[e], factor);
    }
    running_sums yy = { { 0, 0, 0, 0, 0, 0, 0, 0 } };
    for (int e = 0; e < QK; e += 8) {
        TQ_UNROLL
        for (int i = 0; i < 8; ++i) {
            yy.at[i] = add(yy.at[i], mul(v.y[e + i], v.y[e + i]));
        }
    }
    v.extent = extent_of(fold(yy), mul(float_of(peak), factor));
}

// a value's place on the grid, ties to even; the sum's low bits are the rounded number
TQ_FN int place_of(float y, float factor) {
    const float limit = TQ_GRID_LEN/2;
    float x = mul(y, factor);
    x = x < -limit ? -limit : x;
    x = x >  limit ?  limit : x;
    return (int) (bits_of(add(x, limit + 12582912.0f)) & 0xffff);
}

// Costs of two states in the halves of a word, each at most 255.

TQ_FN uint32_t min_costs(uint32_t a, uint32_t b) {
#if defined(TQ_NVIDIA)
    return __vminu2(a, b);
#else
    const uint32_t below = ((a | 0x80008000) - b) >> 15 & 0x00010001; // b is not above
    return (b & below*0xffff) | (a & ~(below*0xffff));
#endif
}

// min(a + b, c)
TQ_FN uint32_t add_min(uint32_t a, uint32_t b, uint32_t c) {
#if defined(TQ_NVIDIA)
    return __viaddmin_u16x2(a, b, c);
#else
    return min_costs(a + b, c);
#endif
}

// What the better of two ways costs. The second one is better only if it is below the first: a tie is the first's.
struct better_way {
    uint32_t cost;
    uint32_t first; // costs of the first
};

TQ_FN better_way choose(uint32_t from0, uint32_t branch0, uint32_t from1, uint32_t branch1) {
    const uint32_t first = add_min(from0, branch0, 0x00ff00ff);
    return { add_min(from1, branch1, first), first };
}

// one: in the bit above a cost, 0x0100, or the highest, 0x8000, of each half. It is left where the first way was taken
TQ_FN uint32_t is_first(better_way way, uint32_t one) {
    return way.cost - way.first + one;
}

// bytes 1 and 3 of x, then of y
TQ_FN uint32_t odd_bytes(uint32_t x, uint32_t y) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, y, 0x7531);
#else
    return (x >> 8 & 0xff) | (x >> 24) << 8 | (y >> 8 & 0xff) << 16 | (y & 0xff000000);
#endif
}

// the low halves of x and y
TQ_FN uint32_t low_halves(uint32_t x, uint32_t y) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, y, 0x5410);
#else
    return (x & 0xffff) | y << 16;
#endif
}

TQ_FN uint32_t high_halves(uint32_t x, uint32_t y) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, y, 0x7632);
#else
    return x >> 16 | (y & 0xffff0000);
#endif
}

// what the best paths into all states cost: word r has states 2 r and 2 r + 1
struct path_costs {
    uint32_t w[32];
};

// A bit for each state: the best path into it comes from the lower of its two predecessors. For states that are even
// and odd; byte i has those of states 8 b + 2 i, from the highest bit on.
struct decision {
    uint32_t even;
    uint32_t odd;
};

TQ_FN int predecessor(decision d, int state) {
    const int at    = (state >> 1 & 3) << 3 | (7 - (state >> 3));
    const int lower = (int) ((state & 1 ? d.odd : d.even) >> at & 1);
    return state >> 1 | (lower ^ 1) << 5;
}

TQ_FN decision advance(TQ_THREAD path_costs & cost, uint32_t branch_costs) {
    // of states 2 r, 2 r + 1 with path bit 0, where subset bit 0 of both is clear and where it is set; then path bit 1
    const uint32_t straight[2] = { branch_costs & 0x00ff00ff, branch_costs >> 8 & 0x00ff00ff };
    const uint32_t crossed [2] = { straight[0] >> 16 | straight[0] << 16, straight[1] >> 16 | straight[1] << 16 };

    path_costs next;
    decision   res = { 0, 0 };
    TQ_UNROLL
    for (int b = 0; b < 8; ++b) {
        uint32_t even[2];
        uint32_t odd [2];
        TQ_UNROLL
        for (int i = 0; i < 2; ++i) {
            const int      r  = 2*b + i;
            const int      z0 = (r ^ r >> 2) & 1;
            const uint32_t from0 = cost.w[r];
            const uint32_t from1 = cost.w[r + 16];

            const better_way w0 = choose(from0, straight[z0], from1, crossed [z0]);
            const better_way w1 = choose(from0, crossed [z0], from1, straight[z0]);
            even[i] = is_first(w0, 0x01000100);
            odd [i] = is_first(w1, 0x01000100);
            next.w[2*r]     = low_halves (w0.cost, w1.cost);
            next.w[2*r + 1] = high_halves(w0.cost, w1.cost);
        }
        res.even = 2*res.even + odd_bytes(even[0], even[1]);
        res.odd  = 2*res.odd  + odd_bytes(odd [0], odd [1]);
    }
    cost = next;
    return res;
}

TQ_FN uint32_t least_cost(TQ_THREAD const path_costs & cost) {
    uint32_t m = cost.w[0];
    TQ_UNROLL
    for (int r = 1; r < 32; ++r) {
        m = min_costs(m, cost.w[r]);
    }
    return (m & 0xffff) < m >> 16 ? m & 0xffff : m >> 16;
}

// so that costs stay small
TQ_FN void renormalize(TQ_THREAD path_costs & cost) {
    const uint32_t least = least_cost(cost)*0x00010001;
    TQ_UNROLL
    for (int r = 0; r < 32; ++r) {
        cost.w[r] -= least;
    }
}

// the lowest state of the least cost
TQ_FN int best_state(TQ_THREAD const path_costs & cost) {
    const uint32_t least = least_cost(cost);
    int res = 0;
    TQ_UNROLL
    for (int r = 31; r >= 0; --r) {
        res = cost.w[r] >> 16       == least ? 2*r + 1 : res;
        res = (cost.w[r] & 0xffff) == least ? 2*r     : res;
    }
    return res;
}

// the path bits of a block: word h has those of values 32 h to 32 h + 31
struct path {
    uint32_t w[2];
};

// A block's code at one scale.
struct candidate {
    path  u;
    float scale; // least squares
    float score; // energy that the code explains; 0: none
};

// The tail-biting path of v at a scale, and how well it fits. factor: grid steps of y = 1.
//
// A free run over the values on both sides of the wrap finds the state there; a second run starts and ends in it.
template <int K> TQ_FN candidate search(TQ_THREAD const values & v, float factor) {
    decision   decisions[QK];
    path_costs cost;

    TQ_UNROLL
    for (int r = 0; r < 32; ++r) {
        cost.w[r] = 0;
    }
    for (int i = 0; i < 2*TQ_CONTEXT; ++i) {
        const int e = (QK - TQ_CONTEXT + i)%QK;
        decisions[e] = advance(cost, branch_of<K>(place_of(v.y[e], factor)).costs);
        if (i%TQ_RENORMALIZE == TQ_RENORMALIZE - 1) {
            renormalize(cost);
        }
    }
    int wrap = best_state(cost);
    for (int e = TQ_CONTEXT - 1; e >= 0; --e) {
        wrap = predecessor(decisions[e], wrap);
    }

    TQ_UNROLL
    for (int r = 0; r < 32; ++r) {
        cost.w[r] = 0x00ff00ff & ~(wrap >> 1 == r ? 0xffffu << 16*(wrap & 1) : 0u);
    }
    for (int e = 0; e < QK; ++e) {
        decisions[e] = advance(cost, branch_of<K>(place_of(v.y[e], factor)).costs);
        if (e%TQ_RENORMALIZE == TQ_RENORMALIZE - 1) {
            renormalize(cost);
        }
    }
    candidate res = {};
    int state = wrap;
    for (int e = QK - 1; e >= 0; --e) {
        const uint32_t bit = (uint32_t) (state & 1) << (e & 31);
        res.u.w[0] |= e < 32 ? bit : 0;
        res.u.w[1] |= e < 32 ? 0 : bit;
        state = predecessor(decisions[e], state);
    }
    return res;
}

// the number of value e on a path
template <int K> TQ_FN int number_on(planes<2> subsets, TQ_THREAD const values & v, float factor, int e) {
    return (int) (branch_of<K>(place_of(v.y[e], factor)).numbers >> 8*number_at(subsets, e) & 0xff);
}

// z0 and z1 of a path
TQ_FN planes<2> subsets(path u) {
    return numbers<1>({ { { u.w[0], u.w[1] } } });
}

// grid steps of y = 1 at scale i
template <int K> TQ_FN float factor_of(float extent, int i) {
    return div(TQ_GRID_STEPS, mul(extent, scale_of<K>(i)));
}

// A normalized block at scale i of TQ_SCALES; its extent is not 0.
template <int K> TQ_FN candidate encode(TQ_THREAD const values & v, int i) {
    const float factor = factor_of<K>(v.extent, i);
    candidate res = search<K>(v, factor);

    const planes<2> z = subsets(res.u);
    running_sums yc = { { 0, 0, 0, 0, 0, 0, 0, 0 } };
    int cc = 0;
    for (int e = 0; e < QK; e += 8) {
        TQ_UNROLL
        for (int i = 0; i < 8; ++i) {
            const int level = level_of<K>(number_on<K>(z, v, factor, e + i));
            yc.at[i] = add(yc.at[i], mul(v.y[e + i], (float) level));
            cc += level*level;
        }
    }
    const float xc = fold(yc);
    res.scale = div(xc, (float) cc);
    res.score = xc > 0.0f ? mul(xc, res.scale) : 0.0f;
    return res;
}

// f16's bits of the least-squares scale of a block that was divided by 2^exponent
TQ_FN uint16_t scale_bits(float scale, int exponent) {
    // in two exact steps: 2^exponent alone may be out of range
    const int first = exponent/2;
    scale = mul(mul(scale, power(first)), power(exponent - first));
    return half_of(scale < 65504.0f ? scale : 65504.0f);
}

// What a block's bytes hold.
template <int K> struct block {
    uint16_t  scale; // f16
    planes<K> index; // the path, then the index, low bit first
};

// The block of the best candidate, which is of scale i; all zeros if its scale rounds to 0.
template <int K> TQ_FN block<K> make_block(TQ_THREAD const values & v, candidate best, int i) {
    block<K> res = {};
    res.scale = scale_bits(best.scale, v.exponent);
    if (res.scale == 0) {
        return res;
    }

    const float     factor = factor_of<K>(v.extent, i);
    const planes<2> z      = subsets(best.u);
    TQ_UNROLL
    for (int h = 0; h < 2; ++h) {
        res.index.w[0][h] = best.u.w[h];
        for (int b = 0; b < 32; ++b) {
            const uint32_t number = (uint32_t) number_on<K>(z, v, factor, 32*h + b);
            TQ_UNROLL
            for (int k = 1; k < K; ++k) {
                res.index.w[k][h] |= (number >> (k + 1) & 1) << b;
            }
        }
    }
    return res;
}

} // namespace turbo
