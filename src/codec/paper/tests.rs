use std::f64::consts::{FRAC_PI_2, PI};

use super::super::rng::SplitMix64;
use super::super::rotation::{Haar, RandomHadamard};
use super::*;
use approx::{assert_abs_diff_eq, assert_relative_eq};
use proptest::prelude::*;

fn unit(dim: usize, seed: u64) -> Vec<f32> {
    let x = SplitMix64::new(seed).gaussians(dim);
    let norm = inner(&x, &x).sqrt() as f32;
    x.iter().map(|v| v / norm).collect()
}

fn inner(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn mse_error<R: Rotation>(quantizer: &TurboQuantMse<R>, x: &[f32]) -> f64 {
    let mut code = vec![0; quantizer.code_bytes()];
    let mut y = vec![0.0; x.len()];
    quantizer.encode(x, &mut code).unwrap();
    quantizer.decode(&code, &mut y).unwrap();
    x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / inner(x, x)
}

/// Published: 0.36, 0.117, 0.03, 0.009 at 1 to 4 bits (the paper, theorem 1; the Gaussian's are
/// 0.3634, 0.1175, 0.0345, 0.0095, and the sphere's a little less), and at any rate
/// 4^-b <= D <= sqrt(3) pi/2 4^-b.
#[test]
fn mse_meets_the_published_distortion() {
    let (dim, vectors) = (128, 400);
    for bits in 1..=8u32 {
        let quantizer = TurboQuantMse::new(dim, bits, 5).unwrap();
        let errors = (0..vectors).map(|seed| mse_error(&quantizer, &unit(dim, 1000 + seed)));
        let mse = errors.sum::<f64>() / vectors as f64;
        assert_relative_eq!(mse, quantizer.distortion(), max_relative = 0.02);
        let limit = 4f64.powi(-(bits as i32));
        assert!(limit < mse && mse < 3f64.sqrt() * FRAC_PI_2 * limit, "{bits} bits: {mse}");
        let gaussian = Codebook::gaussian(bits).unwrap().mse();
        let ratio = quantizer.distortion() / gaussian;
        assert!((0.97..1.0).contains(&ratio), "{bits} bits: {ratio} of the Gaussian's");
        if let Some(published) = [0.3634, 0.1175, 0.0345, 0.0095].get(bits as usize - 1) {
            assert!(mse <= *published, "{bits} bits: {mse}");
        }
    }
}

#[test]
fn mse_does_not_depend_on_the_vector() {
    // One-hot, constant and a sparse vector: the rotation makes them all alike.
    let dim = 256;
    let quantizer = TurboQuantMse::with_rotation(Haar::new(dim, 1), 4).unwrap();
    let one_hot: Vec<f32> = (0..dim).map(|i| f32::from(i == 9)).collect();
    let sparse: Vec<f32> = (0..dim).map(|i| if i % 50 == 3 { i as f32 } else { 0.0 }).collect();
    for x in [one_hot, vec![-3e4; dim], sparse] {
        assert_relative_eq!(mse_error(&quantizer, &x), quantizer.distortion(), max_relative = 0.25);
    }
    // The cheap rotation does as well on dense vectors.
    let fast = TurboQuantMse::with_rotation(RandomHadamard::new(dim, 1).unwrap(), 4).unwrap();
    assert_relative_eq!(mse_error(&fast, &unit(dim, 2)), fast.distortion(), max_relative = 0.25);
}

/// Over seeds the estimate's mean is the inner product, and dim times its variance is
/// 1.57, 0.57, 0.18, 0.053 at 1 to 4 bits less E <y, r>^2 (pi/2 D(b-1); the paper prints 0.047 at 4 bits: a rounding).
#[test]
fn prod_is_unbiased_with_the_published_variance() {
    let (dim, draws) = (64, 1200);
    let x = unit(dim, 1);
    // A query at 60 degrees, so that bias would show.
    let other = unit(dim, 2);
    let across = inner(&x, &other);
    let ortho: Vec<f32> = x.iter().zip(&other).map(|(x, o)| o - across as f32 * x).collect();
    let length = inner(&ortho, &ortho).sqrt() as f32;
    let y: Vec<f32> =
        x.iter().zip(&ortho).map(|(x, o)| 0.5 * x + 0.75f32.sqrt() * o / length).collect();
    let truth = inner(&x, &y);
    assert_abs_diff_eq!(truth, 0.5, epsilon = 1e-6);

    for (bits, published) in (1..).zip([1.57, 0.57, 0.18, 0.053]) {
        let (mut sum, mut squares, mut residual) = (0.0, 0.0, 0.0);
        for seed in 0..draws {
            let quantizer = TurboQuantProd::new(dim, bits, seed).unwrap();
            let mut code = vec![0; quantizer.code_bytes()];
            quantizer.encode(&x, &mut code).unwrap();
            let estimate = quantizer.dot(&quantizer.query(&y).unwrap(), &code).unwrap();
            let error = f64::from(estimate) - truth;
            sum += error / draws as f64;
            squares += error * error / draws as f64;
            residual = quantizer.variance();
        }
        assert_relative_eq!(residual, published, max_relative = 0.05);
        // At one bit the residual is x itself and <y, r>^2 is 1/4; else about D / dim.
        let expected = if bits == 1 {
            residual - 0.25
        } else {
            residual * (1.0 - 1.0 / FRAC_PI_2 / dim as f64)
        };
        assert_relative_eq!(squares * dim as f64, expected, max_relative = 0.12);
        let standard_error = (squares / draws as f64).sqrt();
        assert_abs_diff_eq!(sum, 0.0, epsilon = 4.5 * standard_error);
    }
}

/// The plain code shrinks inner products (by 2/pi at one bit); that is what the sketch repairs.
#[test]
fn mse_is_biased_where_prod_is_not() {
    let dim = 64;
    let x = unit(dim, 1);
    let mean = |estimate: &dyn Fn(u64) -> f64| (0..300).map(estimate).sum::<f64>() / 300.0;
    let plain = mean(&|seed| {
        let quantizer = TurboQuantMse::new(dim, 1, seed).unwrap();
        let (mut code, mut y) = (vec![0; quantizer.code_bytes()], vec![0.0; dim]);
        quantizer.encode(&x, &mut code).unwrap();
        quantizer.decode(&code, &mut y).unwrap();
        inner(&x, &y)
    });
    assert_abs_diff_eq!(plain, 2.0 / PI, epsilon = 0.02);
}

#[test]
fn prod_decodes_to_what_it_estimates() {
    for bits in 1..=8 {
        let quantizer = TurboQuantProd::new(100, bits, 3).unwrap();
        let (x, y) = (SplitMix64::new(1).gaussians(100), SplitMix64::new(2).gaussians(100));
        let (mut code, mut decoded) = (vec![0; quantizer.code_bytes()], vec![0.0; 100]);
        quantizer.encode(&x, &mut code).unwrap();
        quantizer.decode(&code, &mut decoded).unwrap();
        let estimate = quantizer.dot(&quantizer.query(&y).unwrap(), &code).unwrap();
        assert_abs_diff_eq!(f64::from(estimate), inner(&decoded, &y), epsilon = 1e-3);
    }
}

#[test]
fn codes_have_the_stated_size() {
    for (dim, bits, mse, prod) in [(128, 4, 4 + 64, 8 + 64), (100, 3, 4 + 38, 8 + 25 + 13)] {
        assert_eq!(TurboQuantMse::new(dim, bits, 0).unwrap().code_bytes(), mse);
        assert_eq!(TurboQuantProd::new(dim, bits, 0).unwrap().code_bytes(), prod);
    }
}

#[test]
fn zero_and_huge_vectors() {
    let dim = 10;
    let mse = TurboQuantMse::new(dim, 3, 1).unwrap();
    let prod = TurboQuantProd::new(dim, 3, 1).unwrap();
    let (mut a, mut b) = (vec![0; mse.code_bytes()], vec![0; prod.code_bytes()]);
    let mut y = vec![1.0; dim];
    mse.encode(&[0.0; 10], &mut a).unwrap();
    mse.decode(&a, &mut y).unwrap();
    assert_eq!(y, [0.0; 10]);
    prod.encode(&[0.0; 10], &mut b).unwrap();
    prod.decode(&b, &mut y).unwrap();
    assert_eq!(y, [0.0; 10]);
    // The norm of this one is beyond f32: it saturates.
    mse.encode(&[f32::MAX; 10], &mut a).unwrap();
    assert_eq!(float_at(&a, 0), f32::MAX);
}

#[test]
fn misuse_is_refused_with_its_numbers() {
    let quantizer = TurboQuantMse::new(8, 2, 1).unwrap();
    let mut code = [0; 6];
    let mut x = [0.0; 8];
    x[5] = f32::NAN;
    let error = quantizer.encode(&x, &mut code).unwrap_err();
    assert_eq!(
        error.to_string(),
        "value 5 of the vector is NaN; only finite values can be encoded"
    );
    let error = quantizer.encode(&[0.0; 8], &mut code[..5]).unwrap_err();
    assert_eq!(error.to_string(), "code has 5 bytes, but 6 hold a vector of 8 values at 2 bits");
    assert!(matches!(quantizer.encode(&[0.0; 7], &mut code), Err(PaperError::Rotation(_))));
    assert!(matches!(quantizer.decode(&code, &mut x[..7]), Err(PaperError::Rotation(_))));
    assert!(matches!(TurboQuantMse::new(2, 2, 1), Err(PaperError::Codebook(_))));
    for bits in [0, 9] {
        assert!(matches!(TurboQuantMse::new(8, bits, 1), Err(PaperError::Codebook(_))));
        assert!(matches!(TurboQuantProd::new(8, bits, 1), Err(PaperError::Codebook(_))));
    }
    let (small, large) =
        (TurboQuantProd::new(8, 2, 1).unwrap(), TurboQuantProd::new(9, 2, 1).unwrap());
    let query = small.query(&[0.0; 8]).unwrap();
    let error = large.dot(&query, &vec![0; large.code_bytes()]).unwrap_err();
    assert_eq!(error, PaperError::QueryLength { len: 8, dim: 9 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_decode(dim in 3usize..40, bits in 1u32..=8, bytes in proptest::collection::vec(any::<u8>(), 100)) {
        let mse = TurboQuantMse::new(dim, bits, 1).unwrap();
        let prod = TurboQuantProd::new(dim, bits, 1).unwrap();
        let mut x = vec![0.0; dim];
        mse.decode(&bytes[..mse.code_bytes()], &mut x).unwrap();
        prod.decode(&bytes[..prod.code_bytes()], &mut x).unwrap();
        prod.dot(&prod.query(&vec![1.0; dim]).unwrap(), &bytes[..prod.code_bytes()]).unwrap();
    }
}
