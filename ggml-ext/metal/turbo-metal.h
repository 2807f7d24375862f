#pragma once

// The turbo types in Metal: what decodes and encodes a block. Follows common.h and dequantize.h.

#include "turbo-codec.h"

//
// decoding
//

// N values' bits of the path, of both rotations of it, and of the index, from value e of the block on. A rotation takes
// from at most six bits before e, which are in e's 16 bits of the plane or in those before, around the block.
template <short K>
struct turbo_bits {
    uint z0;
    uint z1;
    uint index[K - 1];
};

template <short K>
static inline turbo_bits<K> turbo_load(device const uint8_t * planes, short e) {
    device const uint16_t * p = (device const uint16_t *) planes; // blocks lie on even addresses
    const short w = e/16;
    const short s = e%16;

    const uint u = ((uint) p[w] << 16 | p[(w + 3)%4]) >> s;

    turbo_bits<K> res;
    res.z0 = u >> 14 ^ u >> 12;
    res.z1 = u >> 16 ^ u >> 15 ^ u >> 10;
    FOR_UNROLL (short k = 1; k < K; ++k) {
        res.index[k - 1] = (uint) p[4*k + w] >> s;
    }
    return res;
}

template <short K>
static inline float turbo_level(turbo_bits<K> bits, short i) {
    uint number = (bits.z0 >> i & 1) | (bits.z1 >> i & 1) << 1;
    FOR_UNROLL (short k = 1; k < K; ++k) {
        number |= (bits.index[k - 1] >> i & 1) << (k + 1);
    }
    return (float) turbo::level_of<K>((int) number);
}

// values 16 il to 16 il + 15
template <short K, typename type4x4>
static inline void turbo_dequantize(device const uint8_t * planes, float d, short il, thread type4x4 & reg) {
    const turbo_bits<K> bits = turbo_load<K>(planes, 16*il);

    float4x4 reg_f;
    FOR_UNROLL (short i = 0; i < 16; ++i) {
        reg_f[i/4][i%4] = d*turbo_level<K>(bits, i);
    }

    reg = (type4x4) reg_f;
}

// values 4 il to 4 il + 3
template <short K, typename type4>
static inline void turbo_dequantize_t4(device const uint8_t * planes, float d, short il, thread type4 & reg) {
    const turbo_bits<K> bits = turbo_load<K>(planes, 4*il);

    float4 reg_f;
    FOR_UNROLL (short i = 0; i < 4; ++i) {
        reg_f[i] = d*turbo_level<K>(bits, i);
    }

    reg = (type4) reg_f;
}

#define TURBO_DEQUANTIZE(K)                                                                          \
    template <typename type4x4>                                                                      \
    void dequantize_turbo##K(device const block_turbo##K * xb, short il, thread type4x4 & reg) {     \
        turbo_dequantize<K>(xb->planes, (float) xb->d, il, reg);                                     \
    }                                                                                                \
    template <typename type4>                                                                        \
    void dequantize_turbo##K##_t4(device const block_turbo##K * xb, short il, thread type4 & reg) {  \
        turbo_dequantize_t4<K>(xb->planes, (float) xb->d, il, reg);                                  \
    }

TURBO_DEQUANTIZE(2)
TURBO_DEQUANTIZE(3)
TURBO_DEQUANTIZE(4)

#undef TURBO_DEQUANTIZE

//
// encoding: a simdgroup searches at one scale. Thread l has values l and l + 32, and states 2 l and 2 l + 1 of the
// trellis in the halves of a word. The numbers are those of turbo-codec.h, which has the search for one thread
//

// of a block's values in the order of turbo::running_sums
static inline float turbo_sum(float x0, float x1, ushort l) {
    float sum = 0.0f;
    FOR_UNROLL (ushort j = 0; j < 8; ++j) {
        sum = turbo::add(sum, simd_shuffle(j < 4 ? x0 : x1, (8*j + l%8)%32));
    }
    sum = turbo::add(sum, simd_shuffle_xor(sum, 4));
    sum = turbo::add(sum, simd_shuffle_xor(sum, 2));
    sum = turbo::add(sum, simd_shuffle_xor(sum, 1));
    return sum;
}

