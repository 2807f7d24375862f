//! The command `turboquant`.
#![cfg(feature = "cli")]

use std::time::Duration;

use super::gguf::{Tiny, write_tiny_model};
use super::models;
use super::process::{Finished, run};

pub const TURBOQUANT: &str = env!("CARGO_BIN_EXE_turboquant");
pub const LIMIT: Duration = Duration::from_secs(120);

pub fn turboquant(args: &[&str]) -> Finished {
    run(TURBOQUANT, args, &[], LIMIT)
}

/// It said what is wrong in one line, and ended with this code.
#[track_caller]
pub fn assert_error(ran: &Finished, code: i32, words: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{}", ran.text());
    ran.assert_refused(words);
    assert_eq!(ran.stdout, "");
    if code == 1 {
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
}

pub fn smollm2() -> String {
    models::path("smollm2").to_str().expect("a path in UTF-8").into()
}

/// A folder with a tiny model, its path, and another path in the folder.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(head_dim: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write_tiny_model(&dir.path().join("model.gguf"), Tiny::new(head_dim));
        Self(dir)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").into()
    }

    pub fn model(&self) -> String {
        self.path("model.gguf")
    }

    /// A file with this in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("a file");
        self.path(name)
    }
}

/// A column of CSV by its name, without quotes before it.
pub fn column<'a>(csv: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = csv.lines();
    let header = lines.next().expect("a header");
    let index = header.split(',').position(|cell| cell == name).expect("a column");
    lines.map(|line| line.split(',').nth(index).expect("a cell")).collect()
}
