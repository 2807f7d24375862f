//! AVX2 kernels (with FMA and F16C, which every AVX2 processor has), and AVX-VNNI's dot product.

pub mod decode;
mod dequantize;
mod dot;
mod encode;
mod search;

use std::arch::is_x86_feature_detected;

use super::{BlockQ8_0, Kernels, RowKernels, check_dot, check_row};
use crate::codec::Block;

/// Haswell, Zen and later.
pub(super) static AVX2: Kernels =
    Kernels { name: "avx2", turbo2: rows(), turbo3: rows(), turbo4: rows() };
/// Alder Lake, Zen 5 and later: `vpdpbusd` without AVX-512.
pub(super) static AVX2_VNNI: Kernels =
    Kernels { name: "avx2-vnni", turbo2: rows_vnni(), turbo3: rows_vnni(), turbo4: rows_vnni() };

/// Whether this processor runs [`AVX2`].
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether this processor runs [`AVX2_VNNI`].
pub(super) fn has_avx2_vnni() -> bool {
    has_avx2() && is_x86_feature_detected!("avxvnni")
}

const fn rows<const K: usize>() -> RowKernels<K> {
    RowKernels { quantize_row, dequantize_row, vec_dot_q8_0 }
}

const fn rows_vnni<const K: usize>() -> RowKernels<K> {
    RowKernels { vec_dot_q8_0: vec_dot_q8_0_vnni, ..rows() }
}

fn quantize_row<const K: usize>(x: &[f32], blocks: &mut [Block<K>]) -> u64 {
    // SAFETY: reached through the tables above only, which are handed out after `has_avx2`.
    unsafe { encode::quantize_row(x, blocks) }
}

fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    check_row(blocks, out.len());
    // SAFETY: reached through the tables above only, which are handed out after `has_avx2`.
    unsafe { dequantize::dequantize_row(blocks, out) }
}

fn vec_dot_q8_0<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
    check_dot(x, y);
    // SAFETY: reached through the tables above only, which are handed out after `has_avx2`.
    unsafe { dot::vec_dot_q8_0(x, y) }
}

fn vec_dot_q8_0_vnni<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
    check_dot(x, y);
    // SAFETY: reached through `AVX2_VNNI` only, which is handed out after `has_avx2_vnni`.
    unsafe { dot::vec_dot_q8_0_vnni(x, y) }
}