// A block's values at a magnitude at which nothing overflows, as in turbo::values.
struct turbo_values {
    float y[2];
    float extent;
    int   exponent;
};

static inline turbo_values turbo_normalize(float x0, float x1, ushort l) {
    turbo_values v = { { x0, x1 }, 0.0f, 0 };

    uint peak = 0;
    FOR_UNROLL (short h = 0; h < 2; ++h) {
        const uint magnitude = turbo::bits_of(v.y[h]) & 0x7fffffff;
        if (magnitude < 0x7f800000) {
            peak = max(peak, magnitude);
        } else {
            v.y[h] = 0.0f;
        }
    }
    peak = simd_max(peak);
    // below f16's smallest scale times the largest level
    if (turbo::float_of(peak) < 1e-9f) {
        return v;
    }
    // 2^-127 would be subnormal
    v.exponent = min((int) (peak >> 23) - 127, 126);
    const float factor = turbo::power(-v.exponent);
    v.y[0] = turbo::mul(v.y[0], factor);
    v.y[1] = turbo::mul(v.y[1], factor);

    const float yy  = turbo_sum(turbo::mul(v.y[0], v.y[0]), turbo::mul(v.y[1], v.y[1]), l);
    const float rms = turbo::root(turbo::mul(yy, 1.0f/turbo::QK));
    v.extent = turbo::add(
            turbo::mul(TQ_EXTENT_RMS,  rms),
            turbo::mul(TQ_EXTENT_PEAK, turbo::mul(turbo::float_of(peak), factor)));
    return v;
}

// What the best paths into a thread's states cost, and, a bit for each value, whether they come from the lower of two
// predecessors.
struct turbo_trellis {
    uint  cost;
    ulong lower0; // of state 2 l
    ulong lower1; // of state 2 l + 1
};

// a step over value e
static inline void turbo_advance(thread turbo_trellis & t, uint branch_costs, short e, ushort l) {
    const ushort r = l/2;

    // what straight and crossed branches cost, by the state's own path bit
    const uint subset   = (r ^ r >> 2) & 1 ? branch_costs >> 8 : branch_costs;
    const uint one      = l & 1 ? subset >> 16 & 0xff : subset       & 0xff;
    const uint other    = l & 1 ? subset       & 0xff : subset >> 16 & 0xff;
    const uint straight = one   | other << 16;
    const uint crossed  = other | one   << 16;

    const uint a = simd_shuffle(t.cost, r)      >> 16*(l & 1) & 0xffff;
    const uint b = simd_shuffle(t.cost, r + 16) >> 16*(l & 1) & 0xffff;

    const uint low   = turbo::add_costs(a*0x00010001, straight);
    const uint high  = turbo::add_costs(b*0x00010001, crossed);
    const uint lower = turbo::not_below(high, low);

    const ulong others = ~((ulong) 1 << e);
    t.lower0 = (t.lower0 & others) | (ulong) (lower >> 15 & 1) << e;
    t.lower1 = (t.lower1 & others) | (ulong) (lower >> 31)     << e;
    t.cost = turbo::min_costs(low, high);
}

static inline void turbo_renormalize(thread turbo_trellis & t) {
    t.cost -= simd_min(min(t.cost & 0xffff, t.cost >> 16))*0x00010001;
}

// the state before value e of the best path into a state after it
static inline ushort turbo_predecessor(thread const turbo_trellis & t, ushort state, short e) {
    const uint mine  = (uint) (t.lower0 >> e & 1) | (uint) (t.lower1 >> e & 1) << 1;
    const uint lower = simd_shuffle(mine, state/2) >> (state & 1) & 1;
    return state/2 | (lower ^ 1) << 5;
}

