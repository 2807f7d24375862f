//! Dot product of a turbo row and a q8_0 row.
//!
//! Key instructions: `sdot` with the `dotprod` extension, else `smull`, `smlal2`, `sadalp`.
//! An int16 lane holds two products, at most 2 * 127 * 128 = 32512 of 32767; an int32 lane holds
//! 8 products and is turned into floats every 32 values, so no n overflows.

use std::arch::aarch64::*;
use std::arch::asm;

use super::decode::levels;
use super::f16_to_f32;
use crate::codec::Block;
use crate::kernels::BlockQ8_0;

macro_rules! vec_dot {
    ($name:ident, $features:literal, $dot:ident) => {
        #[doc = concat!("`sum(x * y)`, with ", $features, ". `y`: two blocks for each of `x`.")]
        #[target_feature(enable = $features)]
        pub(super) fn $name<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
            let (mut sum0, mut sum1) = (vdupq_n_f32(0.0), vdupq_n_f32(0.0));
            for (x, [y0, y1]) in x.iter().zip(y.as_chunks::<2>().0) {
                let [a, b, c, d] = levels(x);
                let scale = f16_to_f32(x.scale);
                let [dot0, dot1] = [(a, b, y0), (c, d, y1)].map(|(low, high, y)| {
                    let (y_low, y_high) = quants(y);
                    vcvtq_f32_s32($dot($dot(vdupq_n_s32(0), low, y_low), high, y_high))
                });
                sum0 = vfmaq_n_f32(sum0, dot0, scale * f16_to_f32(y0.d));
                sum1 = vfmaq_n_f32(sum1, dot1, scale * f16_to_f32(y1.d));
            }
            vaddvq_f32(vaddq_f32(sum0, sum1))
        }
    };
}

vec_dot!(vec_dot_q8_0, "neon", widening_dot);
vec_dot!(vec_dot_q8_0_dotprod, "neon,dotprod", sdot);

#[inline]
#[target_feature(enable = "neon")]
fn quants(y: &BlockQ8_0) -> (int8x16_t, int8x16_t) {
    // SAFETY: `qs` has 32 bytes.
    unsafe { (vld1q_s8(y.qs.as_ptr()), vld1q_s8(y.qs.as_ptr().add(16))) }
}

/// Adds 4 products to each lane of `sum`.
#[inline]
#[target_feature(enable = "neon")]
fn widening_dot(sum: int32x4_t, x: int8x16_t, y: int8x16_t) -> int32x4_t {
    let pairs = vmull_s8(vget_low_s8(x), vget_low_s8(y));
    vpadalq_s16(sum, vmlal_high_s8(pairs, x, y))
}

/// Adds 4 products to each lane of `sum`. Rust's `vdotq_s32` is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub fn sdot(mut sum: int32x4_t, x: int8x16_t, y: int8x16_t) -> int32x4_t {
    // SAFETY: one arithmetic instruction of the enabled extension; touches no memory.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) x, in(vreg) y,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    sum
}
