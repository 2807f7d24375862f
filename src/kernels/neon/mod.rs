//! NEON kernels, with or without the `dotprod` extension.

pub mod decode;
mod dequantize;
mod dot;
mod search;

use std::arch::{asm, is_aarch64_feature_detected};

use super::{Kernels, row_kernels};

/// Any ARMv8.
pub(super) static NEON: Kernels =
    Kernels { name: "neon", turbo2: rows(), turbo3: rows(), turbo4: rows() };
/// ARMv8.2 with `sdot`: Apple M1, Neoverse N1, Cortex-A76 and later.
pub(super) static NEON_DOTPROD: Kernels = Kernels {
    name: "neon-dotprod",
    turbo2: rows_dotprod(),
    turbo3: rows_dotprod(),
    turbo4: rows_dotprod(),
};

/// Whether this processor runs [`NEON`].
pub(super) fn has_neon() -> bool {
    is_aarch64_feature_detected!("neon")
}

/// Whether this processor runs [`NEON_DOTPROD`].
pub(super) fn has_neon_dotprod() -> bool {
    has_neon() && is_aarch64_feature_detected!("dotprod")
}

row_kernels!(rows, dot: vec_dot_q8_0);
row_kernels!(rows_dotprod, dot: vec_dot_q8_0_dotprod);

/// An f16, given by its little-endian bytes, as f32. Rust's `float16x4_t` is not stable yet.
#[inline]
#[target_feature(enable = "neon")]
pub fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    let value: f32;
    let bits = f32::from_bits(u16::from_le_bytes(bytes).into());
    // SAFETY: converts the low 16 bits of a register to a float; touches neither memory nor stack.
    unsafe {
        asm!("fcvt {0:s}, {1:h}", out(vreg) value, in(vreg) bits, options(pure, nomem, nostack))
    };
    value
}
