//! One KV head by itself: arrays without the other heads between.

use super::attend::Token;
use super::layer::Layer;
use crate::codec::QK;

/// Keys next to each other that share an anchor.
const RUN: usize = 64;

/// A KV head of a layer and the queries that read it.
pub(super) struct Head<'a> {
    /// Which one.
    pub index: usize,
    /// Channels of a key.
    pub dim: usize,
    /// Channels of a value.
    pub dim_v: usize,
    /// `[n_kv][dim]`.
    pub keys: Vec<f32>,
    /// `[n_kv][dim]`: keys less their anchors, which is what a cache quantizes.
    pub residuals: Vec<f32>,
    /// `[n_kv][dim_v]`.
    pub values: Vec<f32>,
    tokens: &'a [Token<'a>],
}

impl<'a> Head<'a> {
    /// KV head `index` of a layer whose `tokens` these are.
    pub fn new(layer: &Layer, tokens: &'a [Token<'a>], index: usize) -> Self {
        let (dim, dim_v) = (layer.head_dim, layer.head_dim_v);
        let rows = |array: &[f32], n: usize| {
            let rows = array.chunks_exact(n).skip(index).step_by(layer.n_head_kv);
            rows.flatten().copied().collect::<Vec<f32>>()
        };
        let keys = rows(layer.k, dim);
        let residuals = residuals(&keys, dim);
        Self { index, dim, dim_v, keys, residuals, values: rows(layer.v, dim_v), tokens }
    }

    /// The queries to fit to.
    pub fn fitted(&self) -> impl Iterator<Item = &'a Token<'a>> {
        self.tokens.iter().filter(|token| token.index.is_multiple_of(2))
    }

    /// The queries that judge.
    pub fn judging(&self) -> impl Iterator<Item = &'a Token<'a>> {
        self.tokens.iter().filter(|token| !token.index.is_multiple_of(2))
    }
}

/// `keys`, `[n_kv][dim]`, less the mean of their run.
///
/// The first key is its own anchor and in no mean: it is unlike the others, and gets most of the attention.
fn residuals(keys: &[f32], dim: usize) -> Vec<f32> {
    let mut residuals = keys.to_vec();
    let (first, others) = residuals.split_at_mut(dim);
    first.fill(0.0);
    for run in others.chunks_mut(RUN * dim) {
        let mut anchor = vec![0.0f64; dim];
        let share = dim as f64 / run.len() as f64;
        for key in run.chunks_exact(dim) {
            anchor.iter_mut().zip(key).for_each(|(m, k)| *m += f64::from(*k) * share);
        }
        for key in run.chunks_exact_mut(dim) {
            key.iter_mut().zip(&anchor).for_each(|(k, m)| *k -= *m as f32);
        }
    }
    residuals
}

/// Values that a key takes in the cache: whole blocks, of which the last one may end in zeros.
pub(super) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(QK)
}

/// Values that the cache rotates together: as many as the largest power of two that divides a padded key.
pub(super) fn rotation_width(padded: usize) -> usize {
    1 << padded.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_means_of_64_keys_after_the_first() {
        // Cell i's key is [i, -2i]; 1 + 64 + 3 cells.
        let keys: Vec<f32> = (0..68).flat_map(|i| [i as f32, -2.0 * i as f32]).collect();
        let anchor = |i: usize| match i {
            0 => 0.0,
            1..65 => 32.5,
            _ => 66.0,
        };
        for (i, residual) in residuals(&keys, 2).chunks_exact(2).enumerate() {
            let expected = i as f32 - anchor(i);
            assert_eq!(residual, [expected, -2.0 * expected]);
        }
    }

    #[test]
    fn rotations_are_as_wide_as_a_power_of_two_can_be() {
        assert_eq!([64, 128, 192, 256, 320].map(rotation_width), [64, 128, 64, 256, 64]);
        assert_eq!([1, 40, 64, 80, 112, 160].map(padded), [64, 64, 64, 128, 128, 192]);
    }
}
