//! NEON: four lanes.
//!
//! `smlal` adds four products of i16 to i32 sums, as fast as `fmla` does floats but from half the memory.
//! The two sums of a pair stay apart until the end.

use std::arch::aarch64::*;

use half::f16;

use super::TILE;
use super::isa::kernels;
use super::scalar::ORDER;
use super::simd::Simd;
use crate::codec::{Block, QK};
use crate::kernels::neon::decode;

enum Neon {}

macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller upholds `Simd`'s contract: the CPU has NEON, pointers are valid.
            #[allow(unused_unsafe)]
            unsafe { $body }
        })*
    };
}

impl Simd for Neon {
    const LANES: usize = 4;
    type F = float32x4_t;
    type Pairs = int16x8_t;
    /// Lanes 0 and 1 with their even and odd products apart, and lanes 2 and 3.
    type Sums = (int32x4_t, int32x4_t);

    ops! {
        load(src: *const f32) -> float32x4_t = vld1q_f32(src);
        store(dst: *mut f32, x: float32x4_t) -> () = vst1q_f32(dst, x);
        load_f16(src: *const u16) -> float32x4_t = {
            let half = vmovl_u16(vld1_u16(src));
            let sign = vshlq_n_u32::<16>(vandq_u32(half, vdupq_n_u32(0x8000)));
            let magnitude = vshlq_n_u32::<13>(vandq_u32(half, vdupq_n_u32(0x7fff)));
            // 2^112 moves a half's exponent to a float's, of subnormals too; not infinity's or NaN's.
            let finite = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(f32::from_bits(239 << 23)));
            let special = vorrq_u32(magnitude, vdupq_n_u32(0x7f80_0000));
            let is_special = vcgeq_u32(magnitude, vdupq_n_u32(0x0f80_0000));
            let magnitude = vbslq_u32(is_special, special, vreinterpretq_u32_f32(finite));
            vreinterpretq_f32_u32(vorrq_u32(sign, magnitude))
        };
        load_i8(src: *const i8) -> float32x4_t = {
            let bytes = vcreate_s8(u64::from(src.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        };
        splat_f16(src: *const u16) -> float32x4_t = vdupq_n_f32(f16::from_bits(src.read_unaligned()).to_f32());
        splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
        round(x: float32x4_t) -> float32x4_t = vrndnq_f32(x);
        scale_pow2(y: float32x4_t, n: float32x4_t) -> float32x4_t = {
            let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(y), exponent))
        };
        zero_below(x: float32x4_t, limit: float32x4_t, y: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, limit)));
        hide(x: float32x4_t, mask: float32x4_t) -> float32x4_t =
            vbslq_f32(vceqq_f32(mask, vdupq_n_f32(f32::NEG_INFINITY)), mask, x);
        sum(x: float32x4_t) -> f32 = vaddvq_f32(x);
        largest(x: float32x4_t) -> f32 = vmaxnmvq_f32(x);
        store_i16(dst: *mut i16, x: float32x4_t) -> () = vst1_s16(dst, vqmovn_s32(vcvtnq_s32_f32(x)));
        load_pairs(src: *const i16) -> int16x8_t = vld1q_s16(src);
        splat_pair(src: *const i16) -> int16x8_t = vreinterpretq_s16_s32(vdupq_n_s32(src.cast::<i32>().read_unaligned()));
        no_sums() -> (int32x4_t, int32x4_t) = (vdupq_n_s32(0), vdupq_n_s32(0));
        add_products(sums: (int32x4_t, int32x4_t), a: int16x8_t, b: int16x8_t) -> (int32x4_t, int32x4_t) =
            (vmlal_s16(sums.0, vget_low_s16(a), vget_low_s16(b)), vmlal_high_s16(sums.1, a, b));
        sums(sums: (int32x4_t, int32x4_t)) -> float32x4_t = vcvtq_f32_s32(vpaddq_s32(sums.0, sums.1));
    }
}

/// See `isa::LevelsFn`.
///
/// # Safety
/// NEON; as `isa::LevelsFn`.
#[target_feature(enable = "neon")]
unsafe fn levels<const K: usize>(
    src: *const u8,
    stride: usize,
    n: usize,
    levels: *mut i8,
    scales: *mut f32,
) {
    let mut halves = [0u16; TILE];
    // SAFETY: the caller's `n` cells are `stride` bytes apart and hold a block each, which has no alignment;
    // `levels` has 64 bytes a cell, `scales` 64 floats.
    unsafe {
        for (cell, half) in halves.iter_mut().enumerate().take(n) {
            let block = &*src.add(cell * stride).cast::<Block<K>>();
            *half = u16::from_le_bytes(block.scale);
            for (i, x) in decode::levels(block).into_iter().enumerate() {
                vst1q_s8(levels.add(cell * QK + 16 * i), x);
            }
        }
        for i in (0..n).step_by(4) {
            Neon::store(scales.add(i), Neon::load_f16(halves.as_ptr().add(i)));
        }
    }
}

