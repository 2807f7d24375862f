//! Dot product of a turbo row and a q8_0 row.
//!
//! Key instructions: `vpmaddubsw` and `vpmaddwd`, or `vpdpbusd` with AVX-VNNI. Levels go in as
//! magnitudes (uint8), their signs are moved to the q8_0 side. A pair of products is at most
//! 2 * 127 * 127 = 32258 and fits the int16 lane that `vpmaddubsw` saturates at 32767; an int32
//! lane holds 8 products and is turned into floats every 64 values, so no n overflows.

use std::arch::x86_64::*;

use super::decode::magnitudes;
use crate::codec::Block;
use crate::kernels::BlockQ8_0;

macro_rules! vec_dot {
    ($name:ident, $features:literal, $dot:expr) => {
        #[doc = concat!("`sum(x * y)`, with ", $features, ". `y`: two blocks for each of `x`.")]
        #[target_feature(enable = $features)]
        pub(super) fn $name<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
            let dot = $dot;
            let mut sum = _mm256_setzero_ps();
            for (x, y) in x.iter().zip(y.as_chunks::<2>().0) {
                let ([x0, x1], [y0, y1]) = magnitudes(x, quants(y));
                let products = _mm256_add_epi32(dot(x0, y0), dot(x1, y1));
                sum = _mm256_fmadd_ps(scales(x, y), _mm256_cvtepi32_ps(products), sum);
            }
            horizontal_sum(sum)
        }
    };
}

vec_dot!(vec_dot_q8_0, "avx2,fma,f16c", |x, y| {
    _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), _mm256_set1_epi16(1))
});
vec_dot!(vec_dot_q8_0_vnni, "avx2,fma,f16c,avxvnni", |x, y| {
    _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), x, y)
});

/// Quants 0..16 and 16..32 of two q8_0 blocks, the first block's in the lower lane.
#[inline]
#[target_feature(enable = "avx2")]
fn quants([y0, y1]: &[BlockQ8_0; 2]) -> [__m256i; 2] {
    [0, 16].map(|at| {
        // SAFETY: `qs` has 32 bytes, of which 16 are read from `at`, and the loads take any alignment.
        unsafe { _mm256_loadu2_m128i(y1.qs[at..].as_ptr().cast(), y0.qs[at..].as_ptr().cast()) }
    })
}

/// The scale of `x` times that of its two q8_0 blocks: the first in the lower lane.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales<const K: usize>(x: &Block<K>, [y0, y1]: &[BlockQ8_0; 2]) -> __m256 {
    let half = |bytes| i32::from(u16::from_le_bytes(bytes));
    let y = _mm_cvtph_ps(_mm_cvtsi32_si128(half(y0.d) | half(y1.d) << 16));
    let x = _mm_cvtph_ps(_mm_cvtsi32_si128(half(x.scale)));
    let d = _mm256_castps128_ps256(_mm_mul_ps(y, _mm_broadcastss_ps(x)));
    _mm256_permutevar8x32_ps(d, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn horizontal_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
