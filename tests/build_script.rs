//! What the build script says when something is missing or wrong: one message, with the way out.
#[allow(dead_code, unused_imports)]
#[path = "../build/mod.rs"]
mod build;

use std::fs;
use std::path::{Path, PathBuf};

use build::env::Env;
use build::pin::{Pin, Sdist};
use build::{cmake, edit_file, fetch, tree};
use sha2::{Digest, Sha256};

/// An environment of its own: an empty cache, nothing on PATH.
struct Bench {
    dir: tempfile::TempDir,
    env: Env,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let env = Env {
            root: env!("CARGO_MANIFEST_DIR").into(),
            llama_src: None,
            llama_sdist: None,
            cache_dir: dir.path().join("cache"),
            cmake: None,
            native: true,
            cc: "cc".into(),
            cxx: "c++".into(),
            path: bin.into(),
            jobs: "1".into(),
        };
        Self { dir, env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a program on PATH that prints `text` and exits with `code`.
    #[cfg(unix)]
    fn program(&self, name: &str, text: &str, code: i32) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{text}' >&2\nexit {code}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn pin() -> Pin {
    Pin::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/llama.cpp.toml")).unwrap()
}

/// A .tar.gz with the given files, and its SHA-256.
fn archive(path: &Path, files: &[(&str, &str)]) -> String {
    let gz =
        flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    format!("{:x}", Sha256::digest(fs::read(path).unwrap()))
}

fn small_pin(sha256: String) -> Pin {
    let sdist = Sdist {
        package: "p".into(),
        version: "1".into(),
        file: "p-1.tar.gz".into(),
        sha256,
        folder: "p-1/vendor/x".into(),
    };
    Pin { sdist, ..pin() }
}

#[test]
fn the_pin_is_complete() {
    let pin = pin();
    assert_eq!(pin.sdist.sha256.len(), 64);
    assert_eq!(pin.requirement(), "llama-cpp-python==0.3.36");
}

#[test]
fn only_the_folder_is_extracted_and_the_hash_is_checked() {
    let bench = Bench::new();
    let file = bench.path("p-1.tar.gz");
    let hash = archive(&file, &[("p-1/vendor/x/a/b.c", "int b;"), ("p-1/other", "-")]);

    let good = small_pin(hash.clone());
    fetch::extract(&file, &good, &bench.path("good")).unwrap();
    assert_eq!(fs::read_to_string(bench.path("good/a/b.c")).unwrap(), "int b;");
    assert_eq!(fs::read_dir(bench.path("good")).unwrap().count(), 1);

    let wrong = "0".repeat(64);
    let error = fetch::extract(&file, &small_pin(wrong.clone()), &bench.path("bad")).unwrap_err();
    for part in [&hash, &wrong, "vendor/llama.cpp.toml", "fetch it again"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    let left: Vec<_> =
        fs::read_dir(bench.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with("bad")), "{left:?}");
}

#[test]
fn a_truncated_archive_is_a_wrong_hash() {
    let bench = Bench::new();
    let file = bench.path("p-1.tar.gz");
    let hash = archive(&file, &[("p-1/vendor/x/a", &"text ".repeat(1000))]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = fetch::extract(&file, &small_pin(hash), &bench.path("to")).unwrap_err();
    assert!(error.contains("SHA-256"), "{error}");
}

#[test]
fn missing_python_names_three_ways_out() {
    let bench = Bench::new();
    let error = fetch::source(&bench.env, &pin()).unwrap_err();
    for part in ["python3", "TQ_LLAMA_SDIST", "TQ_LLAMA_SRC", "llama-cpp-python"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
#[cfg(unix)]
fn missing_network_shows_what_pip_said() {
    let bench = Bench::new();
    bench.program("python3", "no route to host", 1);
    let error = fetch::source(&bench.env, &pin()).unwrap_err();
    for part in ["no route to host", "TQ_LLAMA_SDIST"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_folder_that_is_not_llama_cpp_is_refused() {
    let bench = Bench::new();
    let env = Env { llama_src: Some(bench.path("bin")), ..bench.env.clone() };
    let error = fetch::source(&env, &pin()).unwrap_err();
    assert!(
        error.contains("TQ_LLAMA_SRC") && error.contains("not a llama.cpp checkout"),
        "{error}"
    );
}

#[test]
fn missing_cmake_and_python() {
    let bench = Bench::new();
    let error = cmake::find(&bench.env).unwrap_err();
    assert!(error.contains("cmake is not on PATH") && error.contains("TQ_CMAKE"), "{error}");
    let env = Env { cmake: Some(bench.path("nowhere/cmake")), ..bench.env.clone() };
    let error = cmake::find(&env).unwrap_err();
    assert!(error.contains("TQ_CMAKE") && error.contains("does not exist"), "{error}");
}

#[test]
#[cfg(unix)]
fn missing_cmake_and_network() {
    let bench = Bench::new();
    bench.program("python3", "no route to host", 1);
    let error = cmake::find(&bench.env).unwrap_err();
    assert!(error.contains("no route to host") && error.contains("install cmake 3.14"), "{error}");
}

#[test]
#[cfg(unix)]
fn openssl_is_what_the_compiler_says() {
    let bench = Bench::new();
    let option = |env: &Env| {
        let options = cmake::options(env);
        options.into_iter().find(|o| o.starts_with("LLAMA_OPENSSL=")).unwrap()
    };
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=OFF", "no compiler");
    bench.program("c++", "no such header", 1);
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=OFF", "no header");
    bench.program("c++", "", 0);
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=ON");
}

#[test]
fn missing_compiler() {
    let bench = Bench::new();
    let error = tree::Tree::build(&bench.env, &pin()).err().unwrap();
    for part in ["no C++ compiler", "CXX", "--no-default-features"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_missing_anchor_names_the_edit_the_source_and_the_pin() {
    let bench = Bench::new();
    for name in ["cc", "c++"] {
        bench.program(name, "", 0);
    }
    let src = bench.path("src");
    fs::create_dir_all(src.join("ggml/include")).unwrap();
    fs::write(src.join("ggml/include/ggml.h"), "enum ggml_type { NOTHING };\n").unwrap();
    let env = Env { llama_src: Some(src.clone()), ..bench.env.clone() };
    let error = tree::Tree::build(&env, &pin()).err().unwrap();
    for part in
        ["0001-types.toml", "ggml/include/ggml.h", "is missing", "TQ_LLAMA_SRC", "0c1e57098"]
    {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(fs::read_dir(&src).unwrap().count(), 1, "the user's checkout stays as it was");
}

#[test]
fn every_edit_is_listed_in_the_index() {
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor");
    let index = fs::read_to_string(vendor.join("README.md")).unwrap();
    let edits = edit_file::read_all(&vendor.join("edits")).unwrap();
    assert!(edits.len() >= 7);
    for file in &edits {
        assert!(index.contains(&file.name), "{} is not in vendor/README.md", file.name);
    }
}
