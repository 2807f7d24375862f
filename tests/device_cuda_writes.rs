//! Which nodes of a graph the CUDA back end runs as one: what new keys and values of a layer are written by, and what is around
//! attention.
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and no CUDA.
#![cfg(all(unix, feature = "llama"))]

#[path = "common/tree.rs"]
mod tree;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tree::tree;

fn matches() -> &'static str {
    static MATCHES: OnceLock<String> = OnceLock::new();
    MATCHES.get_or_init(run)
}

fn run() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = tree();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-writes");
    let cxx = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let mut command = Command::new(cxx);
    command.args(["-std=c++17", "-Wall", "-Wextra", "-Wno-unused-function"]);
    for folder in ["src/ggml/include", "src/ggml/src"] {
        command.arg("-isystem").arg(tree.join(folder));
    }
    command.arg("-I").arg(root.join("ggml-ext/ggml/src/ggml-cuda"));
    command.arg(root.join("tests/device/cuda/writes.cpp"));
    command.arg(tree.join("build/ggml/src/libggml-base.a")).args(["-lpthread", "-lm"]);
    if cfg!(target_os = "linux") {
        command.arg("-fopenmp"); // as llama.cpp is built
    }
    let output = command.arg("-o").arg(&program).output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(program).output().expect("the program");
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// get_rows, sub, reshape, view, set_rows; then reshape, view, set_rows.
#[test]
fn keys_and_values_are_found() {
    let expected = "keys-and-values: 0 alone, 5 nodes, anchored; 3 nodes
without-anchors: 0 alone, 1 nodes; 3 nodes
streams: 0 alone, 6 nodes, anchored; 3 nodes
something-between: 0 alone, 5 nodes, anchored; 0 nodes
read-elsewhere: 2 alone, 1 nodes; 3 nodes
other-rows: 2 alone, 1 nodes; 3 nodes
f16: 4 alone, 0 nodes; 0 nodes
";
    assert!(matches().starts_with(expected), "{}", matches());
}

/// mul, reshape, reshape, mul_mat, reshape, view before them; then reshape, mul_mat, reshape.
#[test]
fn scales_and_rotations_are_found() {
    let expected = "
rotated: 0 alone, 8 nodes, rotated, anchored; 5 nodes, rotated
scaled: 0 alone, 11 nodes, scaled, rotated, anchored; 5 nodes, rotated
scaled-without-anchors: 0 alone, 9 nodes, scaled, rotated; 5 nodes, rotated
in-llama's-order: 0 alone, 8 nodes, rotated, anchored; 3 nodes
values-change-in-place: 2 alone, 5 nodes, anchored; 3 nodes
scaled-alone: 1 alone, 5 nodes, anchored; 3 nodes
rotated-keys-read-elsewhere: 1 alone, 5 nodes, anchored; 5 nodes, rotated
rotated-keys-are-output: 1 alone, 5 nodes, anchored; 5 nodes, rotated
another-matrix: 1 alone, 5 nodes, anchored; 5 nodes, rotated
rotated-read-elsewhere: 3 alone, 1 nodes; 5 nodes, rotated
";
    assert!(matches().contains(expected), "{}", matches());
}

/// mul, reshape, reshape, mul_mat, reshape, view, permute, flash_attn_ext; then reshape, reshape, mul_mat.
#[test]
fn attention_is_found_with_what_is_around_it() {
    let expected = "
queries: 2 alone, 11 nodes, scaled, rotated, rotated back
streams: 2 alone, 11 nodes, scaled, rotated, rotated back
queries-unscaled: 2 alone, 8 nodes, rotated, rotated back
queries-in-llama's-order: 4 alone, 4 nodes, rotated back
result-alone: 2 alone, 4 nodes, rotated back
queries-alone: 2 alone, 8 nodes, scaled, rotated
nothing: 4 alone, 0 nodes
queries-read-elsewhere: 4 alone, 4 nodes, rotated back
result-read-elsewhere: 2 alone, 8 nodes, scaled, rotated
queries-change-in-place: 4 alone, 4 nodes, rotated back
queries-by-another-matrix: 4 alone, 4 nodes, rotated back
f16-cache: 7 alone, 0 nodes
";
    assert!(matches().ends_with(expected), "{}", matches());
}
