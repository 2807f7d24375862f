#pragma once

// The turbo types in Metal: what decodes and encodes a block. Follows common.h and dequantize.h.

#include "turbo-codec-lanes.h"

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
// encoding
//

// Encodes the block whose value l this thread has in x0, and value l + 32 in x1. Four simdgroups of a threadgroup work on
// it, each at one of the scales; the first of the best writes it. scores: one for each
template <short K>
static inline void turbo_encode(float x0, float x1, device half & d, device uint8_t * planes, threadgroup float * scores, ushort l, ushort sg) {
    const turbo::lane_values v = turbo::normalize(x0, x1, l);

    turbo::lane_candidate c = { { { 0, 0 } }, { 0, 0 }, 0.0f, 0.0f };
    if (v.extent > 0.0f) {
        c = turbo::encode<K>(v, sg, l);
    }

    scores[sg] = c.score;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    ushort best = 0;
    FOR_UNROLL (ushort i = 1; i < TQ_SCALES; ++i) {
        best = scores[i] > scores[best] ? i : best;
    }
    if (sg != best) {
        return;
    }

    const uint16_t scale = c.score > 0.0f ? turbo::scale_bits(c.scale, v.exponent) : 0;
    const uint16_t word  = turbo::planes_word<K>(c, l);
    if (l < 4*K) {
        ((device uint16_t *) planes)[l] = scale ? word : 0;
    }
    if (l == 0) {
        d = as_type<half>(scale);
    }
}
