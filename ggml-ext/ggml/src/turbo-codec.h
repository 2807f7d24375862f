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
// encoding: a block at one of the scales. The encoder takes the best of all, the first of several. turbo-codec-thread.h and
// turbo-codec-lanes.h do it by one thread and by 32
//

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

// a value's place on the grid, ties to even; the sum's low bits are the rounded number
TQ_FN int place_of(float y, float factor) {
    const float limit = TQ_GRID_LEN/2;
    float x = mul(y, factor);
    x = x < -limit ? -limit : x;
    x = x >  limit ?  limit : x;
    return (int) (bits_of(add(x, limit + 12582912.0f)) & 0xffff);
}

//
// the search for a path: its states and what leads to them
//
// A state's half word has what the best path into it costs, in the high byte, and below what it did since a part of eight
// steps began: bit t is set where step t came from the upper of its two predecessors. So one instruction finds the better
// way and takes its history along. The latest step is the highest bit, and among equal costs the least word is the one that
// came from the lower predecessor at that step.
//
// From any state any other is reached in six steps, so that none ever costs more than eight branches after a part of eight
// steps, when the least cost is subtracted from all.
//

enum : int {
    STEPS   = 8,             // of a part
    PARTS   = QK/STEPS,      // of a block
    CONTEXT = TQ_CONTEXT/STEPS, // on each side of the wrap, where the first run goes
};
static_assert(TQ_RENORMALIZE == STEPS && TQ_CONTEXT%STEPS == 0, "costs are kept small after each part");
static_assert(STEPS*TQ_COST_MAX < 256, "costs fit a byte");

// In the first part of the second run one state is allowed alone: the others cost more than any path. Its first six steps
// need no history, which leaves room for that: costs are to the left of two bits.
enum : int { FIRST_STEPS = 6 };
enum : uint32_t { FORBIDDEN = 1024u << (STEPS - FIRST_STEPS) };

// What step t adds for the upper predecessor, to both halves; FIRST: in that part.
template <bool FIRST> TQ_FN uint32_t upper_bit(int t) {
    return (FIRST ? t < FIRST_STEPS ? 0u : 1u << (t - FIRST_STEPS) : 1u << t)*0x00010001;
}

// min(a + b, c) of halves
TQ_FN uint32_t add_min(uint32_t a, uint32_t b, uint32_t c) {
#if defined(TQ_NVIDIA)
    return __viaddmin_u16x2(a, b, c);
#else
    const uint32_t sum   = a + b;
    const uint32_t lower = (sum & 0xffff) < (c & 0xffff) ? sum : c;
    const uint32_t upper = (sum >> 16)    < (c >> 16)    ? sum : c;
    return (lower & 0xffff) | (upper & 0xffff0000);
#endif
}

TQ_FN uint32_t min_halves(uint32_t a, uint32_t b) {
#if defined(TQ_NVIDIA)
    return __vminu2(a, b);
#else
    return add_min(a, 0, b);
#endif
}

// Byte i of the result is byte SELECTOR >> 4 i of x (0 to 3) or of y (4 to 7).
template <uint32_t SELECTOR> TQ_FN uint32_t permute(uint32_t x, uint32_t y) {
#if defined(TQ_CUDA)
    return __byte_perm(x, y, SELECTOR);
#else
    uint32_t res = 0;
    TQ_UNROLL
    for (int i = 0; i < 4; ++i) {
        const uint32_t at = SELECTOR >> 4*i & 7;
        res |= ((at < 4 ? x : y) >> 8*(at & 3) & 0xff) << 8*i;
    }
    return res;
#endif
}

// The state that a path was in before a part, by its history: of the bits of six values the oldest is the highest.
TQ_FN int state_before(uint32_t history) {
#if defined(__METAL_VERSION__)
    return (int) (metal::reverse_bits(history) >> 26);
#elif defined(TQ_CUDA)
    return (int) (__brev(history) >> 26);
#else
    int res = 0;
    for (int i = 0; i < 6; ++i) {
        res |= (int) (history >> i & 1) << (5 - i);
    }
    return res;
#endif
}

// the path bits of a block: word h has those of values 32 h to 32 h + 31
struct path {
    uint32_t w[2];
};

// Adds what a path did in a part to it: history bit t is the path's bit of value 8 part - 6 + t. Before value 0 that is known.
TQ_FN void add_history(TQ_THREAD path & u, int part, uint32_t history) {
    const int at = STEPS*part - 6;
    if (at < 0) {
        u.w[0] |= history >> 6;
    } else if (at < 32) {
        u.w[0] |= history << at;
        u.w[1] |= at > 24 ? history >> (32 - at) : 0;
    } else {
        u.w[1] |= history << (at - 32);
    }
}

// And the state that it ends in: bits of the last six values, the last one lowest.
TQ_FN void add_state(TQ_THREAD path & u, int state) {
    u.w[1] |= (uint32_t) state_before((uint32_t) state) << 26;
}

// z0 and z1 of a path
TQ_FN planes<2> subsets(path u) {
    return numbers<1>({ { { u.w[0], u.w[1] } } });
}

// grid steps of y = 1 at scale i
template <int K> TQ_FN float factor_of(float extent, int i) {
    return div(TQ_GRID_STEPS, mul(extent, scale_of<K>(i)));
}

// A candidate's scale, with which the decoded block's projection on the block is the block. energy: of the block; product: of
// it and the levels, above 0; least_squares: the scale with which the error is least, and the decoded block too short
TQ_FN float unbiased_scale(float energy, float product, float least_squares) {
    const float scale = div(energy, product);
    const float limit = mul(TQ_SCALE_LIMIT, least_squares);
    return scale < limit ? scale : limit;
}

// f16's bits of the scale of a block that was divided by 2^exponent
TQ_FN uint16_t scale_bits(float scale, int exponent) {
    // in two exact steps: 2^exponent alone may be out of range
    const int first = exponent/2;
    scale = mul(mul(scale, power(first)), power(exponent - first));
    return half_of(scale < 65504.0f ? scale : 65504.0f);
}

} // namespace turbo
