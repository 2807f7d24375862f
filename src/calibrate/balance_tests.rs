use super::*;
use crate::calibrate::Pairs;
use crate::codec::rng::SplitMix64;
use approx::{assert_abs_diff_eq, assert_relative_eq};

/// Numbers around 1, over some two orders of magnitude.
fn energies(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = SplitMix64::new(seed);
    (0..n).map(|_| rng.gaussian().exp()).collect()
}

fn outer(q: &[f64], k: &[f64]) -> Vec<f64> {
    q.iter().flat_map(|q| k.iter().map(move |k| q * k)).collect()
}

/// Logs without their constant.
fn centred(logs: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let logs: Vec<f64> = logs.into_iter().collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    logs.iter().map(|log| log - mean).collect()
}

#[test]
fn constant_weights_have_a_closed_form() {
    let (q, k) = (energies(64, 1), energies(64, 2));
    let best = balance(&outer(&q, &k), &Pairs::None.groups(64));
    let closed = centred(q.iter().zip(&k).map(|(q, k)| 0.25 * (q / k).ln()));
    for (best, closed) in centred(best).iter().zip(closed) {
        // What is left is the floor's.
        assert_abs_diff_eq!(*best, closed, epsilon = 2e-3);
    }
}

#[test]
fn pairs_have_the_closed_form_of_their_sums() {
    let (q, k) = (energies(64, 3), energies(64, 4));
    let groups = Pairs::Halves { n_rot: 48 }.groups(64);
    let best = balance(&outer(&q, &k), &groups);
    let sum = |x: &[f64], group: usize| -> f64 {
        x.iter().zip(&groups).filter(|(_, g)| **g == group).map(|(x, _)| x).sum()
    };
    let closed = groups.iter().map(|group| 0.25 * (sum(&q, *group) / sum(&k, *group)).ln());
    for (best, closed) in centred(best).iter().zip(centred(closed)) {
        assert_abs_diff_eq!(*best, closed, epsilon = 2e-3);
    }
}

#[test]
fn rows_and_columns_become_equal() {
    let n = 48;
    let a = energies(n * n, 5);
    let y = osborne(&a, n);
    for i in 0..n {
        let others = || (0..n).filter(|j| *j != i);
        let row: f64 = others().map(|j| a[i * n + j] * y[j] / y[i]).sum();
        let column: f64 = others().map(|j| a[j * n + i] * y[i] / y[j]).sum();
        assert_relative_eq!(row, column, max_relative = 1e-8);
    }
}

#[test]
fn no_neighbour_is_better() {
    let a = energies(64 * 64, 6);
    let cost = |logs: &[f64]| -> f64 {
        let term = |i: usize, j: usize| a[i * 64 + j] * (2.0 * (logs[j] - logs[i])).exp();
        (0..64).map(|i| (0..64).map(|j| term(i, j)).sum::<f64>()).sum()
    };
    let best = balance(&a, &Pairs::None.groups(64));
    for channel in 0..64 {
        for step in [-0.05, 0.05] {
            let mut other = best.clone();
            other[channel] += step;
            assert!(cost(&other) > cost(&best), "channel {channel}, {step}");
        }
    }
}

#[test]
fn channels_without_energy_stay_finite() {
    let (mut q, mut k) = (energies(64, 7), energies(64, 8));
    (q[3], k[5], q[9], k[9]) = (0.0, 0.0, 0.0, 0.0);
    for a in [outer(&q, &k), outer(&q, &[0.0; 64]), vec![f64::MIN_POSITIVE / 8.0; 64 * 64]] {
        let scale = bounded(&balance(&a, &Pairs::None.groups(64)), 1.0);
        assert!(scale.iter().all(|s| (1.0 / 65.0..65.0).contains(s)), "{scale:?}");
    }
    let scale = bounded(&balance(&outer(&q, &k), &Pairs::None.groups(64)), 1.0);
    // Little is read of channel 3, little is stored of channel 5.
    assert!(scale[3] < 0.3 && scale[5] > 3.0, "{scale:?}");
    assert_eq!(balance(&outer(&q, &[0.0; 64]), &Pairs::None.groups(64)), [0.0; 64]);
}

#[test]
fn bounds_hold_and_the_mean_stays() {
    // Without bounds: e^20, e^-1 and the rest e^-0.3 or so.
    let mut logs = vec![0.0; 64];
    (logs[0], logs[1]) = (20.0, -0.7);
    let scale = bounded(&logs, 1.0);
    assert_relative_eq!(scale[0], 64.0, max_relative = 1e-6);
    assert_relative_eq!(scale[1], scale[2] * (-0.7f32).exp(), max_relative = 1e-6);
    let mean = scale.iter().map(|s| f64::from(s.ln())).sum::<f64>() / 64.0;
    assert_abs_diff_eq!(mean, 0.0, epsilon = 1e-6);

    logs[0] = 0.7;
    let (full, half) = (bounded(&logs, 1.0), bounded(&logs, 0.5));
    for (full, half) in full.iter().zip(&half) {
        assert_relative_eq!(full.sqrt(), *half, max_relative = 1e-6);
    }
}

#[test]
fn groups_are_ropes_pairs() {
    assert_eq!(Pairs::None.groups(4), [0, 1, 2, 3]);
    assert_eq!(Pairs::Adjacent { n_rot: 6 }.groups(8), [0, 0, 1, 1, 2, 2, 3, 4]);
    assert_eq!(Pairs::Halves { n_rot: 6 }.groups(8), [0, 1, 2, 0, 1, 2, 3, 4]);
    assert_eq!(Pairs::Halves { n_rot: 8 }.groups(8), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(Pairs::Adjacent { n_rot: 0 }.groups(2), [0, 1]);
}
