//! The sums that fits minimise, and the keys that judge them.

use super::*;
use crate::codec::TurboType;
use crate::codec::distortion::{relative_mse, turbo};
use approx::assert_relative_eq;

/// A under some weights, from its definition.
fn naive(layer: &Layer, head: &Head, weights: Weights) -> Vec<f64> {
    let dim = head.dim;
    let mut sums = vec![0.0; dim * dim];
    let tokens = layer.tokens().unwrap();
    for token in tokens.iter().filter(|token| token.index % 2 == 0) {
        for query in token.heads(head.index) {
            let (mut p, mut result) = (Vec::new(), vec![0.0; head.dim_v]);
            let cells = token.cells.clone();
            let keys = &head.keys[cells.start * dim..cells.end * dim];
            let values = &head.values[cells.start * head.dim_v..cells.end * head.dim_v];
            query.attend(keys, values, &mut p, &mut result);
            for (i, cell) in cells.enumerate() {
                let value = values[i * head.dim_v..][..head.dim_v].iter();
                let distance = value.zip(&result).map(|(v, o)| f64::from(v - o).powi(2));
                let weight = match weights {
                    Weights::Equal if token.mask[i] == f32::NEG_INFINITY => 0.0,
                    Weights::Equal => 1.0,
                    Weights::Attention => f64::from(p[i]).powi(2) * distance.sum::<f64>(),
                };
                for row in 0..dim {
                    let energy = f64::from(query.scale * query.q[row]).powi(2);
                    for column in (0..dim).filter(|column| column / 64 == row / 64) {
                        let residual = f64::from(head.residuals[cell * dim + column]);
                        sums[row * dim + column] += weight * energy * residual.powi(2);
                    }
                }
            }
        }
    }
    sums
}

#[test]
fn moments_are_as_defined() {
    // 192 channels are rotated in three parts, and so are 150, after which the cache has zeros.
    for dim in [192, 150] {
        let mut data = Data::shaped(40, 4, [2, dim, 21], 4, 11);
        (0..160).filter(|i| i % 7 == 3).for_each(|i| data.sets[0].mask[i] = f32::NEG_INFINITY);
        data.with(|layer| {
            let tokens = layer.tokens().unwrap();
            let head = Head::new(layer, &tokens, 1);
            let moments = Moments::new(&head);
            for weights in [Weights::Equal, Weights::Attention] {
                for (sum, exact) in moments.of(weights).iter().zip(naive(layer, &head, weights)) {
                    assert_relative_eq!(*sum, exact, max_relative = 1e-4);
                }
            }
        });
    }
}

/// Sum of squares of s x.
fn energy(x: impl Iterator<Item = f32>, scale: &[f32]) -> f64 {
    x.zip(scale).map(|(x, s)| f64::from(x * s).powi(2)).sum()
}

#[test]
fn stored_keys_have_the_error_of_the_type() {
    let gaussians = SplitMix64::new(13).gaussians(64 * 256);
    let expected = relative_mse(&gaussians, &turbo(TurboType::Turbo3, &gaussians));
    // Keys of 80 and 40 channels are padded, and what the zeros after them take of the error is dropped.
    for (dim, padded) in [(64, 64), (192, 192), (256, 256), (80, 128), (40, 64)] {
        let mut data = Data::shaped(130, 2, [1, dim, 8], 1, 12).stretch(uneven, |_| 1.0);
        // An offset that anchors take away.
        data.k.iter_mut().for_each(|k| *k += 50.0);
        let scale: Vec<f32> = (0..dim).map(|channel| 1.0 / uneven(channel)).collect();
        data.with(|layer| {
            let tokens = layer.tokens().unwrap();
            let head = Head::new(layer, &tokens, 0);
            let stored = simulate::quantized(&head, &scale);
            assert_eq!(stored[..dim], head.keys[..dim], "the first key is exact");
            let (mut error, mut size) = (0.0, 0.0);
            for cell in 1..130 {
                let row = cell * dim..(cell + 1) * dim;
                let errors = stored[row.clone()].iter().zip(&head.keys[row.clone()]);
                error += energy(errors.map(|(stored, key)| stored - key), &scale);
                size += energy(head.residuals[row].iter().copied(), &scale);
            }
            let share = f64::from(dim as u32) / f64::from(padded);
            assert_relative_eq!(error / size, share * expected, max_relative = 0.05);
        });
    }
}

#[test]
fn queries_take_turns() {
    let mut data = Data::new(8, 5, 14);
    data.sets.push(Data::new(8, 2, 15).sets.remove(0));
    data.with(|layer| {
        let tokens = layer.tokens().unwrap();
        let head = Head::new(layer, &tokens, 0);
        let (fitted, judging) = (head.fitted(), head.judging());
        assert_eq!(fitted.map(|token| token.index).collect::<Vec<_>>(), [0, 2, 4, 0]);
        assert_eq!(judging.map(|token| token.index).collect::<Vec<_>>(), [1, 3, 1]);
    });
}

#[test]
fn errors_are_of_results_with_stored_keys() {
    let data = Data::shaped(100, 6, [1, 64, 24], 3, 16);
    let scale: Vec<f32> = (0..64).map(uneven).collect();
    data.with(|layer| {
        let tokens = layer.tokens().unwrap();
        let head = Head::new(layer, &tokens, 0);
        let stored = Data { k: simulate::quantized(&head, &scale), ..data.clone() };
        let (mut error, mut size) = (0.0, 0.0);
        for (query, head) in [1, 3, 5].into_iter().flat_map(|q| (0..3).map(move |h| (q, h))) {
            let (_, exact) = attention::naive(&data, query, head);
            let (_, result) = attention::naive(&stored, query, head);
            error += result.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            size += exact.iter().map(|x| x * x).sum::<f64>();
        }
        assert_relative_eq!(Judge::new(&head).error(&scale), error / size, max_relative = 1e-3);
    });
}
