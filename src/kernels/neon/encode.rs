//! Row encoder, NEON: the portable encoder compiled for NEON around this ISA's search.

use super::search;
use crate::codec::Block;
use crate::codec::encode::{Tables, encode_with};
use crate::kernels::quantize_row_with;

/// Encodes a row; see [`crate::kernels::RowKernels::quantize_row`].
#[target_feature(enable = "neon")]
pub(super) fn quantize_row<const K: usize>(x: &[f32], blocks: &mut [Block<K>]) -> u64 {
    let tables = Tables::of::<K>();
    quantize_row_with(x, blocks, |x| encode_with(x, tables, |branches| search::paths(branches)))
}
