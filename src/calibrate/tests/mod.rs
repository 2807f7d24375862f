//! Layers made up for tests, and fits of them.

mod attention;
mod errors;
mod steps;

use super::*;
use crate::codec::rng::SplitMix64;
use proptest::prelude::*;

/// Arrays of a layer. Causal: of `n_q` queries, the last one sees every key.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub n_kv: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub head_dim_v: usize,
    pub pairs: Pairs,
    pub sets: Vec<Set>,
}

/// Arrays of a set of queries.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub q: Vec<f32>,
    pub n_q: usize,
    pub n_head: usize,
    pub mask: Vec<f32>,
    pub sinks: Option<Vec<f32>>,
    pub scale: f32,
    pub softcap: f32,
    pub max_bias: f32,
}

impl Data {
    /// Gaussians: two KV heads of 64, four query heads.
    pub fn new(n_kv: usize, n_q: usize, seed: u64) -> Self {
        Self::shaped(n_kv, n_q, [2, 64, 64], 4, seed)
    }

    /// `[n_head_kv, head_dim, head_dim_v]`, and heads of queries.
    pub fn shaped(n_kv: usize, n_q: usize, kv: [usize; 3], n_head: usize, seed: u64) -> Self {
        let [n_head_kv, head_dim, head_dim_v] = kv;
        let mut rng = SplitMix64::new(seed);
        let k = rng.gaussians(n_kv * n_head_kv * head_dim);
        let v = rng.gaussians(n_kv * n_head_kv * head_dim_v);
        let hidden = |query: usize, cell: usize| cell + n_q > n_kv + query;
        let mask = (0..n_q * n_kv).map(|i| match hidden(i / n_kv, i % n_kv) {
            true => f32::NEG_INFINITY,
            false => 0.0,
        });
        let set = Set {
            q: rng.gaussians(n_q * n_head * head_dim),
            n_q,
            n_head,
            mask: mask.collect(),
            sinks: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: 0.0,
            max_bias: 0.0,
        };
        let pairs = Pairs::None;
        Self { k, v, n_kv, n_head_kv, head_dim, head_dim_v, pairs, sets: vec![set] }
    }

    /// Multiplies channel c of every key by `k(c)`, of every query by `q(c)`.
    pub fn stretch(mut self, k: impl Fn(usize) -> f32, q: impl Fn(usize) -> f32) -> Self {
        let dim = self.head_dim;
        self.k.iter_mut().enumerate().for_each(|(i, x)| *x *= k(i % dim));
        for set in &mut self.sets {
            set.q.iter_mut().enumerate().for_each(|(i, x)| *x *= q(i % dim));
        }
        self
    }

    /// Calls `call` with the layer.
    pub fn with<R>(&self, call: impl FnOnce(&Layer) -> R) -> R {
        let queries: Vec<Queries> = self.sets.iter().map(Set::queries).collect();
        let &Self { n_kv, n_head_kv, head_dim, head_dim_v, pairs, .. } = self;
        let (k, v, queries) = (&self.k, &self.v, &queries);
        call(&Layer { k, v, n_kv, n_head_kv, head_dim, head_dim_v, pairs, queries })
    }

    pub fn fit(&self) -> Result<Vec<HeadFit>, FitError> {
        self.with(fit)
    }
}

impl Set {
    pub fn queries(&self) -> Queries<'_> {
        let &Self { n_q, n_head, scale, softcap, max_bias, .. } = self;
        let (q, mask, sinks) = (&self.q, &self.mask, self.sinks.as_deref());
        Queries { q, n_q, n_head, mask, sinks, scale, softcap, max_bias }
    }
}

/// Far from 1, up and down, and no two channels alike.
fn uneven(channel: usize) -> f32 {
    (1.2 * (channel as f32 * 1.7).sin()).exp()
}

