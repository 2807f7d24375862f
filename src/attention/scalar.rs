//! One lane: the specification of the vector operations, and of the decoder.

use half::f16;

use super::TILE;
use super::isa::kernels;
use super::simd::Simd;
use crate::codec::{Block, QK, trellis};

enum Scalar {}

macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller upholds `Simd`'s contract.
            #[allow(unused_unsafe)]
            unsafe { $body }
        })*
    };
}

impl Simd for Scalar {
    const LANES: usize = 1;
    type F = f32;
    type Pairs = [i16; 2];
    type Sums = i32;

    ops! {
        load(src: *const f32) -> f32 = *src;
        store(dst: *mut f32, x: f32) -> () = *dst = x;
        load_f16(src: *const u16) -> f32 = f16::from_bits(src.read_unaligned()).to_f32();
        load_i8(src: *const i8) -> f32 = f32::from(*src);
        splat_f16(src: *const u16) -> f32 = f16::from_bits(src.read_unaligned()).to_f32();
        splat(x: f32) -> f32 = x;
        add(a: f32, b: f32) -> f32 = a + b;
        sub(a: f32, b: f32) -> f32 = a - b;
        mul(a: f32, b: f32) -> f32 = a * b;
        div(a: f32, b: f32) -> f32 = a / b;
        fma(a: f32, b: f32, c: f32) -> f32 = a * b + c;
        max(a: f32, b: f32) -> f32 = if a > b { a } else { b };
        min(a: f32, b: f32) -> f32 = if a < b { a } else { b };
        round(x: f32) -> f32 = x.round_ties_even();
        scale_pow2(y: f32, n: f32) -> f32 = y * f32::from_bits(((n as i32 + 127) << 23) as u32);
        zero_below(x: f32, limit: f32, y: f32) -> f32 = if x < limit { 0.0 } else { y };
        hide(x: f32, mask: f32) -> f32 = if mask == f32::NEG_INFINITY { mask } else { x };
        sum(x: f32) -> f32 = x;
        largest(x: f32) -> f32 = x;
        store_i16(dst: *mut i16, x: f32) -> () = *dst = x.round_ties_even() as i16;
        load_pairs(src: *const i16) -> [i16; 2] = [*src, *src.add(1)];
        splat_pair(src: *const i16) -> [i16; 2] = [*src, *src.add(1)];
        no_sums() -> i32 = 0;
        add_products(sums: i32, a: [i16; 2], b: [i16; 2]) -> i32 =
            sums + i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1]);
        sums(sums: i32) -> f32 = sums as f32;
    }
}

/// Values in their own order.
pub(super) static ORDER: [u8; QK] = {
    let mut order = [0; QK];
    let mut i = 0;
    while i < QK {
        order[i] = i as u8;
        i += 1;
    }
    order
};

/// See `isa::LevelsFn`.
unsafe fn levels<const K: usize>(
    src: *const u8,
    stride: usize,
    n: usize,
    levels: *mut i8,
    scales: *mut f32,
) {
    for cell in 0..n {
        // SAFETY: the caller's `n` cells are `stride` bytes apart and hold a block, `levels` and `scales` have room.
        unsafe {
            let bytes = std::slice::from_raw_parts(src.add(cell * stride), Block::<K>::BYTES);
            let block = Block::<K>::from_bytes(bytes);
            levels.add(cell * QK).cast::<[i8; QK]>().write(trellis::decode(&block));
            scales.add(cell).write(block.scale());
        }
    }
}

/// See `isa::PackFn`: `tile[k / 2][cell][k % 2]`.
unsafe fn pack_k(levels: *const i8, tile: *mut i16) {
    for cell in 0..TILE {
        for k in 0..QK {
            // SAFETY: both have 64 x 64 elements.
            unsafe {
                *tile.add((k / 2 * TILE + cell) * 2 + k % 2) = i16::from(*levels.add(cell * QK + k))
            }
        }
    }
}

/// See `isa::PackFn`: `tile[cell / 2][value][cell % 2]`.
unsafe fn pack_v(levels: *const i8, tile: *mut i16) {
    for cell in 0..TILE {
        for v in 0..QK {
            // SAFETY: both have 64 x 64 elements.
            unsafe {
                *tile.add((cell / 2 * QK + v) * 2 + cell % 2) =
                    i16::from(*levels.add(cell * QK + v))
            }
        }
    }
}

/// See `isa::TransposeFn`.
unsafe fn transpose(src: *const f32, dst: *mut f32) {
    for row in 0..TILE {
        for col in 0..TILE {
            // SAFETY: both have 64 x 64 elements.
            unsafe { *dst.add(col * TILE + row) = *src.add(row * TILE + col) }
        }
    }
}

kernels! {
    pub(super) static KERNELS = "scalar", Scalar, order: &ORDER,
    levels: [levels::<2>, levels::<3>, levels::<4>],
    pack_k: pack_k, pack_v: pack_v, transpose: transpose
}
