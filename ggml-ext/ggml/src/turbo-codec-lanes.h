// The encoder of turbo-codec.h by 32 lanes, a warp of CUDA's or a simdgroup of Metal's: a scale of a block each. The same
// bits, several times sooner than one thread has them, for more work in all: for few blocks, as in decoding.
//
// Lane l has values l and l + 32, and states 2 l and 2 l + 1 of the trellis in the halves of a word. Both have the same
// predecessors, l and l + 32, which two lanes hold.

#pragma once

#include "turbo-codec.h"

namespace turbo {

enum : int { LANES = 32 };

//
// what lanes tell each other
//

#if defined(__METAL_VERSION__)
template <typename T> TQ_FN T shuffle    (T x, int lane)   { return metal::simd_shuffle(x, (ushort) lane); }
template <typename T> TQ_FN T shuffle_xor(T x, int offset) { return metal::simd_shuffle_xor(x, (ushort) offset); }
template <typename T> TQ_FN T lanes_sum  (T x)             { return metal::simd_sum(x); }
TQ_FN uint32_t                lanes_min  (uint32_t x)      { return metal::simd_min(x); }
TQ_FN uint32_t                lanes_max  (uint32_t x)      { return metal::simd_max(x); }
#else
template <typename T> TQ_FN T shuffle    (T x, int lane)   { return __shfl_sync    (0xffffffff, x, lane,   LANES); }
template <typename T> TQ_FN T shuffle_xor(T x, int offset) { return __shfl_xor_sync(0xffffffff, x, offset, LANES); }

template <typename T> TQ_FN T lanes_sum(T x) {
    TQ_UNROLL
    for (int offset = LANES/2; offset > 0; offset /= 2) {
        x += shuffle_xor(x, offset);
    }
    return x;
}

TQ_FN uint32_t lanes_max(uint32_t x) {
#if defined(TQ_NVIDIA) && __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffff, x);
#else
    TQ_UNROLL
    for (int offset = LANES/2; offset > 0; offset /= 2) {
        const uint32_t other = shuffle_xor(x, offset);
        x = x > other ? x : other;
    }
    return x;
#endif
}

TQ_FN uint32_t lanes_min(uint32_t x) {
    return ~lanes_max(~x);
}
#endif

//
// the search, with what turbo-codec.h says of states
//

// half i of x, twice
TQ_FN uint32_t pick_half(uint32_t x, int i) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, i ? 0x3232 : 0x1010);
#else
    return (x >> 16*i & 0xffff)*0x00010001;
#endif
}

// bytes i and j of x, each 0 to 3, in the high bytes of the halves
TQ_FN uint32_t pick_bytes(uint32_t x, int i, int j) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, 0x0404 | i << 4 | j << 12);
#else
    return (x >> 8*i & 0xff) << 8 | (x >> 8*j & 0xff) << 24;
#endif
}

// Step t of a part: the best paths into this lane's two states, from those of all lanes. branch_costs: the same for all lanes
template <bool FIRST> TQ_FN uint32_t advance(uint32_t p, uint32_t branch_costs, int t, int l) {
    const int r     = l/2;
    const int z0    = (r ^ r >> 2) & 1;
    const int one   = z0 + 2*(l & 1);
    const int other = one ^ 2;
    const int shift = FIRST ? FIRST_STEPS : 0;

    const uint32_t lower = pick_half(shuffle(p, r),           l & 1);
    const uint32_t upper = pick_half(shuffle(p, r + LANES/2), l & 1);
    return add_min(upper, (pick_bytes(branch_costs, other, one) >> shift) + upper_bit<FIRST>(t),
        lower + (pick_bytes(branch_costs, one, other) >> shift));
}

// A part of eight steps, whose branches' costs are those of values 8 part to 8 part + 7, by the lanes that have them. history:
// what the paths into this lane's states did in it, in the halves of a word
template <bool FIRST> TQ_FN uint32_t advance_part(uint32_t p, uint32_t costs0, uint32_t costs1, int part, int l, TQ_THREAD uint32_t & history) {
    const uint32_t costs = part < PARTS/2 ? costs0 : costs1;
    TQ_UNROLL
    for (int s = 0; s < STEPS; ++s) {
        p = advance<FIRST>(p, shuffle(costs, (part*STEPS + s)%LANES), s, l);
    }
    p <<= FIRST ? FIRST_STEPS : 0;
    history = p & 0x00ff00ff;
    p = p >> 8 & 0x00ff00ff;
    const uint32_t least = lanes_min((p & 0xffff) < p >> 16 ? p & 0xffff : p >> 16);
    return (p - least*0x00010001) << 8;
}

// the lowest state of the least cost, which is 0 after a part
TQ_FN int best_state(uint32_t p, int l) {
    const uint32_t none = 2*LANES;
    return (int) lanes_min((p & 0xffff) == 0 ? (uint32_t) (2*l) : p >> 16 == 0 ? (uint32_t) (2*l + 1) : none);
}

TQ_FN uint32_t history_of(uint32_t history, int state) {
    return shuffle(history, state/2) >> 16*(state & 1) & 0xff;
}

// Of all parts. Not by a number that is known only when it runs: an array in registers has none.
struct lane_histories {
    uint32_t w[PARTS];
};

