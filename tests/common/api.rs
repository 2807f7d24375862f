//! What the tests of the safe API share.

use std::sync::{Arc, OnceLock};

use llama_turboquant::llama::{Context, ContextParams, Model, Token};

use super::gguf::{Tiny, write_tiny_model};
use super::models::path;

/// SmolLM2-135M-Instruct Q4_1: 30 layers, head_dim 64, 9 query heads over 3 K/V heads.
pub fn smollm2() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| Model::load(path("smollm2")).expect("SmolLM2 loads"))
}

/// One layer of random weights, 2 heads of 64; a token is a byte.
pub fn tiny() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("tiny.gguf");
        write_tiny_model(&path, Tiny::new(64));
        // The file goes with the folder.
        Model::builder(&path).mmap(false).load().expect("the tiny model loads")
    })
}

/// A small context's parameters.
pub fn params() -> ContextParams {
    ContextParams::default().n_ctx(512).n_batch(512).n_threads(1)
}

pub fn context(params: &ContextParams) -> Context {
    Context::new(smollm2(), params).expect("a context")
}

/// The tokens of a text, without special ones.
pub fn tokens(text: &str) -> Vec<Token> {
    smollm2().vocab().tokenize(text, false, false).expect("tokens")
}
