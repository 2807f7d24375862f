//! Attention of one query, as `ggml_flash_attn_ext` has it, in f32.

use std::ops::Range;

use super::kernels::{dots, weighted_sum};
use super::layer::{Layer, Queries};
use crate::attention::alibi_slope;

/// What the heads of a query share.
#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    queries: Queries<'a>,
    n_head_kv: usize,
    /// Index in the set.
    pub index: usize,
    /// From the first to the last cell that is seen.
    pub cells: Range<usize>,
    /// The mask of `cells`.
    pub mask: &'a [f32],
}

impl<'a> Token<'a> {
    /// Query `index` of a set; none if it sees no cell. Lengths have been checked.
    pub fn new(layer: &Layer<'a>, queries: &Queries<'a>, index: usize) -> Option<Self> {
        let mask = &queries.mask[index * layer.n_kv..][..layer.n_kv];
        let seen = |mask: &f32| *mask != f32::NEG_INFINITY;
        let cells = mask.iter().position(seen)?..mask.iter().rposition(seen)? + 1;
        let mask = &mask[cells.clone()];
        Some(Self { queries: *queries, n_head_kv: layer.n_head_kv, index, cells, mask })
    }

    /// The heads that read a KV head.
    pub fn heads(&self, kv_head: usize) -> impl Iterator<Item = Query<'a>> {
        let Self { ref queries, n_head_kv, index, mask, .. } = *self;
        let &Queries { q, n_q, n_head, sinks, scale, softcap, max_bias, .. } = queries;
        let (head_dim, group) = (q.len() / n_q / n_head, n_head / n_head_kv);
        (kv_head * group..(kv_head + 1) * group).map(move |head| Query {
            q: &q[(index * n_head + head) * head_dim..][..head_dim],
            mask,
            scale,
            softcap,
            slope: alibi_slope(max_bias, n_head, head),
            sink: sinks.map(|sinks| sinks[head]),
        })
    }
}

/// One head of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    /// `[head_dim]`.
    pub q: &'a [f32],
    /// Factor of the logits.
    pub scale: f32,
    /// Of the cells from the first to the last that is seen.
    mask: &'a [f32],
    softcap: f32,
    slope: f32,
    sink: Option<f32>,
}

impl Query<'_> {
    /// The attention that each cell gets, in `weights`, and the result, in `out`.
    ///
    /// `keys`, `values`: of the cells that `mask` is of, `[cells][head_dim]` and `[cells][out.len()]`.
    pub fn attend(&self, keys: &[f32], values: &[f32], weights: &mut Vec<f32>, out: &mut [f32]) {
        weights.resize(self.mask.len(), 0.0);
        dots(self.q, keys, weights);
        let mut largest = self.sink.unwrap_or(f32::NEG_INFINITY);
        for (logit, mask) in weights.iter_mut().zip(self.mask) {
            *logit = self.logit(*logit, *mask);
            largest = largest.max(*logit);
        }
        let mut sum = self.sink.map_or(0.0, |sink| f64::from((sink - largest).exp()));
        for weight in weights.iter_mut() {
            *weight = (*weight - largest).exp();
            sum += f64::from(*weight);
        }
        let norm = (1.0 / sum) as f32;
        weights.iter_mut().for_each(|weight| *weight *= norm);
        weighted_sum(weights, values, out);
    }

    fn logit(&self, dot: f32, mask: f32) -> f32 {
        // Not left to the sum below: a slope that underflows to 0 would make NaN of it.
        if mask == f32::NEG_INFINITY {
            return mask;
        }
        let logit = self.scale * dot;
        let capped = match self.softcap {
            0.0 => logit,
            cap => cap * (logit / cap).tanh(),
        };
        capped + self.slope * mask
    }
}