TQ_FN void keep(TQ_THREAD lane_histories & histories, int part, uint32_t h) {
    TQ_UNROLL
    for (int i = 0; i < PARTS; ++i) {
        histories.w[i] = i == part ? h : histories.w[i];
    }
}

// The tail-biting path, as turbo-codec-thread.h finds it. costs: of the branches of this lane's two values
TQ_FN path search(uint32_t costs0, uint32_t costs1, int l) {
    lane_histories history = {};
    uint32_t h = 0;
    uint32_t p = 0;
    for (int i = 0; i < 2*CONTEXT; ++i) {
        const int part = (PARTS - CONTEXT + i)%PARTS;
        p = advance_part<false>(p, costs0, costs1, part, l, h);
        keep(history, part, h);
    }
    int wrap = best_state(p, l);
    TQ_UNROLL
    for (int part = CONTEXT - 1; part >= 0; --part) {
        wrap = state_before(history_of(history.w[part], wrap));
    }

    p = FORBIDDEN*0x00010001 & ~(wrap/2 == l ? 0xffffu << 16*(wrap & 1) : 0u);
    p = advance_part<true>(p, costs0, costs1, 0, l, history.w[0]);
    for (int part = 1; part < PARTS; ++part) {
        p = advance_part<false>(p, costs0, costs1, part, l, h);
        keep(history, part, h);
    }
    path res   = { { 0, 0 } };
    int  state = wrap;
    TQ_UNROLL
    for (int part = PARTS - 1; part >= 0; --part) {
        const uint32_t x = history_of(history.w[part], state);
        add_history(res, part, x);
        state = state_before(x);
    }
    add_state(res, wrap);
    return res;
}

//
// blocks
//

// A block's values as those of turbo-codec-thread.h.
struct lane_values {
    float y[2];
    float energy;
    float extent;
    int   exponent;
};

// of a block's values, in the order of running_sums of turbo-codec-thread.h
TQ_FN float lanes_fold(float x0, float x1, int l) {
    float sum = 0.0f;
    TQ_UNROLL
    for (int i = 0; i < 8; ++i) {
        sum = add(sum, shuffle(i < 4 ? x0 : x1, (8*i + l%8)%LANES));
    }
    sum = add(sum, shuffle_xor(sum, 4));
    sum = add(sum, shuffle_xor(sum, 2));
    sum = add(sum, shuffle_xor(sum, 1));
    return sum;
}

TQ_FN lane_values normalize(float x0, float x1, int l) {
    lane_values v = { { x0, x1 }, 0.0f, 0.0f, 0 };

    uint32_t peak = 0;
    TQ_UNROLL
    for (int h = 0; h < 2; ++h) {
        const uint32_t magnitude = bits_of(v.y[h]) & 0x7fffffff;
        if (is_finite(magnitude)) {
            peak = magnitude > peak ? magnitude : peak;
        } else {
            v.y[h] = 0.0f;
        }
    }
    peak = lanes_max(peak);
    if (is_zero(peak)) {
        return v;
    }
    v.exponent = exponent_of(peak);
    const float factor = power(-v.exponent);
    v.y[0] = mul(v.y[0], factor);
    v.y[1] = mul(v.y[1], factor);

    v.energy = lanes_fold(mul(v.y[0], v.y[0]), mul(v.y[1], v.y[1]), l);
    v.extent = extent_of(v.energy, mul(float_of(peak), factor));
    return v;
}

// A candidate, with the numbers of this lane's two values.
struct lane_candidate {
    path     u;
    uint32_t number[2];
    float    scale;
    float    score;
};

// a normalized block at scale i
template <int K> TQ_FN lane_candidate encode(lane_values v, int i, int l) {
    const float  factor = factor_of<K>(v.extent, i);
    const branch b0     = branch_of<K>(place_of(v.y[0], factor));
    const branch b1     = branch_of<K>(place_of(v.y[1], factor));

    lane_candidate res = { search(b0.costs, b1.costs, l), { 0, 0 }, 0.0f, 0.0f };

    const planes<2> z = subsets(res.u);
    res.number[0] = b0.numbers >> 8*number_at(z, l)         & 0xff;
    res.number[1] = b1.numbers >> 8*number_at(z, l + LANES) & 0xff;

    const int   c0 = level_of<K>((int) res.number[0]);
    const int   c1 = level_of<K>((int) res.number[1]);
    const float xc = lanes_fold(mul(v.y[0], (float) c0), mul(v.y[1], (float) c1), l);

    const float least_squares = div(xc, (float) lanes_sum(c0*c0 + c1*c1));
    res.score = xc > 0.0f ? mul(xc, least_squares) : 0.0f;
    res.scale = res.score > 0.0f ? unbiased_scale(v.energy, xc, least_squares) : 0.0f;
    return res;
}

// 16 bits of a block's planes: the word of lane l, which is below 4 K
template <int K> TQ_FN uint16_t planes_word(lane_candidate c, int l) {
    uint32_t res = (l/2%2 ? c.u.w[1] : c.u.w[0]) >> 16*(l%2);
    TQ_UNROLL
    for (int k = 1; k < K; ++k) {
        const uint32_t low  = lanes_sum((c.number[0] >> (k + 1) & 1) << l);
        const uint32_t high = lanes_sum((c.number[1] >> (k + 1) & 1) << l);
        res = l/4 == k ? (l/2%2 ? high : low) >> 16*(l%2) : res;
    }
    return (uint16_t) res;
}

} // namespace turbo
