//! Every ISA's kernels against the codec, which is the specification: one suite, one instance for each.
//!
//! An ISA that this processor lacks is skipped aloud; `TQ_REQUIRE_SIMD=avx2,avx512` (names as in
//! `kernels::Kernels::name`) makes a skip of those a failure.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;

use half::f16;
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};
use llama_turboquant::kernels::{self, BlockQ8_0, Kernels, QK8_0, Rows};
use proptest::collection::vec;
use proptest::prelude::*;

/// The kernels called `name`, or nothing where this processor lacks them.
fn kernels_or_skip(name: &str) -> Option<&'static Kernels> {
    let found = kernels::available().find(|k| k.name == name);
    if found.is_none() {
        let required = std::env::var("TQ_REQUIRE_SIMD").unwrap_or_default();
        let is_required = required.split(',').any(|required| required == name);
        assert!(!is_required, "TQ_REQUIRE_SIMD={required}, but this processor has no {name}");
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        if SAID.lock().is_ok_and(|mut said| said.insert(name.to_owned())) {
            // Straight to stderr: the test harness swallows `eprintln!` of tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: this processor has no {name}");
        }
    }
    found
}

/// Blocks of any bytes whatever: every plane, and every scale including NaN and infinities.
fn any_blocks<const K: usize>(
    rows: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Block<K>>> {
    let scale = prop_oneof![
        4 => any::<u16>(),
        1 => Just(0x7c00), // infinity
        1 => Just(0xfe01), // NaN
        1 => Just(0x0001), // the least subnormal
    ];
    let planes = prop_oneof![
        6 => any::<[[u8; 8]; K]>(),
        1 => Just([[0; 8]; K]),
        1 => Just([[0xff; 8]; K]),
    ];
    let block = (scale, planes);
    vec(block.prop_map(|(scale, planes)| Block { scale: scale.to_le_bytes(), planes }), rows)
}

/// Blocks as an encoder writes them: finite scales around 1.
fn sane_blocks<const K: usize>(
    rows: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Block<K>>> {
    let block = (-2.0f32..2.0, any::<[[u8; 8]; K]>());
    vec(
        block.prop_map(|(scale, planes)| Block {
            scale: f16::from_f32(scale).to_le_bytes(),
            planes,
        }),
        rows,
    )
}

/// Two q8_0 blocks for each of `rows` turbo blocks, quants in -127..=127.
fn q8_0_row(rows: usize) -> impl Strategy<Value = Vec<BlockQ8_0>> {
    let quants = prop_oneof![
        4 => vec(-127i8..=127, QK8_0),
        1 => vec(prop_oneof![Just(-127i8), Just(127)], QK8_0),
    ];
    let block = (-2.0f32..2.0, quants).prop_map(|(d, qs)| BlockQ8_0 {
        d: f16::from_f32(d).to_le_bytes(),
        qs: qs.try_into().expect("QK8_0 quants"),
    });
    vec(block, 2 * rows)
}

fn row_pair<const K: usize>() -> impl Strategy<Value = (Vec<Block<K>>, Vec<BlockQ8_0>)> {
    sane_blocks::<K>(1..40).prop_flat_map(|x| {
        let rows = x.len();
        (Just(x), q8_0_row(rows))
    })
}

/// A copy of `items` that starts `offset` bytes after an aligned address.
fn misaligned<T: Copy>(items: &[T], offset: usize, read: impl FnOnce(&[T])) {
    const { assert!(align_of::<T>() == 1) };
    let bytes = size_of_val(items);
    let mut buffer = vec![0u64; (offset + bytes).div_ceil(8) + 1];
    // SAFETY: the buffer has room for `offset + bytes` bytes, `T` has alignment 1 and is `Copy`, and
    // the slice is made of what was just copied there.
    unsafe {
        let start = buffer.as_mut_ptr().cast::<u8>().add(offset).cast::<T>();
        start.copy_from_nonoverlapping(items.as_ptr(), items.len());
        read(std::slice::from_raw_parts(start, items.len()));
    }
}

/// `dequantize_row` has the oracle's bits for any bytes at any alignment, and writes its row alone.
fn check_dequantize<const K: usize>(kernels: &Kernels, blocks: &[Block<K>], offset: usize)
where
    Kernels: Rows<K>,
{
    const GUARD: f32 = 12345.0;
    let n = blocks.len() * QK;
    // Odd offsets of the output in floats: at most 4 bytes of alignment.
    let mut out = vec![GUARD; n + 2 * (offset + 1)];
    let row = offset + 1..offset + 1 + n;
    misaligned(blocks, offset, |blocks| {
        (kernels.rows().dequantize_row)(blocks, &mut out[row.clone()])
    });
    for (i, out) in out.iter().enumerate() {
        if !row.contains(&i) {
            assert_eq!(*out, GUARD, "wrote outside of the row");
            continue;
        }
        let (block, e) = (&blocks[(i - row.start) / QK], (i - row.start) % QK);
        let expected = block.scale() * f32::from(trellis::decode(block)[e]);
        let same = out.to_bits() == expected.to_bits() || out.is_nan() && expected.is_nan();
        assert!(same, "turbo{K} value {e}: {out:e} instead of {expected:e}");
    }
}

/// `vec_dot_q8_0` is within its documented bound of the exact sum.
fn check_dot<const K: usize>(kernels: &Kernels, x: &[Block<K>], y: &[BlockQ8_0], offset: usize)
where
    Kernels: Rows<K>,
{
    let (mut exact, mut magnitude) = (0.0, 0.0);
    for (i, x) in x.iter().enumerate() {
        for (e, level) in trellis::decode(x).into_iter().enumerate() {
            let y = &y[2 * i + e / QK8_0];
            let product = f64::from(x.scale())
                * f64::from(level)
                * f64::from(y.d())
                * f64::from(y.qs[e % QK8_0]);
            exact += product;
            magnitude += product.abs();
        }
    }
    let bound = (2 * x.len() + 16) as f64 * f64::from(f32::EPSILON) * magnitude;
    misaligned(x, offset, |x| {
        misaligned(y, offset + 1, |y| {
            let dot = f64::from((kernels.rows().vec_dot_q8_0)(x, y));
            let error = (dot - exact).abs();
            assert!(
                error <= bound,
                "turbo{K}: {dot} instead of {exact}, off by {error:e} > {bound:e}"
            );
        });
    });
}

/// Integer sums are exact: with scales of 1 there is nothing to round, even at full magnitude.
fn check_dot_extremes<const K: usize>(kernels: &Kernels)
where
    Kernels: Rows<K>,
{
    let one = f16::ONE.to_le_bytes();
    for plane in [0x00u8, 0xff] {
        let x = [Block::<K> { scale: one, planes: [[plane; 8]; K] }];
        let levels = trellis::decode(&x[0]);
        let qs = std::array::from_fn(|e| if levels[e] < 0 { -127 } else { 127 });
        let y = [BlockQ8_0 { d: one, qs }; 2];
        let expected: i32 = levels.iter().map(|&l| i32::from(l).abs() * 127).sum();
        assert_eq!((kernels.rows().vec_dot_q8_0)(&x, &y), expected as f32);
    }
}

fn assert_panics<T>(f: impl FnOnce() -> T) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    assert!(result.is_err(), "a length that does not fit was taken");
}

/// Rows of one magnitude, with now and then a zero or any float at all, NaN and infinity included.
fn row(blocks: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        30 => -1.0f32..1.0,
        1 => Just(0.0),
        1 => any::<u32>().prop_map(f32::from_bits),
    ];
    (vec(vec(value, QK), blocks), -30i32..30)
        .prop_map(|(x, power)| x.concat().into_iter().map(|x| x * (power as f32).exp2()).collect())
}

