//! Programs that run the devices' code on the host: compiled from tests/device/, spoken to through pipes.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of C++17 sources in tests/device, warnings being errors. `headers`: folders for `-I`, the first first; `defines`: for `-D`.
pub fn compile(
    name: &str,
    sources: &[&str],
    headers: &[&Path],
    defines: &[&str],
) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let cxx = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let mut command = Command::new(cxx);
    command.args(["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]);
    // Headers have functions for several kernels, and hints for several compilers.
    command.args(["-Wno-unused-function", "-Wno-unknown-pragmas"]);
    for folder in headers {
        command.arg("-I").arg(root().join(folder));
    }
    for define in defines {
        command.arg("-D").arg(define);
    }
    let folder = root().join("tests/device");
    let output = command
        .args(sources.iter().map(|source| folder.join(source)))
        .arg("-o")
        .arg(&program)
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(program),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What a program makes of `input`.
pub fn run(program: &Path, arguments: &[&str], input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("the writer").expect("all of the input is read");
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    output.stdout
}

/// Little-endian floats.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}
