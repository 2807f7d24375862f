// What the attention kernel needs of a warp: a product of small matrices, and pairs of halves in words.

#pragma once

#include "turbo-rows.cuh"

namespace turbo {

// the largest of all lanes
TQ_FN float largest_of_warp(float x) {
#pragma unroll
    for (int offset = LANES/2; offset > 0; offset /= 2) {
        x = fmaxf(x, shuffle_xor(x, offset));
    }
    return x;
}

// two halves, the first one low
TQ_FN uint32_t pair_of(float low, float high) {
#if defined(TQ_NVIDIA)
    const half2 x = __floats2half2_rn(low, high);
    return *(const uint32_t *) &x;
#else
    return half_of(low) | (uint32_t) half_of(high) << 16;
#endif
}

TQ_FN uint32_t pair_sub(uint32_t a, uint32_t b) {
#if defined(TQ_NVIDIA)
    const half2 x = __hsub2(*(const half2 *) &a, *(const half2 *) &b);
    return *(const uint32_t *) &x;
#else
    return pair_of(float_of_half((uint16_t) a) - float_of_half((uint16_t) b), float_of_half(a >> 16) - float_of_half(b >> 16));
#endif
}

TQ_FN uint32_t pair_mul(uint32_t a, uint32_t b) {
#if defined(TQ_NVIDIA)
    const half2 x = __hmul2(*(const half2 *) &a, *(const half2 *) &b);
    return *(const uint32_t *) &x;
#else
    return pair_of(float_of_half((uint16_t) a)*float_of_half((uint16_t) b), float_of_half(a >> 16)*float_of_half(b >> 16));
#endif
}

// Halves of two bytes that stand for byte - 128: byte i of a and byte j of b. A byte under the exponent of 1024 needs
// no conversion; the difference is exact.
template <int I, int J> TQ_FN uint32_t pair_of_bytes(uint32_t a, uint32_t b) {
    constexpr uint32_t EXPONENTS = 0x64006400;
    const uint32_t bytes = __byte_perm(a, b, I | (4 + J) << 8); // bytes 1 and 3 are byte 0 of a
    return pair_sub((bytes & 0x00ff00ff) | EXPONENTS, 0x64806480);
}

// c += a b for a warp. With g = lane/4, t = lane%4, and two halves in a word, the lane holds
//   a [16 x 16]: rows g, g + 8, g, g + 8; columns 2 t, 2 t + 1 in the first two words, 8 on in the others
//   b [16 x 8]:  column g; rows 2 t, 2 t + 1 in the first word, 8 on in the other
//   c [16 x 8]:  rows g, g, g + 8, g + 8; columns 2 t, 2 t + 1, 2 t, 2 t + 1
TQ_FN void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(TQ_SHIM)
    shim::multiply_add(c, a, b0, b1);
#elif defined(TQ_NVIDIA) && __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(TQ_NVIDIA) && __CUDA_ARCH__ >= 750
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#else
    (void) c; (void) a; (void) b0; (void) b1; // is not started on such a device
#endif
}

} // namespace turbo
