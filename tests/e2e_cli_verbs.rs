//! The verbs of `turboquant`, as a user runs them.
#![cfg(feature = "cli")]

mod common;

use std::time::Duration;

use common::gguf::{Tiny, write_tiny_model};
use common::models;
use common::process::{Finished, run};

const TURBOQUANT: &str = env!("CARGO_BIN_EXE_turboquant");
const LIMIT: Duration = Duration::from_secs(120);

fn turboquant(args: &[&str]) -> Finished {
    run(TURBOQUANT, args, &[], LIMIT)
}

/// It said what is wrong in one line, and ended with this code.
#[track_caller]
fn assert_error(ran: &Finished, code: i32, words: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{}", ran.text());
    ran.assert_refused(words);
    assert_eq!(ran.stdout, "");
    if code == 1 {
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
}

fn smollm2() -> String {
    models::path("smollm2").to_str().expect("a path in UTF-8").into()
}

/// A folder with a tiny model, its path, and another path in the folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(head_dim: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write_tiny_model(&dir.path().join("model.gguf"), Tiny::new(head_dim));
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").into()
    }

    fn model(&self) -> String {
        self.path("model.gguf")
    }

    /// A file with this in it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("a file");
        self.path(name)
    }
}

#[test]
fn info_tells_of_the_build() {
    let ran = turboquant(&["info"]);
    ran.assert_success();
    for word in [env!("CARGO_PKG_VERSION"), "ggml", "turbo kernels", "CPU", "turbo3", "3.25", "3.5"]
    {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
    let forced = run(TURBOQUANT, &["info"], &[("TQ_SIMD", "scalar")], LIMIT);
    forced.assert_success();
    assert!(forced.stdout.contains("scalar"), "{}", forced.stdout);
    let impossible = run(TURBOQUANT, &["info"], &[("TQ_SIMD", "quantum")], LIMIT);
    assert_error(&impossible, 1, &["TQ_SIMD=quantum", "scalar"]);
}

#[test]
fn info_tells_of_a_model() {
    let ran = turboquant(&["info", &smollm2()]);
    ran.assert_success();
    assert_eq!(turboquant(&["info", "-m", &smollm2()]).stdout, ran.stdout);
    for word in ["llama", "30: 30 with full attention", "9 query, 3 KV", "8192", "49152"] {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("no ["), "every type works: {}", ran.stdout);

    let folder = Folder::new(80);
    let ran = turboquant(&["info", &folder.model()]);
    ran.assert_success();
    for word in ["head_dim          80", "multiple of 64", "use f16"] {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.stdout);
    }
}

#[test]
fn models_that_are_none_are_refused_by_every_verb() {
    let folder = Folder::new(64);
    let model = std::fs::read(folder.model()).expect("written");
    let cases = [
        (folder.path("nothing.gguf"), "nothing.gguf"),
        (folder.path(""), "is a folder"),
        (folder.write("empty.gguf", ""), "not a GGUF file"),
        (folder.write("other.gguf", "PK\u{3}\u{4} and so on"), "not a GGUF file"),
        (folder.write("head.gguf", &model[..1000]), "head.gguf"),
        (folder.write("half.gguf", &model[..model.len() / 2]), "half.gguf"),
    ];
    for (file, word) in &cases {
        assert_error(&turboquant(&["info", file]), 1, &[word]);
    }
}
