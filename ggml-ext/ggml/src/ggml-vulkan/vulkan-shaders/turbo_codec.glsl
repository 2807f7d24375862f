// The codec of the turbo types in GLSL: the numbers and the arithmetic of turbo-codec.h, which says more. K is the type's
// index bits, a constant.

#if !defined(TURBO_CODEC_GLSL)
#define TURBO_CODEC_GLSL

#include "turbo-tables.h"

const uint QK_TURBO = 64;

// A block in words of 16 bits: its scale, then planes of four words each.
#define TURBO_WORDS(K) (1 + 4*(K))

//
// arithmetic that is the same everywhere: rounded to nearest, products not fused with sums
//

float turbo_mul(float a, float b) { precise float x = a*b;   return x; }
float turbo_add(float a, float b) { precise float x = a + b; return x; }

// Vulkan's own quotients and roots may be off by a few units in the last place. These are for normal numbers, b > 0.
float turbo_div(float a, float b) {
    const uint ua = floatBitsToUint(a);
    const uint ub = floatBitsToUint(b);
    uint r  = (ua & 0x7fffff) | 0x800000;
    uint mb = (ub & 0x7fffff) | 0x800000;
    int  e  = int(ua >> 23 & 0xff) - int(ub >> 23 & 0xff) + 127;
    if (r < mb) {
        r <<= 1;
        --e;
    }
    // 24 bits of the quotient and one to round by
    uint q = 0;
    for (uint i = 0; i < 25; ++i) {
        q <<= 1;
        if (r >= mb) {
            r -= mb;
            q |= 1;
        }
        r <<= 1;
    }
    const uint up = q & (r != 0 ? 1u : q >> 1 & 1u);
    if ((ua & 0x7f800000) == 0 || e <= 0) {
        return 0.0;
    }
    return uintBitsToFloat((ua & 0x80000000) | ((uint(e) << 23) + (q >> 1) + up - 0x800000));
}

float turbo_root(float x) {
    const uint u = floatBitsToUint(x);
    const int  e = int(u >> 23) - 127;
    const uint m = ((u & 0x7fffff) | 0x800000) << (e & 1);
    // of m * 2^25, two bits at a time: 24 bits of the root and one to round by; it is never half way
    uint root = 0;
    uint rest = 0;
    for (int s = 48; s >= 0; s -= 2) {
        const uint pair = s >= 25 ? m >> (s - 25) & 3 : s == 24 ? m << 1 & 3 : 0;
        rest = rest << 2 | pair;
        const uint t = root << 2 | 1;
        root <<= 1;
        if (rest >= t) {
            rest -= t;
            root |= 1;
        }
    }
    return uintBitsToFloat((uint((e >> 1) + 127) << 23) + (root >> 1) + (root & 1) - 0x800000);
}

// f16's bits, to nearest, and back; subnormal ones, too, which a device may flush
uint turbo_half_of(float x) {
    const uint sign = floatBitsToUint(x) >> 16 & 0x8000;
    const uint u    = floatBitsToUint(x) & 0x7fffffff;
    if (u > 0x7f800000) {
        return 0x7e00;
    }
    if (u >= 0x477ff000) {
        return sign | 0x7c00;
    }
    const bool small = u < 0x38800000; // subnormal in f16
    const uint shift = small ? min(126 - (u >> 23), 25u) : 13;
    const uint m     = small ? (u & 0x7fffff) | 0x800000 : u - 0x38000000;
    const uint rest  = m & ((1u << shift) - 1);
    const uint half_ = 1u << (shift - 1);
    uint h = m >> shift;
    h += rest > half_ || (rest == half_ && (h & 1) != 0) ? 1 : 0;
    return sign | h;
}

float turbo_float_of_half(uint h) {
    const uint e = h & 0x7c00;
    const uint m = h & 0x3ff;
    if (e == 0) {
        const float x = float(m)*(1.0/16777216.0);
        return (h & 0x8000) != 0 ? -x : x;
    }
    return uintBitsToFloat((h & 0x8000) << 16 | (e == 0x7c00 ? 0x7f800000 : (e << 13) + 0x38000000) | m << 13);
}

// 2^e, -127 < e < 128
float turbo_power(int e) {
    return uintBitsToFloat(uint(127 + e) << 23);
}

//
// levels
//

const int turbo_levels_2[2 << 2] = int[](TQ_LEVELS_2);
const int turbo_levels_3[2 << 3] = int[](TQ_LEVELS_3);
const int turbo_levels_4[2 << 4] = int[](TQ_LEVELS_4);

// A number beyond the type's last is 0's. Where many are looked up, a table in shared memory is faster.
int turbo_level_of(uint K, uint number) {
    switch (K) {
        case 2:  return turbo_levels_2[number & 7];
        case 3:  return turbo_levels_3[number & 15];
        default: return turbo_levels_4[number & 31];
    }
}

//
// decoding
//

// Where value e is in its planes: the path's words e/16 and the one before, around the block, hold the bits of both
// rotations of it.
uint turbo_word(uint e)   { return e/16; }
uint turbo_before(uint e) { return (e/16 + 3) & 3; }

// four bits, one to a byte
uint turbo_spread(uint x) {
    return (x & 15)*0x00204081 & 0x01010101;
}

// The numbers of values e to e + 3, e % 4 == 0. path: word turbo_word(e) and below it turbo_before(e). index: the words
// of the other planes; those that the type has not are 0
uvec4 turbo_numbers(uint e, uint path, uvec3 index) {
    const uint u = path >> (e & 15);
    const uint bytes = turbo_spread(u >> 14 ^ u >> 12) | turbo_spread(u >> 16 ^ u >> 15 ^ u >> 10) << 1 |
        turbo_spread(index.x >> (e & 15)) << 2 | turbo_spread(index.y >> (e & 15)) << 3 | turbo_spread(index.z >> (e & 15)) << 4;
    return uvec4(bytes & 0xff, bytes >> 8 & 0xff, bytes >> 16 & 0xff, bytes >> 24);
}

// The numbers of values e to e + 3 of a block at word B of a buffer.
#define TURBO_NUMBERS(K, WORDS, B, E) turbo_numbers(E,                                  \
    uint(WORDS[(B) + 1 + turbo_word(E)]) << 16 | uint(WORDS[(B) + 1 + turbo_before(E)]), \
    uvec3(uint(WORDS[(B) + 5 + turbo_word(E)]),                                         \
          (K) > 2 ? uint(WORDS[(B) +  9 + turbo_word(E)]) : 0,                          \
          (K) > 3 ? uint(WORDS[(B) + 13 + turbo_word(E)]) : 0))

#endif
