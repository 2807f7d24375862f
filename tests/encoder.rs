//! The encoder: the same codes on every ISA, the edge cases of the format, and its distortion.

use llama_turboquant::codec::distortion::{projection, relative_mse};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK, TurboType, trellis};
use llama_turboquant::kernels::{Kernels, Rows, available};
use llama_turboquant::rows::{RowError, dequantize_row, quantize_row, quantize_rows, row_bytes};
use proptest::prelude::*;

/// Values that a cache may meet: Gaussians, outliers, zeros, ties, tiny, huge and broken ones.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -4.0f32..4.0,
        1 => Just(0.0f32),
        1 => -1e3f32..1e3,
        1 => (-20i8..20).prop_map(f32::from),
        1 => any::<f32>(),
    ]
}

fn same_everywhere<const K: usize>(x: &[f32; QK])
where
    Kernels: Rows<K>,
{
    let expected = encode::<K>(x);
    for kernels in available() {
        let mut block = [Block::<K>::ZERO];
        let nonfinite = (kernels.rows().quantize_row)(x, &mut block);
        assert_eq!(block[0], expected.block, "turbo{K} on {}", kernels.name);
        assert_eq!(nonfinite, u64::from(expected.nonfinite), "turbo{K} on {}", kernels.name);
    }
}

fn all_types_same_everywhere(x: &[f32; QK]) {
    same_everywhere::<2>(x);
    same_everywhere::<3>(x);
    same_everywhere::<4>(x);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn codes_agree_on_every_isa(x in prop::array::uniform32(value()), y in prop::array::uniform32(value())) {
        let block: [f32; QK] = std::array::from_fn(|e| if e < 32 { x[e] } else { y[e - 32] });
        all_types_same_everywhere(&block);
    }

    #[test]
    fn codes_agree_on_bits_of_any_float(bits in prop::array::uniform32(any::<u32>())) {
        all_types_same_everywhere(&std::array::from_fn(|e| f32::from_bits(bits[e % 32].rotate_left((e / 32 * 7) as u32))));
    }
}

#[test]
fn codes_agree_on_gaussians() {
    let mut rng = SplitMix64::new(7);
    for _ in 0..500 {
        all_types_same_everywhere(&std::array::from_fn(|_| rng.gaussian() as f32));
    }
}

/// A row through the front door and back.
fn round_trip(ty: TurboType, x: &[f32]) -> (Vec<f32>, u64) {
    let mut bytes = vec![0; row_bytes(ty, x.len()).unwrap()];
    let nonfinite = quantize_row(ty, x, &mut bytes).unwrap();
    let mut out = vec![f32::NAN; x.len()];
    dequantize_row(ty, &bytes, &mut out).unwrap();
    (out, nonfinite)
}

#[test]
fn distortion_on_gaussians_is_as_promised() {
    let x = SplitMix64::new(3).gaussians(QK * 4000);
    for (ty, promised) in TurboType::ALL.into_iter().zip([0.0834, 0.0195, 0.0048]) {
        let mut bytes = vec![0; row_bytes(ty, x.len()).unwrap()];
        quantize_rows(ty, QK, &x, &mut bytes).unwrap();
        let mut y = vec![0.0; x.len()];
        dequantize_row(ty, &bytes, &mut y).unwrap();
        let blocks = x.chunks_exact(QK).zip(y.chunks_exact(QK));
        let mean = blocks.map(|(x, y)| relative_mse(x, y)).sum::<f64>() / 4000.0;
        assert!(mean <= promised, "{}: {mean} above {promised}", ty.name());
        // Far below what the bits allow would mean that this test does not measure what it says.
        assert!(mean > 0.25f64.powi(ty.index_bits() as i32), "{}: {mean}", ty.name());
    }
}

