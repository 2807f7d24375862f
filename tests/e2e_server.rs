//! llama-server with turbo caches, as clients see it.
#![cfg(feature = "llama")]

mod common;
#[path = "e2e_server/embeddings.rs"]
mod embeddings;
#[path = "e2e_server/limits.rs"]
mod limits;
#[path = "e2e_server/parallel.rs"]
mod parallel;
#[path = "e2e_server/reuse.rs"]
mod reuse;
#[path = "e2e_server/router.rs"]
mod router;
#[path = "e2e_server/speculative.rs"]
mod speculative;

use std::path::PathBuf;

use common::gguf::{Tiny, write_tiny_model};

/// The types that most tests are about.
const TURBO: [&str; 4] = ["-ctk", "turbo4", "-ctv", "turbo3"];

/// A tiny model's file: fast, and its text is noise. A token is a byte.
fn tiny() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("tiny.gguf");
    write_tiny_model(&file, Tiny::new(64));
    (dir, file)
}