#[test]
fn unequal_channels_gain_by_half() {
    let data = Data::new(320, 48, 1).stretch(uneven, |channel| 1.0 / uneven(channel));
    for head in data.fit().unwrap() {
        assert!(head.error_without > 1e-3, "{head:?}");
        assert!(head.error_with < 0.5 * head.error_without, "{head:?}");
        let candidate = head.candidate.unwrap();
        assert!(candidate.power > 0.5, "{candidate:?}");
        // Undoes the stretch: s k and q / s are alike.
        let (low, high) = (0..64).fold((f32::MAX, 0.0f32), |(low, high), channel| {
            let left = head.scale[channel] * uneven(channel).powf(candidate.power);
            (low.min(left), high.max(left))
        });
        assert!(high / low < 2.0, "{low} {high}");
    }
}

#[test]
fn equal_channels_gain_nothing() {
    // Of 48 queries chance alone may seem to gain a fifth.
    for head in Data::new(320, 192, 2).fit().unwrap() {
        assert!(head.error_with <= head.error_without, "{head:?}");
        assert!(head.error_with > 0.9 * head.error_without, "{head:?}");
        assert!(head.scale.iter().all(|s| (0.8..1.25).contains(s)), "{head:?}");
    }
}

#[test]
fn none_is_what_keys_that_lose_nothing_get() {
    let mut data = Data::new(96, 6, 3);
    // Every key is its anchor: nothing is left to quantize.
    let key = data.k[..128].to_vec();
    data.k.chunks_exact_mut(128).for_each(|k| k.copy_from_slice(&key));
    for head in data.fit().unwrap() {
        assert!(head.candidate.is_none() && head.scale == [1.0; 64], "{head:?}");
        assert_eq!((head.error_without, head.error_with), (0.0, 0.0));
    }
}

#[test]
fn pairs_are_tied_and_others_are_not() {
    let adjacent: fn(usize) -> usize = |channel| channel ^ 1;
    let halves: fn(usize) -> usize = |channel| (channel + 24) % 48;
    for (pairs, partner) in
        [(Pairs::Adjacent { n_rot: 48 }, adjacent), (Pairs::Halves { n_rot: 48 }, halves)]
    {
        let data = Data::new(128, 16, 4).stretch(uneven, |channel| 1.0 / uneven(channel));
        for head in (Data { pairs, ..data }).fit().unwrap() {
            assert!(head.candidate.is_some());
            for channel in 0..48 {
                assert_eq!(head.scale[channel], head.scale[partner(channel)], "{pairs:?}");
            }
            let mut scales = head.scale.clone();
            scales.sort_by(f32::total_cmp);
            scales.dedup();
            assert_eq!(scales.len(), 24 + 16, "{pairs:?}");
        }
    }
}

#[test]
fn channels_without_energy_have_finite_scales() {
    let zero = |channel: usize, at: usize| if channel == at { 0.0 } else { 1.0 };
    for data in [
        Data::new(96, 8, 5).stretch(|channel| zero(channel, 3), |channel| zero(channel, 7)),
        Data::new(96, 8, 5).stretch(|_| 0.0, |_| 1.0),
        Data::new(96, 8, 5).stretch(|_| 1.0, |_| 0.0),
        Data { v: vec![0.0; 96 * 128], ..Data::new(96, 8, 5) },
    ] {
        for head in data.fit().unwrap() {
            assert!(head.scale.iter().all(|s| s.is_finite() && *s > 0.0), "{head:?}");
            assert!(head.error_with <= head.error_without, "{head:?}");
        }
    }
}

#[test]
fn one_key_is_enough() {
    let mut data = Data::new(1, 2, 6);
    data.sets[0].mask.fill(0.0);
    for head in data.fit().unwrap() {
        assert_eq!((head.error_with, head.candidate), (0.0, None));
    }
}