/// With a scale of least squares it would be the share of a block that is no error: 0.924, 0.981, 0.995.
#[test]
fn a_decoded_block_is_as_long_as_the_block_in_its_direction() {
    const BLOCKS: usize = 4000;
    let x = SplitMix64::new(13).gaussians(QK * BLOCKS);
    let queries = SplitMix64::new(14).gaussians(QK * BLOCKS);
    for ty in TurboType::ALL {
        let mut bytes = vec![0; row_bytes(ty, x.len()).unwrap()];
        quantize_rows(ty, QK, &x, &mut bytes).unwrap();
        let mut y = vec![0.0; x.len()];
        dequantize_row(ty, &bytes, &mut y).unwrap();

        let blocks = x.as_chunks::<QK>().0.iter().zip(y.as_chunks::<QK>().0);
        let (mut sum, mut products, mut squares) = (0.0, 0.0, 0.0);
        for ((x, y), query) in blocks.zip(queries.as_chunks::<QK>().0) {
            let length = projection(x, y);
            // Half precision is off by 2^-11 at most.
            assert!((length - 1.0).abs() < 5e-4, "{}: {length}", ty.name());
            sum += length;
            let dot = |a: &[f32; QK]| -> f64 {
                a.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            products += dot(x) * dot(y);
            squares += dot(x) * dot(x);
        }
        let mean = sum / BLOCKS as f64;
        assert!((mean - 1.0).abs() < 2e-5, "{}: {mean}", ty.name());
        // So are products with other vectors, on average. Three standard errors of turbo2 are 0.014.
        let slope = products / squares;
        assert!((slope - 1.0).abs() < 0.02, "{}: {slope}", ty.name());
    }
}

/// A context shift encodes what it has decoded; where nothing has turned, nothing changes.
#[test]
fn decoded_blocks_are_encoded_to_themselves() {
    let mut rng = SplitMix64::new(15);
    // Up to scales of half precision that have three bits.
    let blocks = (0..1000).map(|i| {
        let magnitude = 2f32.powi(i % 28 - 16);
        std::array::from_fn(|_| rng.gaussian() as f32 * magnitude)
    });
    for x in blocks.collect::<Vec<[f32; QK]>>() {
        for ty in TurboType::ALL {
            let once = round_trip(ty, &x).0;
            assert_eq!(round_trip(ty, &once).0, once, "{}", ty.name());
        }
    }
}

/// Small values that are all on one path, on which turbo2 has no level for the large one: a scale with which the projection
/// is right would make the error up to ten times the block. It is limited to where the error is as large as the block.
#[test]
fn no_block_is_decoded_to_worse_than_zeros() {
    for ty in TurboType::ALL {
        let errors = (1..200).map(|i| {
            let x: [f32; QK] =
                std::array::from_fn(|e| if e == 17 { 1.0 } else { i as f32 / 2000.0 });
            relative_mse(&x, &round_trip(ty, &x).0)
        });
        let worst = errors.fold(0.0, f64::max);
        assert!(worst < 1.002, "{}: {worst}", ty.name());
        assert!(ty != TurboType::Turbo2 || worst > 0.99, "the limit is met: {worst}");
    }
}

#[test]
fn zeros_decode_to_zeros() {
    for ty in TurboType::ALL {
        for zero in [0.0, -0.0, f32::MIN_POSITIVE, 1e-12] {
            let (y, nonfinite) = round_trip(ty, &[zero; 2 * QK]);
            assert_eq!(y, [0.0; 2 * QK]);
            assert_eq!(nonfinite, 0);
        }
    }
}

#[test]
fn huge_values_saturate_and_stay_finite() {
    for ty in TurboType::ALL {
        for huge in [1e7, 1e30, f32::MAX] {
            let x: [f32; QK] = std::array::from_fn(|e| if e % 3 == 0 { -huge } else { huge });
            let (y, _) = round_trip(ty, &x);
            assert!(y.iter().all(|v| v.is_finite()), "{} at {huge}", ty.name());
            let alike: f64 =
                y.iter().zip(x).map(|(y, x)| f64::from(*y) * f64::from(x.signum())).sum();
            assert!(alike > 64.0 * 65504.0, "{} at {huge}", ty.name());
        }
    }
}

#[test]
fn magnitudes_within_f16_scales_do_not_matter() {
    let x = SplitMix64::new(11).gaussians(QK * 50);
    for ty in TurboType::ALL {
        let reference = relative_mse(&x, &round_trip(ty, &x).0);
        for exponent in [-8, -4, 6, 12] {
            let scaled: Vec<f32> = x.iter().map(|v| v * 2f32.powi(exponent)).collect();
            let error = relative_mse(&scaled, &round_trip(ty, &scaled).0);
            assert!((error - reference).abs() < 0.01 * reference, "{} 2^{exponent}", ty.name());
        }
    }
}

#[test]
fn broken_values_count_as_zero_and_harm_nobody_else() {
    let clean = SplitMix64::new(5).gaussians(3 * QK);
    for ty in TurboType::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut broken, mut zeroed) = (clean.clone(), clean.clone());
            for e in [QK, QK + 17, 2 * QK - 1] {
                (broken[e], zeroed[e]) = (bad, 0.0);
            }
            let (y, nonfinite) = round_trip(ty, &broken);
            assert_eq!(nonfinite, 3);
            assert_eq!(y, round_trip(ty, &zeroed).0);
            assert!(y.iter().all(|v| v.is_finite()));
        }
        let (y, nonfinite) = round_trip(ty, &[f32::NAN; QK]);
        assert_eq!((y.as_slice(), nonfinite), ([0.0; QK].as_slice(), QK as u64));
    }
}

