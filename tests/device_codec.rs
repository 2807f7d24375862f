//! The devices' codec (ggml-ext/turbo-codec.h), compiled for the host: the Rust core's bit for bit.
//!
//! Needs a C++ compiler (`CXX`, else `c++`).
#![cfg(unix)]

#[path = "device/rows.rs"]
mod rows;
#[path = "device/tables.rs"]
mod tables;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};
use rows::{any_blocks, rows};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// tests/device/codec.cpp, compiled once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile(&root().join("ggml-ext"), "device-codec").expect("the codec"))
}

/// tests/device/codec.cpp with the headers of `headers`.
fn compile(headers: &Path, name: &str) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let cxx = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let output = Command::new(cxx)
        .args(["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(headers)
        .arg(root().join("tests/device/codec.cpp"))
        .arg("-o")
        .arg(&program)
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(program),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What the program makes of `input`.
fn run(program: &Path, what: &str, k: usize, input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new(program)
        .args([what, &k.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the codec");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("the writer").expect("all of the input is read");
    assert!(output.status.success(), "{what} {k}: {}", output.status);
    output.stdout
}

fn decodes<const K: usize>(program: &Path) -> Result<(), String> {
    let blocks = any_blocks::<K>();
    let mut bytes = vec![0; blocks.len() * Block::<K>::BYTES];
    for (block, bytes) in blocks.iter().zip(bytes.chunks_exact_mut(Block::<K>::BYTES)) {
        block.write_to(bytes);
    }
    for what in ["decode", "fields"] {
        let floats = run(program, what, K, bytes.clone());
        assert_eq!(floats.len(), 4 * QK * blocks.len());
        for (block, floats) in blocks.iter().zip(floats.as_chunks::<{ 4 * QK }>().0) {
            let levels = trellis::decode(block);
            for (e, (level, float)) in levels.iter().zip(floats.as_chunks::<4>().0).enumerate() {
                let (value, expected) =
                    (f32::from_le_bytes(*float), block.scale() * f32::from(*level));
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
    let floats = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = run(program(), "encode", K, floats);
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
    std::fs::copy(root().join("ggml-ext/turbo-codec.h"), dir.path().join("turbo-codec.h"))
        .expect("writing");
    let program = compile(dir.path(), "device-codec-mutated").expect("the codec");
    assert_eq!(decodes::<3>(&program), Ok(()));
    assert!(decodes::<4>(&program).unwrap_err().starts_with("decode, turbo4, value"));
}