/// One KV head of a layer and the query heads that read it, as a layer.
fn only(data: &Data, kv_head: usize) -> Data {
    let pick = |array: &[f32], of: usize, heads: std::ops::Range<usize>, dim: usize| {
        let rows = array.chunks_exact(of * dim);
        rows.flat_map(|row| row[heads.start * dim..heads.end * dim].to_vec()).collect::<Vec<_>>()
    };
    let &Data { n_head_kv, head_dim, head_dim_v, .. } = data;
    let sets = data.sets.iter().map(|set| {
        let group = set.n_head / n_head_kv;
        let heads = kv_head * group..(kv_head + 1) * group;
        let sinks = set.sinks.as_ref().map(|sinks| sinks[heads.clone()].to_vec());
        Set { q: pick(&set.q, set.n_head, heads, head_dim), n_head: group, sinks, ..set.clone() }
    });
    Data {
        k: pick(&data.k, n_head_kv, kv_head..kv_head + 1, head_dim),
        v: pick(&data.v, n_head_kv, kv_head..kv_head + 1, head_dim_v),
        n_head_kv: 1,
        sets: sets.collect(),
        ..data.clone()
    }
}

#[test]
fn heads_are_fitted_by_themselves() {
    let mut data = Data::shaped(96, 10, [3, 64, 40], 6, 7).stretch(uneven, |_| 1.0);
    let mut other = Data::shaped(96, 5, [3, 64, 40], 3, 8).sets.remove(0);
    other.sinks = Some(vec![0.5, 1.0, -1.0]);
    data.sets.push(other);
    let heads = data.fit().unwrap();
    assert_eq!(heads.len(), 3);
    for (kv_head, head) in heads.iter().enumerate() {
        assert_eq!(only(&data, kv_head).fit().unwrap(), std::slice::from_ref(head));
    }
}

#[test]
fn every_set_of_queries_counts() {
    let data = Data::new(128, 16, 9);
    let stretched = data.clone().stretch(|_| 1.0, uneven);
    let both = Data { sets: [data.sets.clone(), stretched.sets].concat(), ..data.clone() };
    let (one, two) = (data.fit().unwrap(), both.fit().unwrap());
    for (one, two) in one.iter().zip(&two) {
        assert!(two.error_with < one.error_without && two.scale != one.scale, "{one:?} {two:?}");
    }
}

#[test]
fn threads_change_nothing() {
    let data = Data::new(128, 8, 10).stretch(uneven, |_| 1.0);
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    assert_eq!(pool(1).install(|| data.fit()), pool(3).install(|| data.fit()));
}

fn pairs(head_dim: usize) -> impl Strategy<Value = Pairs> {
    (0..3, 0..=head_dim / 2).prop_map(|(kind, half)| match kind {
        0 => Pairs::None,
        1 => Pairs::Adjacent { n_rot: 2 * half },
        _ => Pairs::Halves { n_rot: 2 * half },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn scales_are_positive_tied_and_of_mean_one(
        n_kv in 1usize..90,
        n_q in 2usize..5,
        (head_dim, pairs) in (8usize..=192).prop_flat_map(|n| (Just(n), pairs(n))),
        (size_k, size_q) in (-8i32..8, -8i32..8),
        spread in 0.0f32..4.0,
        seed: u64,
    ) {
        let mut data = Data::shaped(n_kv, n_q, [2, head_dim, 33], 2, seed).stretch(
            |channel| 10f32.powi(size_k) * uneven(channel).powf(spread),
            |channel| 10f32.powi(size_q) * uneven(channel + 1).powf(spread),
        );
        data.sets[0].mask.fill(0.0);
        data.pairs = pairs;
        let groups = pairs.groups(head_dim);
        for head in data.fit().unwrap() {
            prop_assert_eq!(head.scale.len(), head_dim);
            prop_assert!(head.scale.iter().all(|s| (0.0156..=64.001).contains(s)), "{:?}", head);
            let logs: f64 = head.scale.iter().map(|s| f64::from(*s).ln()).sum();
            prop_assert!((logs / head.scale.len() as f64).abs() < 1e-6, "{}", logs);
            for (scale, group) in head.scale.iter().zip(&groups) {
                let first = groups.iter().position(|g| g == group).unwrap();
                prop_assert_eq!(*scale, head.scale[first]);
            }
            prop_assert!(head.error_with <= head.error_without, "{:?}", head);
        }
    }
}
