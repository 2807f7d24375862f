//! Rows of blocks to floats.
//!
//! Key instructions: `vpmovsxbd`, `vcvtdq2ps`, one `vmulps`. A level (7 bits) times an f16 scale
//! (11 bits) is exact in f32, so every ISA gives the same bits. Nothing accumulates.

use std::arch::x86_64::*;

use super::decode::levels;
use crate::codec::{Block, QK};

/// `out[64 i + e]`: scale of block `i` times its level `e`. `out`: 64 values a block.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<QK>().0) {
        let scale = _mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes(block.scale).into()));
        let scale = _mm256_broadcastss_ps(scale);
        let (a, b) = levels(block);
        let quarters = [
            _mm256_castsi256_si128(a),
            _mm256_extracti128_si256::<1>(a),
            _mm256_castsi256_si128(b),
            _mm256_extracti128_si256::<1>(b),
        ];
        for (levels, out) in quarters.into_iter().zip(out.as_chunks_mut::<16>().0) {
            let [low, high] = [levels, _mm_unpackhi_epi64(levels, levels)]
                .map(|x| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)), scale));
            // SAFETY: 8 + 8 floats into 16, at any alignment.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), low);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), high);
            }
        }
    }
}