/// `quantize_row` writes the codec's bits and counts what is not finite.
fn check_quantize<const K: usize>(kernels: &Kernels, x: &[f32])
where
    Kernels: Rows<K>,
{
    let mut blocks = vec![Block::<K>::ZERO; x.len() / QK];
    let nonfinite = (kernels.rows().quantize_row)(x, &mut blocks);
    for (x, block) in x.as_chunks().0.iter().zip(&blocks) {
        assert_eq!(*block, encode(x).block, "turbo{K} of {x:?}");
    }
    assert_eq!(nonfinite, x.iter().filter(|x| !x.is_finite()).count() as u64);
}

/// The suite for one ISA.
macro_rules! suite {
    ($module:ident, $name:literal) => {
        mod $module {
            use super::*;

            suite!(@type $name, turbo2, 2);
            suite!(@type $name, turbo3, 3);
            suite!(@type $name, turbo4, 4);
        }
    };
    (@type $name:literal, $type:ident, $k:literal) => {
        mod $type {
            use super::*;

            #[test]
            fn dequantize_row_matches_the_codec() {
                let Some(kernels) = kernels_or_skip($name) else { return };
                proptest!(|(blocks in any_blocks::<$k>(1..9), offset in 0usize..8)| {
                    check_dequantize(kernels, &blocks, offset);
                });
            }

            #[test]
            fn quantize_row_matches_the_codec() {
                let Some(kernels) = kernels_or_skip($name) else { return };
                proptest!(|(x in row(1..4))| check_quantize::<$k>(kernels, &x));
            }

            #[test]
            fn vec_dot_is_within_its_bound() {
                let Some(kernels) = kernels_or_skip($name) else { return };
                proptest!(|((x, y) in row_pair::<$k>(), offset in 0usize..8)| {
                    check_dot(kernels, &x, &y, offset);
                });
                check_dot_extremes::<$k>(kernels);
            }

            #[test]
            fn empty_rows_are_nothing() {
                let Some(kernels) = kernels_or_skip($name) else { return };
                let rows = Rows::<$k>::rows(kernels);
                assert_eq!((rows.quantize_row)(&[], &mut []), 0);
                (rows.dequantize_row)(&[], &mut []);
                assert_eq!((rows.vec_dot_q8_0)(&[], &[]), 0.0);
            }

            #[test]
            fn lengths_that_do_not_fit_panic() {
                let Some(kernels) = kernels_or_skip($name) else { return };
                let rows = Rows::<$k>::rows(kernels);
                let x = [Block::ZERO; 2];
                let y = [BlockQ8_0::quantize(&[1.0; QK8_0]); 3];
                assert_panics(|| (rows.quantize_row)(&[0.0; QK + 1], &mut [Block::ZERO; 1]));
                assert_panics(|| (rows.dequantize_row)(&x, &mut [0.0; 2 * QK - 1]));
                assert_panics(|| (rows.vec_dot_q8_0)(&x, &y));
            }
        }
    };
}

