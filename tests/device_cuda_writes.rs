//! Which nodes of a graph the CUDA back end runs as one: what new keys and values of a layer are written by.
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and no CUDA.
#![cfg(all(unix, feature = "llama"))]

#[path = "common/tree.rs"]
mod tree;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use tree::tree;

fn matches() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = tree();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-writes");
    let cxx = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let mut command = Command::new(cxx);
    command.args(["-std=c++17", "-Wall", "-Wextra", "-Wno-unused-function"]);
    for folder in ["src/ggml/include", "src/ggml/src"] {
        command.arg("-isystem").arg(tree.join(folder));
    }
    command.arg("-I").arg(root.join("ggml-ext/cuda"));
    command.arg(root.join("tests/device/cuda/writes.cpp"));
    command.arg(tree.join("out/ggml/src/libggml-base.a")).args(["-lpthread", "-lm"]);
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
    let expected = "keys-and-values 5 anchors 3
without-anchors 1 none 3
streams 6 anchors 3
something-between 5 anchors 0
read-elsewhere 0 none 0
other-rows 0 none 0
f16 0 none 0
";
    assert_eq!(matches(), expected);
}
