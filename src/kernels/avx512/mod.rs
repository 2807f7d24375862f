//! AVX-512 kernels: F and BW (Skylake-X and later), with or without VNNI.

pub mod decode;
mod dequantize;
mod dot;
mod search;

use std::arch::is_x86_feature_detected;

use super::{Kernels, row_kernels};

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

row_kernels!(rows, dot: vec_dot_q8_0);
row_kernels!(rows_vnni, dot: vec_dot_q8_0_vnni);