suite!(scalar, "scalar");
suite!(avx2, "avx2");
suite!(avx2_vnni, "avx2-vnni");
suite!(avx512, "avx512");
suite!(avx512_vnni, "avx512-vnni");
suite!(neon, "neon");
suite!(neon_dotprod, "neon-dotprod");

mod dispatch {
    use super::*;

    #[test]
    fn the_fastest_is_first_and_scalar_is_last() {
        let names: Vec<_> = kernels::available().map(|k| k.name).collect();
        assert_eq!(names.last(), Some(&"scalar"));
        assert_eq!(kernels::select(None).map(|k| k.name), Ok(names[0]));
    }

    #[test]
    fn a_name_or_a_family_selects() {
        for kernels in kernels::available() {
            // A name without an extension is a family's, and asks for the fastest of it.
            let family = kernels::available().find(|k| k.family() == kernels.family());
            let is_family = kernels.name == kernels.family();
            let expected = if is_family { family } else { Some(kernels) };
            let selected = kernels::select(Some(kernels.name)).ok();
            assert_eq!(selected.map(|k| k.name), expected.map(|k| k.name));
        }
    }

    #[test]
    fn unknown_names_are_errors_that_say_what_is_possible() {
        for asked in ["", "AVX2", "sse2", "avx2-"] {
            let error = kernels::select(Some(asked)).expect_err(asked);
            assert!(error.possible.ends_with("scalar"));
            let message = format!("TQ_SIMD={asked} is not possible here: use one of ");
            assert!(error.to_string().starts_with(&message), "{error}");
        }
    }

    /// `TQ_REQUIRE_SIMD` must name an ISA that some suite above tests.
    #[test]
    fn required_names_exist() {
        const SUITES: [&str; 7] =
            ["scalar", "avx2", "avx2-vnni", "avx512", "avx512-vnni", "neon", "neon-dotprod"];
        for name in std::env::var("TQ_REQUIRE_SIMD").unwrap_or_default().split(',') {
            assert!(
                name.is_empty() || SUITES.contains(&name),
                "TQ_REQUIRE_SIMD: no suite for {name}"
            );
        }
    }
}
