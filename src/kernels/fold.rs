//! What every vector decoder shares: four index planes and a table of sixteen levels.
//!
//! A byte shuffle looks up 16 entries. turbo2 and turbo3 have 8 and 16 levels and fit. turbo4 has 32,
//! antisymmetric: `level[31 - i] == -level[i]`. So its top plane is taken as the sign, XORed into the
//! four planes below it, and the magnitude comes out of a table half as long.

use crate::codec::{Block, levels, trellis::subsets};

/// Table of turbo`K`'s shuffle: `value = TABLE[index]`, or `±TABLE[index]` for K = 4.
///
/// K = 2 repeats its 8 levels; K = 4 holds magnitudes, largest first, so that the sign plane
/// can be XORed in as it is.
pub(super) const fn table<const K: usize>() -> [i8; 16] {
    let levels = levels(K);
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        table[i] = match K {
            4 => levels[31 - i],
            _ => levels[i % levels.len()],
        };
        i += 1;
    }
    table
}

/// Checks the table when compiled: `Table::<K>::BYTES`.
pub(super) struct Table<const K: usize>;

impl<const K: usize> Table<K> {
    pub(super) const BYTES: [i8; 16] = {
        assert!(is_antisymmetric(levels(K)), "the sign plane needs an antisymmetric table");
        table::<K>()
    };
}

/// Whether `table[n - 1 - i] == -table[i]`, with all negative entries first.
const fn is_antisymmetric(table: &[i8]) -> bool {
    let mut i = 0;
    while i < table.len() / 2 {
        let (low, high) = (table[i], table[table.len() - 1 - i]);
        if low == i8::MIN || high != -low || low > 0 {
            return false;
        }
        i += 1;
    }
    true
}

/// Planes of the table index, bit 0 first, and the sign plane (0 means negative; turbo4 only).
///
/// The planes are an exact function of any 64-bit words: there is no invalid block.
#[inline(always)]
pub(super) fn fold<const K: usize>(block: &Block<K>) -> ([u64; 4], u64) {
    let (z1, z0) = subsets(block.plane(0));
    match K {
        2 => ([z0, z1, block.plane(1), 0], 0),
        3 => ([z0, z1, block.plane(1), block.plane(2)], 0),
        _ => {
            let sign = block.plane(3);
            ([z0 ^ sign, z1 ^ sign, block.plane(1) ^ sign, block.plane(2) ^ sign], sign)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::trellis;

    fn check<const K: usize>(block: &Block<K>) {
        let (index, sign) = fold(block);
        let expected = trellis::decode(block);
        for (e, expected) in expected.into_iter().enumerate() {
            let i = (0..4).fold(0, |i, p| i | (index[p] >> e & 1) << p) as usize;
            let level = table::<K>()[i];
            let negate = K == 4 && sign >> e & 1 == 0;
            let level = if negate { -level } else { level };
            assert_eq!(level, expected, "turbo{K}, value {e}");
        }
    }

    #[test]
    fn folded_planes_and_table_give_the_levels() {
        for seed in 0..64u64 {
            let word =
                |k: u64| (seed * 4 + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            check(&Block { scale: [0; 2], planes: [word(0), word(1)] });
            check(&Block { scale: [0; 2], planes: [word(0), word(1), word(2)] });
            check(&Block { scale: [0; 2], planes: [word(0), word(1), word(2), word(3)] });
        }
    }
}
