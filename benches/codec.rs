//! Rows of 4096 values on one thread, in cache: encode, decode, dot product with q8_0.
//!
//! Throughput is in bytes of f32. Every ISA that this processor has, and with the feature `llama` ggml's own
//! q4_0 and q8_0 in the same groups. Results are checked before they are timed.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK, encode, trellis};
use llama_turboquant::kernels::{self, BlockQ8_0, Kernels, QK8_0, Rows};

/// Values in a row.
const N: usize = 4096;

/// A row of unit Gaussians.
fn gaussians(seed: u64) -> Vec<f32> {
    SplitMix64::new(seed).gaussians(N)
}

fn q8_0_row(x: &[f32]) -> Vec<BlockQ8_0> {
    x.as_chunks::<QK8_0>().0.iter().map(BlockQ8_0::quantize).collect()
}

fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(4 * N as u64));
    group
}

fn encode_rows(c: &mut Criterion) {
    let mut group = group(c, "encode");
    let x = gaussians(1);
    kernels::available().for_each(|kernels| {
        encode_row::<2>(&mut group, kernels, &x);
        encode_row::<3>(&mut group, kernels, &x);
        encode_row::<4>(&mut group, kernels, &x);
    });
    #[cfg(feature = "llama")]
    ggml::encode(&mut group, &x);
}

fn encode_row<const K: usize>(group: &mut BenchmarkGroup<WallTime>, kernels: &Kernels, x: &[f32])
where
    Kernels: Rows<K>,
{
    let mut blocks = vec![Block::<K>::ZERO; N / QK];
    (kernels.rows().quantize_row)(x, &mut blocks);
    for (x, block) in x.as_chunks().0.iter().zip(&blocks) {
        assert_eq!(*block, encode::encode(x).block);
    }
    group.bench_function(format!("turbo{K}/{}", kernels.name), |b| {
        b.iter(|| (kernels.rows().quantize_row)(black_box(x), &mut blocks));
    });
}

/// The codec's code of `x`.
fn encoded<const K: usize>(x: &[f32]) -> Vec<Block<K>> {
    x.as_chunks().0.iter().map(|x| encode::encode(x).block).collect()
}

fn decode_rows(c: &mut Criterion) {
    let mut group = group(c, "decode");
    let x = gaussians(2);
    let (turbo2, turbo3, turbo4) = (encoded::<2>(&x), encoded::<3>(&x), encoded::<4>(&x));
    kernels::available().for_each(|kernels| {
        decode_row(&mut group, kernels, &turbo2);
        decode_row(&mut group, kernels, &turbo3);
        decode_row(&mut group, kernels, &turbo4);
    });
    #[cfg(feature = "llama")]
    ggml::decode(&mut group, &x);
}

fn decode_row<const K: usize>(
    group: &mut BenchmarkGroup<WallTime>,
    kernels: &Kernels,
    blocks: &[Block<K>],
) where
    Kernels: Rows<K>,
{
    let mut out = vec![0.0; N];
    (kernels.rows().dequantize_row)(blocks, &mut out);
    for (block, out) in blocks.iter().zip(out.as_chunks::<QK>().0) {
        assert_eq!(*out, trellis::decode(block).map(|level| block.scale() * f32::from(level)));
    }
    group.bench_function(format!("turbo{K}/{}", kernels.name), |b| {
        b.iter(|| (kernels.rows().dequantize_row)(black_box(blocks), &mut out));
    });
}

fn dot_rows(c: &mut Criterion) {
    let mut group = group(c, "dot");
    let (x, y) = (gaussians(3), q8_0_row(&gaussians(4)));
    let (turbo2, turbo3, turbo4) = (encoded::<2>(&x), encoded::<3>(&x), encoded::<4>(&x));
    kernels::available().for_each(|kernels| {
        dot_row(&mut group, kernels, &turbo2, &y);
        dot_row(&mut group, kernels, &turbo3, &y);
        dot_row(&mut group, kernels, &turbo4, &y);
    });
    #[cfg(feature = "llama")]
    ggml::dot(&mut group, &x, &y);
}

fn dot_row<const K: usize>(
    group: &mut BenchmarkGroup<WallTime>,
    kernels: &Kernels,
    x: &[Block<K>],
    y: &[BlockQ8_0],
) where
    Kernels: Rows<K>,
{
    let dot = (kernels.rows().vec_dot_q8_0)(x, y);
    let scalar = kernels::select(Some("scalar")).expect("scalar kernels are always there");
    let expected = (scalar.rows().vec_dot_q8_0)(x, y);
    // Of some 60, the square root of N.
    assert!((dot - expected).abs() < 1e-3, "{dot} instead of {expected}");
    group.bench_function(format!("turbo{K}/{}", kernels.name), |b| {
        b.iter(|| (kernels.rows().vec_dot_q8_0)(black_box(x), black_box(y)));
    });
}

