//! The CUDA kernels, compiled for the host and run thread by thread (tests/device/cuda/shim.h): the Rust core's bits.
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and no CUDA.
#![cfg(unix)]

#[path = "device/data.rs"]
mod data;
#[path = "device/hadamard.rs"]
mod hadamard;
#[path = "device/host.rs"]
mod host;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data::{any_blocks, backwards, bytes_of_blocks, bytes_of_rows, rows};
use hadamard::rotate;
use half::f16;
use host::{compile, floats, run};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};

/// A program of tests/device/cuda.
fn program(name: &str, source: &str) -> PathBuf {
    let headers =
        ["tests/device", "tests/device/cuda", "ggml-ext/ggml/src", "ggml-ext/ggml/src/ggml-cuda"]
            .map(Path::new);
    compile(name, &[source, "fibers.cpp"], &headers, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn rows_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| program("cuda-rows", "cuda/rows.cpp"))
}

/// The blocks of what `rows` encodes, and bytes behind them.
fn encoded<const K: usize>(what: &str, rows: &[[f32; QK]]) -> (Vec<Block<K>>, Vec<u8>) {
    let arguments = [what, &K.to_string(), &rows.len().to_string()];
    let bytes = run(rows_program(), &arguments, bytes_of_rows(rows));
    let (blocks, rest) = bytes.split_at(rows.len() * Block::<K>::BYTES);
    let blocks = blocks.chunks_exact(Block::<K>::BYTES).map(Block::from_bytes).collect();
    (blocks, rest.to_vec())
}

fn expected<const K: usize>(rows: &[[f32; QK]]) -> Vec<Block<K>> {
    rows.iter().map(|row| encode::<K>(row).block).collect()
}

/// At most so many rows, in pairs.
fn even_rows(most: usize) -> Vec<[f32; QK]> {
    let mut rows = rows();
    rows.truncate(most.min(rows.len()) & !1);
    rows
}

fn sets<const K: usize>(what: &str) {
    let rows = even_rows(usize::MAX);
    assert!(encoded::<K>(what, &rows).0 == backwards(&expected(&rows)), "{what}, turbo{K}");
}

#[test]
fn rows_are_set_to_the_same_bits() {
    sets::<2>("set");
    sets::<3>("set");
    sets::<4>("set");
}

#[test]
fn warps_set_rows_to_the_same_bits() {
    sets::<2>("set-by-warps");
    sets::<3>("set-by-warps");
    sets::<4>("set-by-warps");
}

fn copies<const K: usize>(what: &str) {
    let rows = even_rows(64); // the encoders are those above
    assert!(encoded::<K>(what, &rows).0 == expected(&rows), "{what}, turbo{K}");
}

#[test]
fn rows_are_copied_to_the_same_bits() {
    for what in ["copy", "copy-by-warps"] {
        copies::<2>(what);
        copies::<3>(what);
        copies::<4>(what);
    }
}

/// As tests/device/cuda/rows.cpp makes them: value e of a block.
fn anchor(id: usize, block: usize, e: usize) -> f32 {
    let i = block % 2 * QK + e;
    ((i * (id + 1) % 37) as f32 - 18.0) / 8.0
}

fn sets_anchored<const K: usize>() {
    let values = even_rows(96);
    let mut keys = values.clone();
    for (block, row) in keys.iter_mut().enumerate() {
        for (e, x) in row.iter_mut().enumerate() {
            *x -= anchor(block / 2 % 3, block, e);
        }
    }
    let keys = backwards(&expected::<K>(&keys));
    assert!(encoded::<K>("set-anchored", &values).0 == keys, "keys, turbo{K}");

    let (blocks, rest) = encoded::<K>("set-both", &values);
    assert!(blocks == keys, "keys with values, turbo{K}");
    assert!(rest == bytes_of_blocks(&backwards(&expected::<4>(&values))), "values, turbo{K}");
}

#[test]
fn keys_are_set_without_their_anchors() {
    sets_anchored::<2>();
    sets_anchored::<3>();
    sets_anchored::<4>();
}

/// As tests/device/cuda/rows.cpp makes them, for value i of a row of eight blocks.
fn scale(i: usize) -> f32 {
    0.5 + (i * 7 % 13) as f32 / 8.0
}

/// The blocks of rows of eight, backwards.
fn encoded_backwards<const K: usize>(rows: &[[f32; 8 * QK]]) -> Vec<u8> {
    let blocks: Vec<[f32; QK]> =
        rows.iter().rev().flat_map(|row| row.as_chunks::<QK>().0).copied().collect();
    bytes_of_blocks(&expected::<K>(&blocks))
}

fn rotates<const K: usize>() {
    let blocks = even_rows(88);
    let rows: Vec<[f32; 8 * QK]> = blocks.as_flattened().as_chunks::<{ 8 * QK }>().0.to_vec();
    assert_eq!(rows.len(), 11); // of 88 blocks, which are no multiple of those of 128 threads
    let mut values = rows.clone();
    for row in &mut values {
        rotate(row, 64);
    }
    let values = encoded_backwards::<4>(&values);
    for rotated in [64, 128, 256, 512] {
        let mut keys = rows.clone();
        for (token, row) in keys.iter_mut().enumerate() {
            for (i, x) in row.iter_mut().enumerate() {
                *x *= scale(i);
            }
            rotate(row, rotated);
            for (i, x) in row.iter_mut().enumerate() {
                *x -= ((i * (token % 3 + 1) % 37) as f32 - 18.0) / 8.0;
            }
        }
        let keys = encoded_backwards::<K>(&keys);
        for (what, then) in
            [("rotate", &[][..]), ("rotate-by-warps", &[]), ("rotate-both", &values)]
        {
            let arguments = [what, &K.to_string(), "88", &rotated.to_string()];
            let bytes = run(rows_program(), &arguments, bytes_of_rows(&blocks));
            assert!(bytes == [&keys, then].concat(), "{what} by {rotated}, turbo{K}");
        }
    }
}

#[test]
fn keys_and_values_are_scaled_and_rotated_on_the_way() {
    rotates::<2>();
    rotates::<3>();
    rotates::<4>();
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

fn with_anchor(x: f32, block: usize, e: usize) -> f32 {
    let m = match block / 2 % 4 {
        3 => 0.0,
        id => anchor(id, block, e),
    };
    f16::from_f32(x + m).to_f32()
}

#[test]
fn keys_are_expanded_with_their_anchors() {
    decodes::<2>("anchored", <[_]>::to_vec, with_anchor);
    decodes::<3>("anchored", <[_]>::to_vec, with_anchor);
    decodes::<4>("anchored", <[_]>::to_vec, with_anchor);
}
