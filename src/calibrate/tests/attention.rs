//! Attention of one query against its definition in f64.

use super::*;
use approx::assert_abs_diff_eq;

/// ALiBi's slopes for 8: of 4 heads those of 4, of 6 two more from between those of 8.
fn slope(max_bias: f32, head: usize) -> f64 {
    match max_bias {
        0.0 => 1.0,
        _ => [1.0 / 4.0, 1.0 / 16.0, 1.0 / 64.0, 1.0 / 256.0, 1.0 / 2.0, 1.0 / 8.0][head],
    }
}

/// The weights of the cells and the result of a query's head, from the whole mask row.
pub(super) fn naive(data: &Data, query: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
    let &Data { n_kv, n_head_kv, head_dim, head_dim_v, .. } = data;
    let set = &data.sets[0];
    let kv_head = head / (set.n_head / n_head_kv);
    let wide = |x: &f32| f64::from(*x);
    let row = |array: &[f32], row: usize, dim: usize| -> Vec<f64> {
        array[row * dim..][..dim].iter().map(wide).collect()
    };
    let q = row(&set.q, query * set.n_head + head, head_dim);
    let exps: Vec<f64> = (0..n_kv)
        .map(|cell| {
            let k = row(&data.k, cell * n_head_kv + kv_head, head_dim);
            let dot: f64 = q.iter().zip(&k).map(|(q, k)| q * k).sum();
            let (logit, cap) = (f64::from(set.scale) * dot, f64::from(set.softcap));
            let logit = if cap == 0.0 { logit } else { cap * (logit / cap).tanh() };
            (logit + slope(set.max_bias, head) * wide(&set.mask[query * n_kv + cell])).exp()
        })
        .collect();
    let sink = set.sinks.as_ref().map_or(0.0, |sinks| wide(&sinks[head]).exp());
    let sum = exps.iter().sum::<f64>() + sink;
    let weights: Vec<f64> = exps.iter().map(|exp| exp / sum).collect();
    let mut result = vec![0.0; head_dim_v];
    for (cell, weight) in weights.iter().enumerate() {
        let v = row(&data.v, cell * n_head_kv + kv_head, head_dim_v);
        result.iter_mut().zip(&v).for_each(|(o, v)| *o += weight * v);
    }
    (weights, result)
}

fn check(data: &Data) {
    data.with(|layer| {
        let tokens = layer.tokens().unwrap();
        let (mut weights, mut result) = (Vec::new(), vec![0.0; data.head_dim_v]);
        let mut seen = 0;
        for kv_head in 0..data.n_head_kv {
            let head = Head::new(layer, &tokens, kv_head);
            let group = data.sets[0].n_head / data.n_head_kv;
            for token in &tokens {
                let cells = token.cells.clone();
                let keys = &head.keys[cells.start * head.dim..cells.end * head.dim];
                let values = &head.values[cells.start * head.dim_v..cells.end * head.dim_v];
                for (i, query) in token.heads(kv_head).enumerate() {
                    query.attend(keys, values, &mut weights, &mut result);
                    let (exact_weights, exact) = naive(data, token.index, kv_head * group + i);
                    for (weight, exact) in weights.iter().zip(&exact_weights[cells.clone()]) {
                        assert_abs_diff_eq!(f64::from(*weight), *exact, epsilon = 2e-6);
                    }
                    for (result, exact) in result.iter().zip(exact) {
                        assert_abs_diff_eq!(f64::from(*result), exact, epsilon = 5e-6);
                    }
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, data.sets[0].n_q * data.sets[0].n_head);
    });
}

/// Two KV heads, six query heads, values of a width that no vector divides.
fn data(seed: u64) -> Data {
    Data::shaped(75, 5, [2, 128, 37], 6, seed).stretch(|_| 2.0, |_| 1.0)
}

#[test]
fn attention_is_as_defined() {
    check(&data(1));
}

#[test]
fn masks_hide_and_bias() {
    let mut data = data(2);
    for (i, mask) in data.sets[0].mask.iter_mut().enumerate() {
        // Hidden: the ends, so that a range is left, and cells within it.
        *mask = match i % 75 {
            0..10 | 60.. | 20 | 33..41 => f32::NEG_INFINITY,
            cell => -0.1 * cell as f32,
        };
    }
    check(&data);
    data.with(|layer| {
        assert!(layer.tokens().unwrap().iter().all(|token| token.cells == (10..60)));
    });
    data.sets[0].max_bias = 8.0;
    check(&data);
}

#[test]
fn sinks_softcap_and_alibi_are_as_defined() {
    let mut data = data(3);
    data.sets[0].sinks = Some(vec![-2.0, 0.0, 1.0, 3.0, 30.0, -100.0]);
    check(&data);
    data.sets[0].softcap = 1.5;
    check(&data);
    data.sets[0].max_bias = 8.0;
    data.sets[0].mask.iter_mut().enumerate().for_each(|(i, mask)| *mask -= (i % 75) as f32);
    check(&data);
}

#[test]
fn slopes_of_zero_hide_what_is_hidden() {
    let mut data = data(4);
    data.sets[0].max_bias = 1e30;
    for head in data.fit().unwrap() {
        assert!(head.error_without.is_finite());
    }
}