/// ggml's types: the kernels that it picks for the processor on which it was built.
#[cfg(feature = "llama")]
mod ggml {
    use std::ffi::{c_int, c_void};

    use super::*;

    type Quantize = unsafe extern "C" fn(x: *const f32, y: *mut c_void, n: i64);
    type Dequantize = unsafe extern "C" fn(x: *const c_void, y: *mut f32, n: i64);
    #[rustfmt::skip]
    type Dot = unsafe extern "C" fn(n: c_int, s: *mut f32, bs: usize, x: *const c_void, bx: usize, y: *const c_void, by: usize, nrc: c_int);

    unsafe extern "C" {
        fn ggml_cpu_init();
        fn quantize_row_q4_0(x: *const f32, y: *mut c_void, n: i64);
        fn quantize_row_q8_0(x: *const f32, y: *mut c_void, n: i64);
        fn dequantize_row_q4_0(x: *const c_void, y: *mut f32, n: i64);
        fn dequantize_row_q8_0(x: *const c_void, y: *mut f32, n: i64);
        #[rustfmt::skip]
        fn ggml_vec_dot_q4_0_q8_0(
            n: c_int,
            s: *mut f32,
            bs: usize,
            x: *const c_void,
            bx: usize,
            y: *const c_void,
            by: usize,
            nrc: c_int,
        );
        #[rustfmt::skip]
        fn ggml_vec_dot_q8_0_q8_0(
            n: c_int,
            s: *mut f32,
            bs: usize,
            x: *const c_void,
            bx: usize,
            y: *const c_void,
            by: usize,
            nrc: c_int,
        );
    }

    /// Name, bytes of a block of 32 values, and functions.
    const TYPES: [(&str, usize, Quantize, Dequantize, Dot); 2] = [
        ("q4_0", 18, quantize_row_q4_0, dequantize_row_q4_0, ggml_vec_dot_q4_0_q8_0),
        ("q8_0", 34, quantize_row_q8_0, dequantize_row_q8_0, ggml_vec_dot_q8_0_q8_0),
    ];

    /// `x` in a ggml type, and that it decodes to about `x`.
    fn row(x: &[f32], bytes: usize, quantize: Quantize, dequantize: Dequantize) -> Vec<u8> {
        let mut row = vec![0u8; N / 32 * bytes];
        let mut y = vec![0f32; N];
        // SAFETY: `x` and `y` have N values and `row` the bytes of as many; the tables are initialised first.
        unsafe {
            ggml_cpu_init();
            quantize(x.as_ptr(), row.as_mut_ptr().cast(), N as i64);
            dequantize(row.as_ptr().cast(), y.as_mut_ptr(), N as i64);
        }
        for (x, y) in x.iter().zip(y) {
            assert!((x - y).abs() < 0.6, "{y} instead of {x}");
        }
        row
    }

    pub fn encode(group: &mut BenchmarkGroup<WallTime>, x: &[f32]) {
        for (name, bytes, quantize, dequantize, _) in TYPES {
            let mut row = row(x, bytes, quantize, dequantize);
            group.bench_function(format!("{name}/ggml"), |b| {
                // SAFETY: as in `row`.
                b.iter(|| unsafe {
                    quantize(black_box(x.as_ptr()), row.as_mut_ptr().cast(), N as i64);
                });
            });
        }
    }

    pub fn decode(group: &mut BenchmarkGroup<WallTime>, x: &[f32]) {
        for (name, bytes, quantize, dequantize, _) in TYPES {
            let row = row(x, bytes, quantize, dequantize);
            let mut y = vec![0f32; N];
            group.bench_function(format!("{name}/ggml"), |b| {
                // SAFETY: as in `row`.
                b.iter(|| unsafe {
                    dequantize(black_box(row.as_ptr()).cast(), y.as_mut_ptr(), N as i64);
                });
            });
        }
    }

    pub fn dot(group: &mut BenchmarkGroup<WallTime>, x: &[f32], y: &[BlockQ8_0]) {
        for (name, bytes, quantize, dequantize, dot) in TYPES {
            let row = row(x, bytes, quantize, dequantize);
            let mut sum = 0f32;
            group.bench_function(format!("{name}/ggml"), |b| {
                // SAFETY: `row` and `y` hold N values each; a `BlockQ8_0` is ggml's block of the name.
                b.iter(|| unsafe {
                    let (x, y) = (black_box(row.as_ptr()).cast(), black_box(y.as_ptr()).cast());
                    dot(N as c_int, &mut sum, 0, x, 0, y, 0, 1);
                });
            });
        }
    }
}

criterion_group!(benches, encode_rows, decode_rows, dot_rows);
criterion_main!(benches);
