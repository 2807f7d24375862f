//! Rows of blocks to floats.
//!
//! Key instructions: `sxtl`, `scvtf`, one `fmul`. A level (7 bits) times an f16 scale (11 bits) is
//! exact in f32, so every ISA gives the same bits. Nothing accumulates.

use std::arch::aarch64::*;

use super::decode::levels;
use super::f16_to_f32;
use crate::codec::{Block, QK};

/// `out[64 i + e]`: scale of block `i` times its level `e`. `out`: 64 values a block.
#[target_feature(enable = "neon")]
pub(super) fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<QK>().0) {
        let scale = f16_to_f32(block.scale);
        for (levels, out) in levels(block).into_iter().zip(out.as_chunks_mut::<16>().0) {
            let (a, b) = (vmovl_s8(vget_low_s8(levels)), vmovl_high_s8(levels));
            let words = [
                vmovl_s16(vget_low_s16(a)),
                vmovl_high_s16(a),
                vmovl_s16(vget_low_s16(b)),
                vmovl_high_s16(b),
            ];
            for (words, out) in words.into_iter().zip(out.as_chunks_mut::<4>().0) {
                // SAFETY: 4 floats into 4.
                unsafe { vst1q_f32(out.as_mut_ptr(), vmulq_n_f32(vcvtq_f32_s32(words), scale)) }
            }
        }
    }
}
