//! Scales of key channels that make quantized keys cost attention less, fitted to captured queries, keys
//! and values.
//!
//! Attention does not change if channel c of the keys is multiplied by s_c and that of the queries divided by
//! it. What changes is the error: a cache holds H(s * (k - m)) in a few bits, with H a Hadamard rotation and m
//! the key's anchor, and the rotation gives every channel the same share of the error. Scales move it from
//! channels that queries weigh most to those that they hardly read.
//!
//! Per KV head:
//!
//! 1. `moments`: A_cc', what a relative error of channel c' costs through channel c, under each of [`Weights`].
//! 2. `balance`: the scales that minimise the sum of A_cc' s_c'^2 / s_c^2, equal in each of RoPE's pairs.
//! 3. `simulate`: attention with quantized keys, for the scales to each power of [`CANDIDATES`] and for none.
//!    The least error wins.
//!
//! Steps 1 and 3 take turns with the queries, so that no candidate is judged by what it was fitted to.

mod attend;
mod balance;
mod head;
mod kernels;
mod layer;
mod moments;
mod pairs;
mod simulate;
#[cfg(test)]
pub(crate) mod tests;
mod text;

#[cfg(feature = "capi")]
pub(crate) use layer::array_len;
pub use layer::{FitError, Layer, Operand, Queries};
pub use pairs::Pairs;
#[cfg(feature = "capi")]
pub(crate) use text::TERMINATED;
pub use text::TEXT;

use rayon::prelude::*;

use balance::{balance, bounded};
use head::Head;
use moments::Moments;
use simulate::Judge;

/// How much a (query, key) pair counts in a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Every pair that the mask shows as much as any other: the error of logits.
    Equal,
    /// By (p |v - o|)^2, with p the key's attention, v its value and o the query's result: to first order, what
    /// an error of the pair's logit does to o.
    Attention,
}

/// One way to choose scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The weights of the fit.
    pub weights: Weights,
    /// What the best scales are raised to: below 1 is cautious, for they were fitted to a sample.
    pub power: f32,
}

/// The candidates that [`fit`] compares, beside none at all.
///
/// Of 108 heads of two models, powers of 0.5 won 11; without them errors are 1% larger and the fit a quarter
/// shorter.
pub const CANDIDATES: [Candidate; 4] = [
    Candidate { weights: Weights::Equal, power: 0.75 },
    Candidate { weights: Weights::Equal, power: 1.0 },
    Candidate { weights: Weights::Attention, power: 0.75 },
    Candidate { weights: Weights::Attention, power: 1.0 },
];

/// The scales of a KV head's key channels.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFit {
    /// `[head_dim]`, each in 1/64 ..= 64, equal in a pair; their geometric mean is 1.
    pub scale: Vec<f32>,
    /// Where they are from; none: no candidate was better than scales of 1, which these are.
    pub candidate: Option<Candidate>,
    /// Error of attention with quantized keys and no scales: sum |o' - o|^2 / sum |o|^2.
    pub error_without: f64,
    /// The same with these scales; never more.
    pub error_with: f64,
}

/// Scales for each KV head of a layer, computed on the current rayon pool. The same whatever its threads.
///
/// Errors: shapes that do not fit each other, too little data, or numbers that are not finite.
pub fn fit(layer: &Layer) -> Result<Vec<HeadFit>, FitError> {
    let tokens = layer.tokens()?;
    let heads = (0..layer.n_head_kv).into_par_iter();
    let fits: Vec<_> =
        heads.map(|head| fit_head(&Head::new(layer, &tokens, head), layer.pairs)).collect();
    // Of several errors that of the first head, whichever came first.
    fits.into_iter().collect()
}

fn fit_head(head: &Head, pairs: Pairs) -> Result<HeadFit, FitError> {
    let overflow = FitError::Overflow { head: head.index };
    let moments = Moments::new(head);
    if !moments.are_finite() {
        return Err(overflow);
    }
    let groups = pairs.groups(head.dim);
    let fitted = [Weights::Equal, Weights::Attention]
        .map(|weights| (weights, balance(moments.of(weights), &groups)));
    let scales = |candidate: &Candidate| {
        let (_, logs) = fitted
            .iter()
            .find(|(weights, _)| *weights == candidate.weights)
            .expect("one fit for each of `Weights`");
        bounded(logs, candidate.power)
    };
    let mut trials = vec![(None, vec![1.0; head.dim])];
    trials.extend(CANDIDATES.iter().map(|candidate| (Some(*candidate), scales(candidate))));
    let judge = Judge::new(head);
    let errors: Vec<f64> = trials.par_iter().map(|(_, scale)| judge.error(scale)).collect();
    if errors.iter().any(|error| !error.is_finite()) {
        return Err(overflow);
    }
    // The first of equals, and none is first.
    let least = (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b]));
    let best = least.expect("none is always there");
    let (candidate, scale) = trials.swap_remove(best);
    Ok(HeadFit { scale, candidate, error_without: errors[0], error_with: errors[best] })
}
