use super::*;
use approx::{assert_abs_diff_eq, assert_relative_eq};

fn gaussian(bits: u32) -> Codebook {
    Codebook::gaussian(bits).unwrap()
}

/// Max 1960, table I (2, 4, 8, 16 and 32 levels): distortion, and the positive levels of 2 to 8.
/// His last two distortions are known to be too small, by 0.04% and 0.2%: right are 0.009501 and 0.002505.
#[test]
fn gaussian_codebooks_match_max_1960() {
    for (bits, mse) in [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009501), (5, 0.002505)] {
        assert_relative_eq!(gaussian(bits).mse(), mse, max_relative = 3e-4);
    }
    let levels: [&[f64]; 3] = [&[0.7980], &[0.4528, 1.510], &[0.2451, 0.7560, 1.344, 2.152]];
    for (bits, positive) in (1..).zip(levels) {
        for (ours, published) in gaussian(bits).levels()[positive.len()..].iter().zip(positive) {
            assert_relative_eq!(ours, published, max_relative = 3e-4);
        }
    }
    let bounds = [0.5006, 1.050, 1.748];
    for (ours, published) in gaussian(3).bounds()[4..].iter().zip(bounds) {
        assert_relative_eq!(*ours, published, max_relative = 3e-4);
    }
}

#[test]
fn one_bit_is_known_in_closed_form() {
    let level = (2.0 / PI).sqrt();
    assert_relative_eq!(gaussian(1).levels()[1], level, max_relative = 1e-14);
    assert_relative_eq!(gaussian(1).mse(), 1.0 - level * level, max_relative = 1e-14);
    // On the sphere in three dimensions a coordinate is uniform (Archimedes): L equal cells.
    for bits in 1..=MAX_BITS {
        let book = Codebook::sphere(bits, 3).unwrap();
        let cell = 2.0 * 3f64.sqrt() / f64::from(1 << bits);
        assert_relative_eq!(book.mse(), cell * cell / 12.0, max_relative = 1e-9);
        assert_relative_eq!(book.levels()[0], cell / 2.0 - 3f64.sqrt(), max_relative = 1e-12);
    }
}

/// High-rate theory: mse = (sqrt(3) pi / 2) 4^-bits (Panter & Dite 1951), from below.
#[test]
fn many_bits_approach_panter_dite() {
    let ratio =
        |bits: u32| gaussian(bits).mse() * 4f64.powi(bits as i32) / (3f64.sqrt() * PI / 2.0);
    for bits in 2..=MAX_BITS {
        assert!(ratio(bits) > ratio(bits - 1) && ratio(bits) < 1.0, "{bits} bits: {}", ratio(bits));
    }
    assert!(ratio(8) > 0.985, "{}", ratio(8));
}

#[test]
fn every_codebook_is_symmetric_sorted_and_its_cells_means() {
    let check = |book: &Codebook, mean: &dyn Fn(f64, f64) -> f64| {
        let levels = book.levels();
        assert!(levels.windows(2).all(|pair| pair[0] < pair[1]));
        for (i, level) in levels.iter().enumerate() {
            assert_eq!(*level, -levels[levels.len() - 1 - i]);
            assert_eq!(book.nearest(*level), i);
        }
        for (i, level) in levels.iter().enumerate().skip(levels.len() / 2) {
            let a = book.bounds()[i - 1].max(0.0);
            let b = book.bounds().get(i).copied().unwrap_or(f64::INFINITY);
            assert_abs_diff_eq!(mean(a, b), *level, epsilon = 1e-11);
        }
    };
    for bits in 1..=MAX_BITS {
        check(&gaussian(bits), &|a, b| Gaussian.mean(a, b));
        for dim in [3, 4, 5, 8, 64, 80, 128, 1536, 100_000] {
            let sphere = Sphere::new(dim);
            let mean = |a, b: f64| sphere.mean(a, b.min(sphere.end()));
            check(&Codebook::sphere(bits, dim).unwrap(), &mean);
        }
    }
}

/// The integrals by brute force: a midpoint sum with 10^5 points.
#[test]
fn integrals_match_a_midpoint_sum() {
    fn check(density: &impl Density, a: f64, b: f64) {
        let n = 100_000;
        let step = (b - a) / f64::from(n);
        let points = (0..n).map(|i| a + (f64::from(i) + 0.5) * step);
        let (mut mass, mut moment) = (0.0, 0.0);
        for x in points {
            mass += density.at(x) * step;
            moment += density.at(x) * x * step;
        }
        assert_relative_eq!(density.mass(a, b), mass, max_relative = 1e-7);
        assert_relative_eq!(density.moment(a, b), moment, max_relative = 1e-7);
    }
    for (a, b) in [(0.0, 0.01), (0.0, 1.5), (1.0, 1.1), (2.9, 3.1), (3.0, 6.0)] {
        check(&Gaussian, a, b);
        for dim in [5, 64, 1024] {
            let sphere = Sphere::new(dim);
            if b < sphere.end() {
                check(&sphere, a, b);
            }
        }
    }
}

#[test]
fn sphere_tends_to_gaussian_from_below() {
    for bits in 1..=MAX_BITS {
        let ratio = |dim| Codebook::sphere(bits, dim).unwrap().mse() / gaussian(bits).mse();
        assert!(ratio(16) < ratio(64) && ratio(64) < ratio(256) && ratio(256) < 1.0);
        assert_relative_eq!(ratio(1_000_000), 1.0, max_relative = 1e-4);
    }
}

#[test]
fn upper_tail_matches_tables() {
    // Abramowitz & Stegun, table 26.1, and the tail's asymptotic values beyond it.
    let table = [
        (0.0, 0.5),
        (1.0, 0.158_655_253_931_457_05),
        (2.0, 0.022_750_131_948_179_21),
        (3.0, 0.001_349_898_031_630_094_5),
        (5.0, 2.866_515_718_791_939e-7),
        (10.0, 7.619_853_024_160_527e-24),
    ];
    for (x, tail) in table {
        assert_relative_eq!(upper_tail(x), tail, max_relative = 1e-12);
    }
    assert_eq!(upper_tail(f64::INFINITY), 0.0);
}

#[test]
fn bad_requests_are_refused_with_their_numbers() {
    assert_eq!(Codebook::gaussian(0), Err(LloydMaxError::Bits { bits: 0 }));
    assert_eq!(Codebook::sphere(9, 64), Err(LloydMaxError::Bits { bits: 9 }));
    assert_eq!(Codebook::sphere(2, 2), Err(LloydMaxError::Dimension { dim: 2 }));
    assert_eq!(
        Codebook::gaussian(9).unwrap_err().to_string(),
        "9 bits a value: codebooks have 1 to 8"
    );
}

#[test]
fn nearest_is_the_nearest() {
    let book = gaussian(4);
    for i in -4000..=4000 {
        let x = f64::from(i) / 1000.0;
        let error = (book.levels()[book.nearest(x)] - x).abs();
        assert!(book.levels().iter().all(|c| (c - x).abs() >= error - 1e-15));
    }
    assert_eq!(book.nearest(f64::NAN), 0);
    assert_eq!(book.nearest(f64::INFINITY), 15);
    assert_eq!(book.nearest(f64::NEG_INFINITY), 0);
}
