//! The trellis, seen from the decoder: 64 path bits to 64 subset numbers, and planes to levels.
//!
//! Ungerboeck's 64-state rate-1/2 code in feed-forward form, tail-biting, so that the state of
//! value `e` is path bits `e`, `e-1`, .. `e-6` (mod 64) and 64 values decode with four rotations.
//! Source: Marcellin & Fischer 1990; Ungerboeck 1982, table I (h0 = 103, h1 = 024 octal).

use super::block::{Block, QK};
use super::tables::levels;

/// High and low bit of the subset number of every value: `(z1, z0)`, bit `e` for value `e`.
pub const fn subsets(path: u64) -> (u64, u64) {
    let z1 = path ^ path.rotate_left(1) ^ path.rotate_left(6);
    let z0 = path.rotate_left(2) ^ path.rotate_left(4);
    (z1, z0)
}

/// The int8 level of every value of a block, before its scale.
pub fn decode<const K: usize>(block: &Block<K>) -> [i8; QK] {
    decode_with(block, levels(K))
}

/// [`decode`] with a table other than the format's, for training. `table`: `2^(K+1)` levels.
pub fn decode_with<const K: usize>(block: &Block<K>, table: &[i8]) -> [i8; QK] {
    let (z1, z0) = subsets(block.plane(0));
    let mut out = [0; QK];
    for (e, out) in out.iter_mut().enumerate() {
        let bit = |word: u64| (word >> e & 1) as usize;
        let index = (1..K).fold(0, |index, k| index | bit(block.plane(k)) << (k - 1));
        *out = table[index << 2 | bit(z1) << 1 | bit(z0)];
    }
    out
}
