use super::*;
use approx::assert_abs_diff_eq;
use proptest::prelude::*;

fn rotated(rotation: &dyn Rotation, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    rotation.forward(&mut y).unwrap();
    y
}

fn basis(dim: usize, i: usize) -> Vec<f32> {
    (0..dim).map(|j| f32::from(i == j)).collect()
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[test]
fn wht_of_known_vectors() {
    // Rows of the Sylvester matrix of order 4, over sqrt(4).
    let rows = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]];
    for (i, row) in rows.iter().enumerate() {
        let mut x = basis(4, i);
        wht(&mut x).unwrap();
        assert_eq!(x, row.map(|v| v as f32 / 2.0));
    }
    let mut x = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]; // example in Wikipedia's article on the transform
    wht(&mut x).unwrap();
    let known = [4.0, 2.0, 0.0, -2.0, 0.0, 2.0, 0.0, 2.0];
    for (x, known) in x.iter().zip(known) {
        assert_abs_diff_eq!(*x, known / 8f32.sqrt(), epsilon = 1e-6);
    }
}

#[test]
fn wht_element_is_the_parity_of_the_common_bits() {
    let n = 64;
    for i in 0..n {
        let mut x = basis(n, i);
        wht(&mut x).unwrap();
        for (j, x) in x.iter().enumerate() {
            let sign = if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
            assert_eq!(*x, sign / 8.0);
        }
    }
}

#[test]
fn other_lengths_are_errors_with_both_numbers() {
    for len in [0, 3, 80, 1000] {
        let error = wht(&mut vec![0.0; len]).unwrap_err();
        assert_eq!(error, RotationError::NotPowerOfTwo { len });
        assert!(error.to_string().contains(&len.to_string()));
        assert!(RandomHadamard::new(len, 1).is_err());
    }
    let rotations: [&dyn Rotation; 2] = [&RandomHadamard::new(64, 1).unwrap(), &Haar::new(64, 1)];
    for rotation in rotations {
        let wrong = RotationError::WrongLength { len: 63, dim: 64 };
        assert_eq!(rotation.forward(&mut [0.0; 63]), Err(wrong));
        assert_eq!(rotation.inverse(&mut [0.0; 63]), Err(wrong));
        assert_eq!(wrong.to_string(), "vector has 63 values, but the rotation was made for 64");
    }
}

#[test]
fn columns_are_orthonormal() {
    let hadamard = RandomHadamard::new(128, 7).unwrap();
    let dense = [1, 2, 3, 5, 80, 129].map(|dim| Haar::new(dim, 7));
    let rotations = dense.iter().map(|r| r as &dyn Rotation).chain([&hadamard as &dyn Rotation]);
    for rotation in rotations {
        let dim = rotation.dim();
        let columns: Vec<_> = (0..dim).map(|i| rotated(rotation, &basis(dim, i))).collect();
        for (i, x) in columns.iter().enumerate() {
            for (j, y) in columns.iter().enumerate() {
                assert_abs_diff_eq!(dot(x, y), f64::from(u8::from(i == j)), epsilon = 1e-5);
            }
        }
    }
}

#[test]
fn seeds_decide_everything() {
    let x = SplitMix64::new(3).gaussians(256);
    let hadamard = |seed| rotated(&RandomHadamard::new(256, seed).unwrap(), &x);
    let haar = |seed| rotated(&Haar::new(256, seed), &x);
    assert_eq!(hadamard(1), hadamard(1));
    assert_ne!(hadamard(1), hadamard(2));
    assert_eq!(haar(1), haar(1));
    assert_ne!(haar(1), haar(2));
}

/// Under the Haar measure of O(d): E q = 0, E q^2 = 1/d, E q^4 = 3/(d (d+2)), E tr Q = 0,
/// E (tr Q)^2 = 1, and det is +1 or -1 with equal chance. Source: Diaconis & Shahshahani 1994.
/// Q without its sign fix has E tr Q far from 0.
#[test]
fn haar_moments() {
    let (dim, draws) = (8, 20_000);
    let (mut q1, mut q2, mut q4) = ([0.0; 64], [0.0; 64], [0.0; 64]);
    let (mut trace1, mut trace2) = (0.0, 0.0);
    for seed in 0..draws {
        let rotation = Haar::new(dim, seed);
        let mut trace = 0.0;
        for i in 0..dim {
            for (j, q) in rotated(&rotation, &basis(dim, i)).into_iter().enumerate() {
                let q = f64::from(q);
                q1[i * dim + j] += q / draws as f64;
                q2[i * dim + j] += q * q / draws as f64;
                q4[i * dim + j] += q.powi(4) / draws as f64;
                trace += if i == j { q } else { 0.0 };
            }
        }
        trace1 += trace / draws as f64;
        trace2 += trace * trace / draws as f64;
    }
    let d = dim as f64;
    let error = (draws as f64).sqrt().recip(); // standard error of a unit-variance mean
    for e in 0..dim * dim {
        assert_abs_diff_eq!(q1[e], 0.0, epsilon = 5.0 * error / d.sqrt());
        assert_abs_diff_eq!(q2[e], 1.0 / d, epsilon = 5.0 * error * 1.5 / d);
        assert_abs_diff_eq!(q4[e], 3.0 / (d * (d + 2.0)), epsilon = 5.0 * error * 10.0 / (d * d));
    }
    assert_abs_diff_eq!(trace1, 0.0, epsilon = 5.0 * error);
    assert_abs_diff_eq!(trace2, 1.0, epsilon = 5.0 * error * 1.5);
}

/// A peaked vector: what the rotations are for.
#[test]
fn peaks_are_spread() {
    let x = basis(1024, 17);
    let peak = |y: Vec<f32>| y.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert_eq!(peak(rotated(&RandomHadamard::new(1024, 1).unwrap(), &x)), 1.0 / 32.0);
    assert!(peak(rotated(&Haar::new(1024, 1), &x)) < 5.0 / 32.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn inverse_undoes_and_norm_stays(log2 in 0u32..11, dim in 1usize..200, seed: u64) {
        let rotations: [Box<dyn Rotation>; 2] = [
            Box::new(RandomHadamard::new(1 << log2, seed).unwrap()),
            Box::new(Haar::new(dim, seed)),
        ];
        for rotation in rotations {
            let x = SplitMix64::new(!seed).gaussians(rotation.dim());
            let mut y = rotated(rotation.as_ref(), &x);
            let scale = dot(&x, &x);
            prop_assert!((dot(&y, &y) - scale).abs() <= 1e-5 * scale);
            rotation.inverse(&mut y).unwrap();
            let error: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            prop_assert!(error <= 1e-10 * scale, "{error} of {scale}");
        }
    }
}
