//! Rows of blocks to floats.
//!
//! Key instructions: `vpmovsxbd`, `vcvtdq2ps`, one `vmulps`. A level (7 bits) times an f16 scale
//! (11 bits) is exact in f32, so every ISA gives the same bits. Nothing accumulates.

use std::arch::x86_64::*;

use super::decode::levels;
use crate::codec::{Block, QK};

/// `out[64 i + e]`: scale of block `i` times its level `e`. `out`: 64 values a block.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<QK>().0) {
        let scale = _mm_cvtph_ps(_mm_cvtsi32_si128(u16::from_le_bytes(block.scale).into()));
        let scale = _mm512_broadcastss_ps(scale);
        let x = levels(block);
        let quarters = [
            _mm512_castsi512_si128(x),
            _mm512_extracti32x4_epi32::<1>(x),
            _mm512_extracti32x4_epi32::<2>(x),
            _mm512_extracti32x4_epi32::<3>(x),
        ];
        for (levels, out) in quarters.into_iter().zip(out.as_chunks_mut::<16>().0) {
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(levels)), scale);
            // SAFETY: 16 floats into 16, at any alignment.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) }
        }
    }
}
