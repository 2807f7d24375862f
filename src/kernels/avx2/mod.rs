//! AVX2 kernels (with FMA and F16C, which every AVX2 processor has), and AVX-VNNI's dot product.

pub mod decode;
mod dequantize;
mod dot;
mod search;

use std::arch::is_x86_feature_detected;

use super::{Kernels, row_kernels};

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

row_kernels!(rows, dot: vec_dot_q8_0);
row_kernels!(rows_vnni, dot: vec_dot_q8_0_vnni);
