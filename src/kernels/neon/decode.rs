//! 64 levels of a block in four NEON registers.
//!
//! Key instructions: `shl`/`bsl` pairs that interleave the bits of the planes, `zip`, and `tbl` as the
//! table. The four index planes are 256 bits, two registers; two rounds of bit interleaving and two
//! of byte interleaving turn them into 64 nibbles in order. 26 instructions for turbo2 and turbo3.
//! No arithmetic: nothing can overflow.

use std::arch::aarch64::*;

use crate::codec::Block;
use crate::kernels::fold::{Table, fold};

/// The int8 levels of `block`, in order, 16 to a register. No scale applied.
#[inline]
#[target_feature(enable = "neon")]
pub fn levels<const K: usize>(block: &Block<K>) -> [int8x16_t; 4] {
    let (index, sign) = fold(block);
    let t = Table::<K>::BYTES.map(|level| level as u8);
    let table = vreinterpretq_s8_u8(pair(
        u64::from_le_bytes(std::array::from_fn(|i| t[i])),
        u64::from_le_bytes(std::array::from_fn(|i| t[8 + i])),
    ));
    let nibbles = indices(index);
    let lookup = |i: usize| vqtbl1q_s8(table, nibbles[i]);
    let values = [lookup(0), lookup(1), lookup(2), lookup(3)];
    if K < 4 {
        return values;
    }
    let bit = pair(0x8040_2010_0804_0201, 0x8040_2010_0804_0201);
    let negate = |i: usize| {
        // Byte e of register i tests bit e % 8 of plane byte 2 i + e / 8.
        let bytes = (sign >> (16 * i)) as u16;
        let spread = vcombine_u8(vdup_n_u8(bytes as u8), vdup_n_u8((bytes >> 8) as u8));
        let negative = vreinterpretq_s8_u8(vmvnq_u8(vtstq_u8(spread, bit)));
        vsubq_s8(veorq_s8(values[i], negative), negative)
    };
    [negate(0), negate(1), negate(2), negate(3)]
}

/// Two 64-bit words in a register, the first one low.
#[inline]
#[target_feature(enable = "neon")]
fn pair(low: u64, high: u64) -> uint8x16_t {
    vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)))
}

/// Four planes, bit 0 of the index first, to 64 indices of 4 bits in bytes, in order.
#[inline]
#[target_feature(enable = "neon")]
fn indices([p0, p1, p2, p3]: [u64; 4]) -> [uint8x16_t; 4] {
    let (even, odd) = (pair(p0, p2), pair(p1, p3));
    // Bits 2 m of the planes, then bits 2 m + 1, as pairs (plane 0, plane 1) and (plane 2, plane 3).
    let mask = vdupq_n_u8(0x55);
    let e0 = vreinterpretq_u64_u8(vbslq_u8(mask, even, vshlq_n_u8::<1>(odd)));
    let e1 = vreinterpretq_u64_u8(vbslq_u8(mask, vshrq_n_u8::<1>(even), odd));
    let low = vreinterpretq_u8_u64(vzip1q_u64(e0, e1));
    let high = vreinterpretq_u8_u64(vzip2q_u64(e0, e1));
    // Nibbles: bits 4 m + j of all planes. Each register holds two j, 8 bytes for each.
    let mask = vdupq_n_u8(0x33);
    let j01 = vbslq_u8(mask, low, vshlq_n_u8::<2>(high));
    let j23 = vbslq_u8(mask, vshrq_n_u8::<2>(low), high);
    // Bytes into the order of the values: j 0 1 2 3 of byte 0, then of byte 1, and so on.
    let j01 = vreinterpretq_u16_u8(vzip1q_u8(j01, vextq_u8::<8>(j01, j01)));
    let j23 = vreinterpretq_u16_u8(vzip1q_u8(j23, vextq_u8::<8>(j23, j23)));
    let split = |x: uint16x8_t| {
        let x = vreinterpretq_u8_u16(x);
        let low = vreinterpretq_u32_u8(vandq_u8(x, vdupq_n_u8(15)));
        let high = vreinterpretq_u32_u8(vshrq_n_u8::<4>(x));
        (vreinterpretq_u8_u32(vzip1q_u32(low, high)), vreinterpretq_u8_u32(vzip2q_u32(low, high)))
    };
    let (a, b) = split(vzip1q_u16(j01, j23));
    let (c, d) = split(vzip2q_u16(j01, j23));
    [a, b, c, d]
}
