//! The devices' codec (ggml-ext/ggml/src/turbo-codec.h), compiled for the host: the Rust core's bit for bit.
//!
//! Needs a C++ compiler (`CXX`, else `c++`).
#![cfg(unix)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "device/data.rs"]
mod data;
#[path = "device/host.rs"]
mod host;
#[path = "device/tables.rs"]
mod tables;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data::{any_blocks, bytes_of_blocks, bytes_of_rows, rows};
use host::{compile, floats, root, run};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};

/// tests/device/codec.cpp, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        compile("device-codec", &["codec.cpp"], &[Path::new("ggml-ext/ggml/src")], &[])
            .expect("the codec")
    })
}

fn decodes<const K: usize>(program: &Path) -> Result<(), String> {
    let blocks = any_blocks::<K>();
    for what in ["decode", "fields"] {
        let floats = floats(&run(program, &[what, &K.to_string()], bytes_of_blocks(&blocks)));
        assert_eq!(floats.len(), QK * blocks.len());
        for (block, values) in blocks.iter().zip(floats.as_chunks::<QK>().0) {
            for (e, (level, value)) in trellis::decode(block).iter().zip(values).enumerate() {
                let expected = block.scale() * f32::from(*level);
                if value.to_bits() != expected.to_bits() {
                    return Err(format!("{what}, turbo{K}, value {e}: {value}, not {expected}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn any_bits_decode_to_the_same_values() {
    decodes::<2>(program()).unwrap();
    decodes::<3>(program()).unwrap();
    decodes::<4>(program()).unwrap();
}

fn encodes<const K: usize>() {
    let rows = rows();
    let bytes = run(program(), &["encode", &K.to_string()], bytes_of_rows(&rows));
    assert_eq!(bytes.len(), rows.len() * Block::<K>::BYTES);
    for (i, (row, bytes)) in rows.iter().zip(bytes.chunks_exact(Block::<K>::BYTES)).enumerate() {
        assert_eq!(Block::from_bytes(bytes), encode::<K>(row).block, "turbo{K}, row {i}: {row:?}");
    }
}

#[test]
fn every_row_encodes_to_the_same_bits() {
    encodes::<2>();
    encodes::<3>();
    encodes::<4>();
}

fn is_coded_once<const K: usize>() {
    let k = K.to_string();
    let bytes = run(program(), &["encode", &k], bytes_of_rows(&rows()[..600]));
    let decoded = run(program(), &["decode", &k], bytes.clone());
    // Equal planes, and equal scales, however small they are.
    assert!(run(program(), &["encode", &k], decoded) == bytes, "turbo{K}");
}

/// A context shift encodes what it has decoded; where nothing has turned, nothing changes.
#[test]
fn decoded_blocks_are_encoded_to_themselves() {
    is_coded_once::<2>();
    is_coded_once::<3>();
    is_coded_once::<4>();
}

#[test]
fn the_tables_are_not_stale() {
    let header = std::fs::read_to_string(root().join(tables::PATH)).expect("the header");
    let help = "stale: run `cargo run --no-default-features --example device_tables`";
    assert_eq!(header, tables::header(), "{} is {help}", tables::PATH);
}

/// What is compared is what is in the headers.
#[test]
fn another_level_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let tables = std::fs::read_to_string(root().join(tables::PATH)).expect("the header");
    let tables = tables.replace("-54, -47,", "-54, -46,");
    std::fs::write(dir.path().join("turbo-tables.h"), tables).expect("writing");
    for header in ["turbo-codec.h", "turbo-codec-thread.h"] {
        std::fs::copy(root().join("ggml-ext/ggml/src").join(header), dir.path().join(header))
            .expect("writing");
    }
    let program =
        compile("device-codec-mutated", &["codec.cpp"], &[dir.path()], &[]).expect("the codec");
    assert_eq!(decodes::<3>(&program), Ok(()));
    assert!(decodes::<4>(&program).unwrap_err().starts_with("decode, turbo4, value"));
}
