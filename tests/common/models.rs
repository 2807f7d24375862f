//! The test models, got by `script/models` when they are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use llama_turboquant::llama::sys;

use super::engine::{Model, c_path, init, logged};
use super::gguf::{Tiny, write_tiny_model};

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

/// [`smollm2`] in f32 (540 MB): sums in another order change its logits by rounding alone, where
/// quantized weights round the activations to 8 bits, too.
pub fn smollm2_f32() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(&f32_copy("smollm2")).expect("SmolLM2 in f32 loads"))
}

/// [`gemma`] in f32 (1.1 GB).
pub fn gemma_f32() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(&f32_copy("gemma")).expect("Gemma in f32 loads"))
}

/// A model of random f32 weights.
pub fn tiny(tiny: Tiny) -> Model {
    written(|path| write_tiny_model(path, tiny))
}

/// A model from the file that `write` makes.
pub fn written(write: impl FnOnce(&Path)) -> Model {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    write(&path);
    Model::load(&path).expect("the model loads")
}

/// A copy of a model with all weights in f32, made once. It appears whole or not at all.
fn f32_copy(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let copy = dir.join(format!("{name}-f32.gguf"));
    if !copy.is_file() {
        init();
        let part = tempfile::NamedTempFile::new_in(dir).expect("cargo's folder can be written");
        let (from, to) = (c_path(&path(name)), c_path(part.path()));
        // SAFETY: plain values; both paths are terminated.
        let (status, log) = logged(|| unsafe {
            let mut params = sys::llama_model_quantize_default_params();
            params.ftype = sys::LLAMA_FTYPE_ALL_F32;
            params.allow_requantize = true;
            sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
        });
        assert_eq!(status, 0, "{log}");
        part.persist(&copy).expect("a file in the same folder");
    }
    copy
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
