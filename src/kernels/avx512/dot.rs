//! Dot product of a turbo row and a q8_0 row.
//!
//! Key instructions: `vpdpbusd` with VNNI, else `vpmaddubsw` and `vpmaddwd`. Levels go in as
//! magnitudes (uint8), their signs are moved to the q8_0 side. A pair of products is at most
//! 2 * 127 * 127 = 32258 and fits the int16 lane that `vpmaddubsw` saturates at 32767; an int32
//! lane holds 4 products and is turned into floats every 64 values, so no n overflows.

use std::arch::x86_64::*;

use super::decode::magnitudes;
use crate::codec::Block;
use crate::kernels::BlockQ8_0;

macro_rules! vec_dot {
    ($name:ident, $features:literal, $dot:expr) => {
        #[doc = concat!("`sum(x * y)`, with ", $features, ". `y`: two blocks for each of `x`.")]
        #[target_feature(enable = $features)]
        pub(super) fn $name<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
            // Sums of 4 products each in 16 int32 lanes; the upper 8 belong to the second block.
            let dot = $dot;
            let mut sum = _mm512_setzero_ps();
            for (x, y) in x.iter().zip(y.as_chunks::<2>().0) {
                let (mx, sy) = magnitudes(x, quants(y));
                sum = _mm512_fmadd_ps(scales(x, y), _mm512_cvtepi32_ps(dot(mx, sy)), sum);
            }
            _mm512_reduce_add_ps(sum)
        }
    };
}

vec_dot!(vec_dot_q8_0, "avx512f,avx512bw", |x, y| {
    _mm512_madd_epi16(_mm512_maddubs_epi16(x, y), _mm512_set1_epi16(1))
});
vec_dot!(vec_dot_q8_0_vnni, "avx512f,avx512bw,avx512vnni", |x, y| {
    _mm512_dpbusd_epi32(_mm512_setzero_si512(), x, y)
});

/// The 64 quants of two q8_0 blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn quants([y0, y1]: &[BlockQ8_0; 2]) -> __m512i {
    // SAFETY: each `qs` has 32 bytes, and the loads take any alignment.
    let (y0, y1) = unsafe {
        (_mm256_loadu_si256(y0.qs.as_ptr().cast()), _mm256_loadu_si256(y1.qs.as_ptr().cast()))
    };
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(y0), y1)
}

/// The scale of `x` times that of its two q8_0 blocks: the first in lanes 0..8, the second in 8..16.
#[inline]
#[target_feature(enable = "avx512f")]
fn scales<const K: usize>(x: &Block<K>, [y0, y1]: &[BlockQ8_0; 2]) -> __m512 {
    let half = |bytes| i32::from(u16::from_le_bytes(bytes));
    let y = _mm_cvtph_ps(_mm_cvtsi32_si128(half(y0.d) | half(y1.d) << 16));
    let x = _mm_cvtph_ps(_mm_cvtsi32_si128(half(x.scale)));
    let d = _mm512_castps128_ps512(_mm_mul_ps(y, _mm_broadcastss_ps(x)));
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    _mm512_permutexvar_ps(lanes, d)
}