#[test]
fn one_value_among_zeros_survives() {
    for ty in TurboType::ALL {
        for at in [0, 1, 31, 63] {
            let mut x = [0.0; QK];
            x[at] = -5.0;
            let (y, _) = round_trip(ty, &x);
            let largest = (0..QK).max_by(|&a, &b| y[a].abs().total_cmp(&y[b].abs())).unwrap();
            assert_eq!(largest, at, "{}", ty.name());
            assert!(y[at] < -2.5, "{}: {}", ty.name(), y[at]);
        }
    }
}

#[test]
fn bad_lengths_are_errors_with_both_numbers() {
    let mut bytes = [0; 34];
    let error = quantize_row(TurboType::Turbo4, &[0.0; 80], &mut bytes).unwrap_err();
    assert_eq!(error, RowError::BadRowLength { len: 80 });
    assert!(error.to_string().contains("80") && error.to_string().contains("64"));
    let error = quantize_row(TurboType::Turbo3, &[0.0; 64], &mut bytes).unwrap_err();
    assert_eq!(error.to_string(), "64 values of turbo3 take 26 bytes, the buffer has 34");
    let error = quantize_rows(TurboType::Turbo3, 128, &[0.0; 192], &mut bytes).unwrap_err();
    assert_eq!(error, RowError::BadRowCount { len: 192, row_len: 128 });
    assert_eq!(quantize_rows(TurboType::Turbo4, 64, &[], &mut []), Ok(0));
}

/// Golden rows: a change here is a change of format (or of the encoder), for the changelog.
#[test]
fn golden_rows() {
    let x: [f32; QK] = std::array::from_fn(|e| ((e * e * 7 + e * 3) % 41) as f32 - 20.0);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let row = |ty: TurboType| {
        let mut bytes = vec![0; ty.block_bytes()];
        quantize_row(ty, &x, &mut bytes).unwrap();
        hex(&bytes)
    };
    assert_eq!(TurboType::ALL.map(row), GOLDEN);
    // The decoder alone, on bytes that no encoder made.
    let block = Block::<4>::from_bytes(&std::array::from_fn::<u8, 34, _>(|i| (i * 37 + 11) as u8));
    let sum: i32 = trellis::decode(&block)
        .iter()
        .enumerate()
        .map(|(e, l)| (e as i32 + 1) * i32::from(*l))
        .sum();
    assert_eq!(sum, GOLDEN_SUM);
}

const GOLDEN: [&str; 3] = [
    "9f301a112def044fca8fecae37709cd87b6f",
    "30311788bed4bf5e127d8cbd35fc7e18e96bec6637729cd85f6e",
    "c6311ce925f02b395294e658675835cc31ce8c7c31fc7e187962eca737729cd8cf6f",
];
const GOLDEN_SUM: i32 = -10644;
