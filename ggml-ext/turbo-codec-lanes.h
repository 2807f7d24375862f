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
// two halves of a word
//

// bytes i and j of x, each 0 to 3
TQ_FN uint32_t pick_bytes(uint32_t x, int i, int j) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, 0x4040 | i | j << 8);
#else
    return (x >> 8*i & 0xff) | (x >> 8*j & 0xff) << 16;
#endif
}

// half i of x, twice
TQ_FN uint32_t pick_half(uint32_t x, int i) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, i ? 0x3232 : 0x1010);
#else
    return (x >> 16*i & 0xffff)*0x00010001;
#endif
}

// all ones in a half whose highest bit is set
TQ_FN uint32_t spread_bits(uint32_t x) {
#if defined(TQ_NVIDIA)
    return __byte_perm(x, 0, 0xbb99);
#else
    return (x >> 15 & 0x00010001)*0xffff;
#endif
}

//
// the search
//

// The best paths into a lane's states: what they cost, and where they come from.
struct lane_paths {
    uint32_t cost;
    uint32_t from;
};

// A block in parts, and those on each side of the wrap that the first run is over. While a part lasts, the low byte of a
// half is for a state, the high byte for the path's bits since.
enum : int {
    STEPS   = 8,
    PARTS   = 8,
    CONTEXT = TQ_CONTEXT/8,
};
static_assert(TQ_RENORMALIZE == 8 && TQ_CONTEXT%8 == 0, "costs are kept small after each part");

TQ_FN uint32_t own_states(int l) {
    return (uint32_t) (2*l) | (uint32_t) (2*l + 1) << 16;
}

// A step, as turbo::advance; `from` is that of the better predecessor. branch_costs: the same for all lanes
TQ_FN lane_paths advance(lane_paths p, uint32_t branch_costs, int l) {
    const int r     = l/2;
    const int z0    = (r ^ r >> 2) & 1;
    const int one   = z0 + 2*(l & 1);
    const int other = one ^ 2;

    const better_way way = choose(
        pick_half(shuffle(p.cost, r),           l & 1), pick_bytes(branch_costs, one, other),
        pick_half(shuffle(p.cost, r + LANES/2), l & 1), pick_bytes(branch_costs, other, one));
    const uint32_t lower = spread_bits(is_first(way, 0x80008000));
    const uint32_t a     = pick_half(shuffle(p.from, r),           l & 1);
    const uint32_t b     = pick_half(shuffle(p.from, r + LANES/2), l & 1);
    return { way.cost, (a & lower) | (b & ~lower) };
}

TQ_FN uint32_t least_cost(lane_paths p) {
    const uint32_t low  = p.cost & 0xffff;
    const uint32_t high = p.cost >> 16;
    return lanes_min(low < high ? low : high);
}

// of the state that the paths of a word end in
TQ_FN uint32_t at_state(uint32_t x, int state) {
    return shuffle(x, state/2) >> 16*(state & 1) & 0xffff;
}

// the lowest state of the least cost
TQ_FN int best_state(lane_paths p, int l) {
    const uint32_t least = least_cost(p);
    const uint32_t none  = 2*LANES;
    return (int) lanes_min((p.cost & 0xffff) == least ? (uint32_t) (2*l) : p.cost >> 16 == least ? (uint32_t) (2*l + 1) : none);
}

TQ_FN void renormalize(TQ_THREAD lane_paths & p) {
    p.cost -= least_cost(p)*0x00010001;
}

// The tail-biting path, as turbo::search. costs: of the branches of this lane's two values
//
// No step is traced back: a path takes along the state in which it began, and what it did since.
TQ_FN path search(uint32_t costs0, uint32_t costs1, int l) {
    lane_paths p = { 0, 0 };
    for (int i = 0; i < 2*CONTEXT; ++i) {
        const int part = (PARTS - CONTEXT + i)%PARTS;
        if (i == CONTEXT) {
            p.from = own_states(l);
        }
        const uint32_t costs = part < PARTS/2 ? costs0 : costs1;
        TQ_UNROLL
        for (int s = 0; s < STEPS; ++s) {
            p = advance(p, shuffle(costs, (part*STEPS + s)%LANES), l);
        }
        renormalize(p);
    }
    const int wrap = (int) at_state(p.from, best_state(p, l));

    uint32_t parts[PARTS];
    p.cost = 0x00ff00ff & ~(wrap/2 == l ? 0xffffu << 16*(wrap & 1) : 0u);
    for (int part = 0; part < PARTS; ++part) {
        const uint32_t costs = part < PARTS/2 ? costs0 : costs1;
        p.from = own_states(l) << STEPS;
        TQ_UNROLL
        for (int s = 0; s < STEPS; ++s) {
            p = advance(p, shuffle(costs, (part*STEPS + s)%LANES), l);
            // the bit of the step, which is the last of the state that it leads to
            p.from = (p.from >> 1 & 0x7fff7fff) | 0x80000000;
        }
        renormalize(p);
        // not by a number that is known only when it runs: an array in registers has none
        TQ_UNROLL
        for (int i = 0; i < PARTS; ++i) {
            parts[i] = i == part ? p.from : parts[i];
        }
    }
    path res   = { { 0, 0 } };
    int  state = wrap;
    TQ_UNROLL
    for (int part = PARTS - 1; part >= 0; --part) {
        const uint32_t x = at_state(parts[part], state);
        res.w[part/(PARTS/2)] |= (x >> STEPS) << part%(PARTS/2)*STEPS;
        state = (int) (x & 0xff);
    }
    return res;
}

//
// blocks
//

// As turbo::values.
struct lane_values {
    float y[2];
    float extent;
    int   exponent;
};

// of a block's values, in the order of turbo::running_sums
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
    lane_values v = { { x0, x1 }, 0.0f, 0 };

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

    v.extent = extent_of(lanes_fold(mul(v.y[0], v.y[0]), mul(v.y[1], v.y[1]), l), mul(float_of(peak), factor));
    return v;
}

// As turbo::candidate, and the numbers of this lane's two values.
struct lane_candidate {
    path     u;
    uint32_t number[2];
    float    scale;
    float    score;
};

// as turbo::encode
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

    res.scale = div(xc, (float) lanes_sum(c0*c0 + c1*c1));
    res.score = xc > 0.0f ? mul(xc, res.scale) : 0.0f;
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
