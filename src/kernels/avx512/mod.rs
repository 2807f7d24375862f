//! AVX-512 kernels: F and BW (Skylake-X and later), with or without VNNI.

pub mod decode;
mod dequantize;
mod dot;
mod encode;
mod search;

use std::arch::is_x86_feature_detected;

use super::{BlockQ8_0, Kernels, RowKernels, check_dot, check_row};
use crate::codec::Block;

/// Skylake-X.
pub(super) static AVX512: Kernels =
    Kernels { name: "avx512", turbo2: rows(), turbo3: rows(), turbo4: rows() };
/// Cascade Lake, Ice Lake, Zen 4 and later.
pub(super) static AVX512_VNNI: Kernels =
    Kernels { name: "avx512-vnni", turbo2: rows_vnni(), turbo3: rows_vnni(), turbo4: rows_vnni() };

/// Whether this processor runs [`AVX512`].
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Whether this processor runs [`AVX512_VNNI`].
pub(super) fn has_avx512_vnni() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni")
}

const fn rows<const K: usize>() -> RowKernels<K> {
    RowKernels { quantize_row, dequantize_row, vec_dot_q8_0 }
}

const fn rows_vnni<const K: usize>() -> RowKernels<K> {
    RowKernels { vec_dot_q8_0: vec_dot_q8_0_vnni, ..rows() }
}

fn quantize_row<const K: usize>(x: &[f32], blocks: &mut [Block<K>]) -> u64 {
    // SAFETY: reached through the tables above only, which are handed out after `has_avx512`.
    unsafe { encode::quantize_row(x, blocks) }
}

fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    check_row(blocks, out.len());
    // SAFETY: reached through the tables above only, which are handed out after `has_avx512`.
    unsafe { dequantize::dequantize_row(blocks, out) }
}

fn vec_dot_q8_0<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
    check_dot(x, y);
    // SAFETY: reached through the tables above only, which are handed out after `has_avx512`.
    unsafe { dot::vec_dot_q8_0(x, y) }
}

fn vec_dot_q8_0_vnni<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
    check_dot(x, y);
    // SAFETY: reached through `AVX512_VNNI` only, which is handed out after `has_avx512_vnni`.
    unsafe { dot::vec_dot_q8_0_vnni(x, y) }
}
