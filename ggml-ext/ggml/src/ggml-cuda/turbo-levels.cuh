// Levels of a turbo block by byte permutation: four values in an instruction or a few, no table in memory.
//
// A selector's nibble picks one of eight bytes, which is turbo2's table; the wider tables are picked from by parts, and
// one more permutation picks the part. Bytes are level + 128: a byte under an exponent is a float without conversion.

#pragma once

#include "turbo-codec.h"

namespace turbo {

// the four levels from number 4 i on
template <int N> constexpr uint32_t make_level_word(level_list<N> levels, int i) {
    uint32_t res = 0;
    for (int b = 0; b < 4; ++b) {
        res |= (uint32_t) (levels.at[4*i + b] + 128) << 8*b;
    }
    return res;
}

template <int K, int I> struct level_word;
#define TQ_LEVEL_WORD(K)                                                                                    \
    template <int I> struct level_word<K, I> {                                                              \
        static constexpr uint32_t value = make_level_word<2 << K>({ { TQ_LEVELS_##K } }, I);                \
    };
TQ_LEVEL_WORD(2)
TQ_LEVEL_WORD(3)
TQ_LEVEL_WORD(4)
#undef TQ_LEVEL_WORD

// Eight values of a block: byte b of word i is that of value 32 h + 16 i + 4 b + w.
struct eight {
    uint32_t w[2];
};

template <int K, int PART> TQ_FN uint32_t pick8(uint32_t numbers) {
    return __byte_perm(level_word<K, 2*PART>::value, level_word<K, 2*PART + 1>::value, numbers);
}

template <int K> TQ_FN eight levels_at(planes<K + 1> n, int h, int w) {
    const uint32_t low = nibbles<0, 3>(n, h, w);

    // of two words, the second where a number's bit is set
    constexpr uint32_t same = 0x32103210;
    uint32_t bit3 = 0;
    uint32_t bit4 = 0;
    if constexpr (K > 2) {
        bit3 = nibbles<3, 1, 2>(n, h, w) | same;
    }
    if constexpr (K > 3) {
        bit4 = nibbles<4, 1, 2>(n, h, w) | same;
    }

    eight res;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const uint32_t at = low >> 16*i;
        uint32_t x = pick8<K, 0>(at);
        if constexpr (K > 2) {
            x = __byte_perm(x, pick8<K, 1>(at), bit3 >> 16*i);
        }
        if constexpr (K > 3) {
            const uint32_t y = __byte_perm(pick8<K, 2>(at), pick8<K, 3>(at), bit3 >> 16*i);
            x = __byte_perm(x, y, bit4 >> 16*i);
        }
        res.w[i] = x;
    }
    return res;
}

// the level in byte b of a word
TQ_FN float level_float(uint32_t word, int b) {
    return __uint_as_float(__byte_perm(word, 0x4b000000, 0x7440 | b)) - 8388736.0f; // 2^23 + 128
}

} // namespace turbo
