//! What the quantizer's error costs: which channels of queries meet how much energy of keys.
//!
//! Rotated back, the error of a key is white. A channel of s * (k - m) has a variance in proportion to
//! |s * (k - m)|^2, over the channels that are rotated with it, so a logit has one in proportion to
//! scale^2 * sum of q_c^2 / s_c^2 * s_c'^2 * (k - m)_c'^2. Over queries and keys, with their weights, that is the
//! sum of A_cc' s_c'^2 / s_c^2. A softcap's slope is left out: candidates are judged with it.

use super::Weights;
use super::head::{Head, padded, rotation_width};
use super::kernels::{distance2, weighted_sum};

/// A of a KV head, `[dim][dim]`, for each kind of weights.
pub(super) struct Moments {
    equal: Vec<f64>,
    attention: Vec<f64>,
}

impl Moments {
    /// Sums over the queries to fit to.
    pub fn new(head: &Head) -> Self {
        let &Head { dim, dim_v, .. } = head;
        let energies: Vec<f32> = head.residuals.iter().map(|x| x * x).collect();
        let (mut equal, mut attention) = (vec![0.0; dim * dim], vec![0.0; dim * dim]);
        let (mut weights, mut result) = (Vec::new(), vec![0.0; dim_v]);
        let (mut of_query, mut of_queries, mut of_keys) =
            (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
        for token in head.fitted() {
            let cells = token.cells.clone();
            let keys = &head.keys[cells.start * dim..cells.end * dim];
            let values = &head.values[cells.start * dim_v..cells.end * dim_v];
            let energies = &energies[cells.start * dim..cells.end * dim];
            of_queries.fill(0.0);
            for query in token.heads(head.index) {
                for ((one, all), q) in of_query.iter_mut().zip(&mut of_queries).zip(query.q) {
                    *one = (query.scale * q).powi(2);
                    *all += *one;
                }
                query.attend(keys, values, &mut weights, &mut result);
                for (weight, value) in weights.iter_mut().zip(values.chunks_exact(dim_v)) {
                    *weight = weight.powi(2) * distance2(value, &result);
                }
                weighted_sum(&weights, energies, &mut of_keys);
                add_product(&mut attention, &of_query, &of_keys);
            }
            weights.clear();
            weights.extend(token.mask.iter().map(|m| f32::from(*m != f32::NEG_INFINITY)));
            weighted_sum(&weights, energies, &mut of_keys);
            add_product(&mut equal, &of_queries, &of_keys);
        }
        for sums in [&mut equal, &mut attention] {
            keep_rotated_together(sums, dim);
        }
        Self { equal, attention }
    }

    /// A under some weights: row c is of queries, column c' of keys.
    pub fn of(&self, weights: Weights) -> &[f64] {
        match weights {
            Weights::Equal => &self.equal,
            Weights::Attention => &self.attention,
        }
    }

    /// Whether nothing overflowed.
    pub fn are_finite(&self) -> bool {
        self.equal.iter().chain(&self.attention).all(|sum| sum.is_finite())
    }
}

/// `sums[i][j] += rows[i] * columns[j]`.
fn add_product(sums: &mut [f64], rows: &[f32], columns: &[f32]) {
    for (sums, row) in sums.chunks_exact_mut(columns.len()).zip(rows) {
        let row = f64::from(*row);
        sums.iter_mut().zip(columns).for_each(|(sum, column)| *sum += row * f64::from(*column));
    }
}

/// Clears what no error can reach: a rotation spreads it over its own channels alone.
fn keep_rotated_together(sums: &mut [f64], dim: usize) {
    let width = rotation_width(padded(dim));
    for (row, sums) in sums.chunks_exact_mut(dim).enumerate() {
        for (column, sum) in sums.iter_mut().enumerate() {
            if row / width != column / width {
                *sum = 0.0;
            }
        }
    }
}
