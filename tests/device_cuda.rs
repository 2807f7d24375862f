//! The CUDA kernels, compiled for the host and run thread by thread (tests/device/cuda/shim.h): the Rust core's bits.
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and no CUDA.
#![cfg(unix)]

#[path = "device/data.rs"]
mod data;
#[path = "device/host.rs"]
mod host;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data::{any_blocks, bytes_of_blocks, bytes_of_rows, rows};
use half::f16;
use host::{compile, floats, run};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};

/// A program of tests/device/cuda.
fn program(name: &str, source: &str) -> PathBuf {
    let headers = ["tests/device", "tests/device/cuda", "ggml-ext", "ggml-ext/cuda"].map(Path::new);
    compile(name, &[source, "fibers.cpp"], &headers, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn rows_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| program("cuda-rows", "cuda/rows.cpp"))
}

/// Pairs of blocks, the last pair first.
fn backwards<T: Clone>(blocks: &[T]) -> Vec<T> {
    blocks.chunks(2).rev().flatten().cloned().collect()
}

fn encodes<const K: usize>(what: &str, order: impl Fn(&[Block<K>]) -> Vec<Block<K>>) {
    let rows = rows();
    let n = rows.len() & !1;
    let arguments = [what, &K.to_string(), &n.to_string()];
    let bytes = run(rows_program(), &arguments, bytes_of_rows(&rows[..n]));
    let expected: Vec<_> = rows[..n].iter().map(|row| encode::<K>(row).block).collect();
    let blocks: Vec<_> = bytes.chunks_exact(Block::<K>::BYTES).map(Block::from_bytes).collect();
    assert!(blocks == order(&expected), "{what}, turbo{K}");
}

#[test]
fn rows_are_set_to_the_same_bits() {
    encodes::<2>("set", backwards);
    encodes::<3>("set", backwards);
    encodes::<4>("set", backwards);
}

#[test]
fn rows_are_copied_to_the_same_bits() {
    encodes::<2>("copy", <[_]>::to_vec);
    encodes::<3>("copy", <[_]>::to_vec);
    encodes::<4>("copy", <[_]>::to_vec);
}

/// `change`: of a value, with its block's number and its place there.
fn decodes<const K: usize>(
    what: &str,
    order: impl Fn(&[Block<K>]) -> Vec<Block<K>>,
    change: impl Fn(f32, usize, usize) -> f32,
) {
    let blocks = any_blocks::<K>();
    let arguments = [what, &K.to_string(), &blocks.len().to_string()];
    let floats = floats(&run(rows_program(), &arguments, bytes_of_blocks(&blocks)));
    assert_eq!(floats.len(), QK * blocks.len());
    for (i, (block, values)) in order(&blocks).iter().zip(floats.as_chunks::<QK>().0).enumerate() {
        let levels = trellis::decode(block);
        let value = |e: usize| change(block.scale() * f32::from(levels[e]), i, e);
        let expected: [f32; QK] = std::array::from_fn(value);
        let same = values.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{what}, turbo{K}, block {i}: {values:?}, not {expected:?}");
    }
}

#[test]
fn rows_are_got_and_cast_to_the_same_floats() {
    decodes::<2>("get", backwards, |x, _, _| x);
    decodes::<3>("get", backwards, |x, _, _| x);
    decodes::<4>("get", backwards, |x, _, _| x);
    decodes::<2>("cast", <[_]>::to_vec, |x, _, _| x);
    decodes::<3>("cast", <[_]>::to_vec, |x, _, _| x);
    decodes::<4>("cast", <[_]>::to_vec, |x, _, _| x);
}

#[test]
fn caches_are_expanded_to_the_nearest_halves() {
    let round = |x, _, _| f16::from_f32(x).to_f32();
    decodes::<2>("expand", <[_]>::to_vec, round);
    decodes::<3>("expand", <[_]>::to_vec, round);
    decodes::<4>("expand", <[_]>::to_vec, round);
}

/// As tests/device/cuda/rows.cpp makes them.
fn with_anchor(x: f32, block: usize, e: usize) -> f32 {
    let (row, i) = (block / 2, block % 2 * QK + e);
    let m = match row % 4 {
        3 => 0.0,
        id => ((i * (id + 1) % 37) as f32 - 18.0) / 8.0,
    };
    f16::from_f32(x + m).to_f32()
}

#[test]
fn keys_are_expanded_with_their_anchors() {
    decodes::<2>("anchored", <[_]>::to_vec, with_anchor);
    decodes::<3>("anchored", <[_]>::to_vec, with_anchor);
    decodes::<4>("anchored", <[_]>::to_vec, with_anchor);
}