// the path bits of value 0 to 31 and 32 to 63, as turbo::search
static inline uint2 turbo_search(uint costs0, uint costs1, ushort l) {
    turbo_trellis t = { 0, 0, 0 };

    for (short i = 0; i < 2*TQ_CONTEXT; ++i) {
        const short e = (turbo::QK - TQ_CONTEXT + i)%turbo::QK;
        turbo_advance(t, simd_shuffle(e < 32 ? costs0 : costs1, e%32), e, l);
        if (i%TQ_RENORMALIZE == TQ_RENORMALIZE - 1) {
            turbo_renormalize(t);
        }
    }
    const uint least = simd_min(min(t.cost & 0xffff, t.cost >> 16));
    ushort wrap = simd_min((ushort) ((t.cost & 0xffff) == least ? 2*l : t.cost >> 16 == least ? 2*l + 1 : 64));
    for (short e = TQ_CONTEXT - 1; e >= 0; --e) {
        wrap = turbo_predecessor(t, wrap, e);
    }

    t.cost = 0x00ff00ff & ~(wrap/2 == l ? 0xffffu << 16*(wrap & 1) : 0u);
    for (short e = 0; e < turbo::QK; ++e) {
        turbo_advance(t, simd_shuffle(e < 32 ? costs0 : costs1, e%32), e, l);
        if (e%TQ_RENORMALIZE == TQ_RENORMALIZE - 1) {
            turbo_renormalize(t);
        }
    }
    ulong  path  = 0;
    ushort state = wrap;
    for (short e = turbo::QK - 1; e >= 0; --e) {
        path |= (ulong) (state & 1) << e;
        state = turbo_predecessor(t, state, e);
    }
    return uint2((uint) path, (uint) (path >> 32));
}

// Encodes the block whose value l this thread has in x0, and value l + 32 in x1. Four simdgroups of a threadgroup work on
// it, each at one of the scales; the first of the best writes it. scores: one for each
template <short K>
static inline void turbo_encode(float x0, float x1, device half & d, device uint8_t * planes, threadgroup float * scores, ushort l, ushort sg) {
    const turbo_values v = turbo_normalize(x0, x1, l);

    float score = 0.0f;
    float scale = 0.0f;
    uint2 u     = { 0, 0 };
    uint  number[2] = { 0, 0 };

    if (v.extent > 0.0f) {
        const float factor = turbo::div(TQ_GRID_STEPS, turbo::mul(v.extent, turbo::scale_of<K>(sg)));

        const turbo::branch b0 = turbo::branch_of<K>(turbo::place_of(v.y[0], factor));
        const turbo::branch b1 = turbo::branch_of<K>(turbo::place_of(v.y[1], factor));

        u = turbo_search(b0.costs, b1.costs, l);

        const turbo::planes<2> z = turbo::numbers<1>({ { { u[0], u[1] } } });
        number[0] = b0.numbers >> 8*turbo::number_at(z, l)      & 0xff;
        number[1] = b1.numbers >> 8*turbo::number_at(z, l + 32) & 0xff;

        const int c0 = turbo::level_of<K>((int) number[0]);
        const int c1 = turbo::level_of<K>((int) number[1]);
        const float yc = turbo_sum(turbo::mul(v.y[0], (float) c0), turbo::mul(v.y[1], (float) c1), l);

        scale = turbo::div(yc, (float) simd_sum(c0*c0 + c1*c1));
        score = yc > 0.0f ? turbo::mul(yc, scale) : 0.0f;
    }

    scores[sg] = score;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    ushort best = 0;
    FOR_UNROLL (ushort i = 1; i < TQ_SCALES; ++i) {
        best = scores[i] > scores[best] ? i : best;
    }
    if (sg != best) {
        return;
    }

    // in two exact steps: 2^exponent alone may be out of range
    const int e2 = v.exponent/2;
    scale = score > 0.0f ? turbo::mul(turbo::mul(scale, turbo::power(e2)), turbo::power(v.exponent - e2)) : 0.0f;

    const uint16_t bits = turbo::half_of(min(scale, 65504.0f));
    const bool     zero = bits == 0;

    // thread i writes bits 16 i to 16 i + 15
    uint mine = l%4 < 2 ? u[0] >> 16*(l%2) : u[1] >> 16*(l%2);
    FOR_UNROLL (short k = 1; k < K; ++k) {
        const uint low  = simd_sum((number[0] >> (k + 1) & 1) << l);
        const uint high = simd_sum((number[1] >> (k + 1) & 1) << l);
        mine = l/4 == k ? (l%4 < 2 ? low : high) >> 16*(l%2) : mine;
    }
    if (l < 4*K) {
        ((device uint16_t *) planes)[l] = zero ? 0 : (uint16_t) mine;
    }
    if (l == 0) {
        d = as_type<half>(bits);
    }
}
