//! Portable kernels: what runs where there is no vector unit that we know, and the reading copy.
//!
//! `u64` arithmetic does eight values at a time: 8 bits of each of 4 planes make one 32-bit word, and
//! two delta swaps turn it into 8 nibbles. The dot product adds 32 products of at most 127 * 128
//! in an i32; it would overflow at 132,104 of them.

use super::fold::{Table, fold};
use super::{BlockQ8_0, Kernels, RowKernels, check_dot, check_row, quantize_row_with};
use crate::codec::encode::encode;
use crate::codec::{Block, QK};

/// The portable kernels.
pub(super) static KERNELS: Kernels =
    Kernels { name: "scalar", turbo2: rows(), turbo3: rows(), turbo4: rows() };

const fn rows<const K: usize>() -> RowKernels<K> {
    RowKernels {
        quantize_row: |x, blocks| quantize_row_with(x, blocks, encode),
        dequantize_row,
        vec_dot_q8_0,
    }
}

/// The int8 levels of `block`, in order. No scale applied.
#[inline]
pub fn levels<const K: usize>(block: &Block<K>) -> [i8; QK] {
    let (index, sign) = fold(block);
    let mut out = [0; QK];
    for (group, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let byte = |plane: u64| (plane >> (8 * group)) as u8;
        let word = u32::from_le_bytes(index.map(byte));
        let word = delta_swap(delta_swap(word, 7, 0x00aa_00aa), 14, 0x0000_cccc);
        // Byte j holds the indices of values j and 4 + j.
        let sign = byte(sign);
        for (e, out) in out.iter_mut().enumerate() {
            let level = Table::<K>::BYTES[(word >> (8 * (e % 4) + e / 4 * 4) & 15) as usize];
            *out = if K == 4 && sign >> e & 1 == 0 { -level } else { level };
        }
    }
    out
}

/// Exchanges the bits under `mask` with those `shift` places above them.
fn delta_swap(x: u32, shift: u32, mask: u32) -> u32 {
    let t = (x ^ x >> shift) & mask;
    x ^ t ^ t << shift
}

fn dequantize_row<const K: usize>(blocks: &[Block<K>], out: &mut [f32]) {
    check_row(blocks, out.len());
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<QK>().0) {
        let scale = block.scale();
        *out = levels(block).map(|level| scale * f32::from(level));
    }
}

fn vec_dot_q8_0<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) -> f32 {
    check_dot(x, y);
    let mut sum = 0.0;
    for (x, [y0, y1]) in x.iter().zip(y.as_chunks::<2>().0) {
        let levels = levels(x);
        let dot = |at: usize, y: &BlockQ8_0| {
            let products =
                levels[at..].iter().zip(&y.qs).map(|(&l, &q)| i32::from(l) * i32::from(q));
            products.sum::<i32>() as f32
        };
        sum += x.scale() * (y0.d() * dot(0, y0) + y1.d() * dot(32, y1));
    }
    sum
}
