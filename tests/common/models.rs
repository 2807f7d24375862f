//! The test models, got by `script/models` when they are missing.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::engine::Model;

/// SmolLM2-135M-Instruct Q4_1: 30 layers, head_dim 64, 9 query heads over 3 K/V heads.
pub fn smollm2() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(&path("smollm2")).expect("SmolLM2 loads"))
}

/// Gemma-3-270M Q4_K_M: 18 layers, head_dim 256, 4 query heads over 1, most layers see 512 cells.
pub fn gemma() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(&path("gemma")).expect("Gemma loads"))
}

/// The file of a model that `script/models` knows.
pub fn path(name: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/script/models");
    let output = Command::new(script)
        .arg(name)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("{script}: {e}"));
    assert!(output.status.success(), "{script} {name} failed: these tests need that model");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
}