/// See `isa::PackFn`: transposes 8 cells x 16 values at a time, as 16-bit units.
///
/// # Safety
/// NEON; as `isa::PackFn`.
#[target_feature(enable = "neon")]
unsafe fn pack_k(levels: *const i8, tile: *mut i16) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for cell in (0..TILE).step_by(8) {
            for value in (0..QK).step_by(16) {
                let row =
                    |i: usize| vreinterpretq_s16_s8(vld1q_s8(levels.add((cell + i) * QK + value)));
                let put = |pair: usize, x: int64x2_t| {
                    let out = tile.add(((value / 2 + pair) * TILE + cell) * 2);
                    let x = vreinterpretq_s8_s64(x);
                    vst1q_s16(out, vmovl_s8(vget_low_s8(x)));
                    vst1q_s16(out.add(8), vmovl_high_s8(x));
                };
                // Even pairs of two cells, odd pairs of two cells.
                let two = |i: usize| {
                    let (a, b) = (row(i), row(i + 1));
                    [
                        vreinterpretq_s32_s16(vtrn1q_s16(a, b)),
                        vreinterpretq_s32_s16(vtrn2q_s16(a, b)),
                    ]
                };
                let (a, b, c, d) = (two(0), two(2), two(4), two(6));
                for odd in 0..2 {
                    let low = vreinterpretq_s64_s32(vtrn1q_s32(a[odd], b[odd]));
                    let high = vreinterpretq_s64_s32(vtrn1q_s32(c[odd], d[odd]));
                    put(odd, vtrn1q_s64(low, high));
                    put(odd + 4, vtrn2q_s64(low, high));
                    let low = vreinterpretq_s64_s32(vtrn2q_s32(a[odd], b[odd]));
                    let high = vreinterpretq_s64_s32(vtrn2q_s32(c[odd], d[odd]));
                    put(odd + 2, vtrn1q_s64(low, high));
                    put(odd + 6, vtrn2q_s64(low, high));
                }
            }
        }
    }
}

/// See `isa::PackFn`: interleaves two cells and widens.
///
/// # Safety
/// NEON; as `isa::PackFn`.
#[target_feature(enable = "neon")]
unsafe fn pack_v(levels: *const i8, tile: *mut i16) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for cell in (0..TILE).step_by(2) {
            for value in (0..QK).step_by(16) {
                let even = vld1q_s8(levels.add(cell * QK + value));
                let odd = vld1q_s8(levels.add((cell + 1) * QK + value));
                let (low, high) = (vzip1q_s8(even, odd), vzip2q_s8(even, odd));
                let out = tile.add((cell / 2 * QK + value) * 2);
                vst1q_s16(out, vmovl_s8(vget_low_s8(low)));
                vst1q_s16(out.add(8), vmovl_high_s8(low));
                vst1q_s16(out.add(16), vmovl_s8(vget_low_s8(high)));
                vst1q_s16(out.add(24), vmovl_high_s8(high));
            }
        }
    }
}

/// See `isa::TransposeFn`: 4 x 4 at a time.
///
/// # Safety
/// NEON; as `isa::TransposeFn`.
#[target_feature(enable = "neon")]
unsafe fn transpose(src: *const f32, dst: *mut f32) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for row in (0..TILE).step_by(4) {
            for col in (0..TILE).step_by(4) {
                let at = |i: usize| vld1q_f32(src.add((row + i) * TILE + col));
                let put = |i: usize, x: float64x2_t| {
                    vst1q_f32(dst.add((col + i) * TILE + row), vreinterpretq_f32_f64(x));
                };
                let (a, b, c, d) = (at(0), at(1), at(2), at(3));
                let even = |a, b| vreinterpretq_f64_f32(vtrn1q_f32(a, b));
                let odd = |a, b| vreinterpretq_f64_f32(vtrn2q_f32(a, b));
                put(0, vtrn1q_f64(even(a, b), even(c, d)));
                put(1, vtrn1q_f64(odd(a, b), odd(c, d)));
                put(2, vtrn2q_f64(even(a, b), even(c, d)));
                put(3, vtrn2q_f64(odd(a, b), odd(c, d)));
            }
        }
    }
}

kernels! {
    pub(super) static KERNELS = "neon", Neon, ["neon"], order: &ORDER,
    levels: [levels::<2>, levels::<3>, levels::<4>],
    pack_k: pack_k, pack_v: pack_v, transpose: transpose
}
