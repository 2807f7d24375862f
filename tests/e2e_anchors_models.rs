//! Key anchors with real models: an f16 cache gives the same logits with them and without.
//!
//! Weights of f32: quantized ones round the activations to 8 bits, and a difference in the last bit
//! becomes a divergence of 0.003.
#![cfg(feature = "llama")]

mod common;

use common::engine::{Model, Options};
use common::models::{gemma_f32, smollm2_f32};
use common::steps::{divergence, run};
use common::{F16, Q4_0, TEXT};
use llama_turboquant::llama::sys;

/// Largest mean divergence: 2.2e-6 was measured.
const LIMIT: f64 = 2e-5;
fn check(name: &str, model: &Model, options: Options, n: (usize, usize)) {
    let tokens = model.tokenize(&TEXT.repeat(8));
    let options = Options { n_seq: 2, unified: true, ..options };
    let with = Options { anchors: sys::LLAMA_KV_ANCHORS_ON, ..options };
    // llama.cpp's flash attention over f16 adds values up in f16.
    let flash_attn = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
    let without = Options { anchors: sys::LLAMA_KV_ANCHORS_OFF, flash_attn, ..options };
    let [with, without] = [with, without].map(|options| run(model, options, &tokens, n));
    let mean = divergence(name, &with, &without);
    assert!(mean <= LIMIT, "{name}: a mean KLD of {mean:.1e}");
}

#[test]
fn smollm2_is_the_same() {
    let options = Options { n_ctx: 1024, n_ubatch: 48, ..Options::new((F16, F16)) };
    check("SmolLM2", smollm2_f32(), options, (150, 80));
}

#[test]
fn gemma_is_the_same() {
    let options = Options { n_ctx: 1024, n_ubatch: 48, ..Options::new((F16, F16)) };
    check("Gemma", gemma_f32(), options, (150, 80));
}

/// llama.cpp's own path for types that the core's attention does not read. It adds up in another precision than its
/// fast path, without anchors, and a difference in the last bit changes the codes of values: 2.7e-3 was measured.
#[test]
fn smollm2_is_the_same_with_other_types() {
    let tokens = smollm2_f32().tokenize(&TEXT.repeat(8));
    let options =
        Options { n_ctx: 1024, n_ubatch: 48, n_seq: 2, unified: true, ..Options::new((F16, Q4_0)) };
    let with = Options { anchors: sys::LLAMA_KV_ANCHORS_ON, ..options };
    let without = Options { anchors: sys::LLAMA_KV_ANCHORS_OFF, ..options };
    let [with, without] =
        [with, without].map(|options| run(smollm2_f32(), options, &tokens, (150, 80)));
    let mean = divergence("SmolLM2, f16 / q4_0", &with, &without);
    assert!(mean <= 1e-2, "a mean KLD of {mean:.1e}");
}

/// The cells of its sliding window, 512 and those of a batch, are used again.
#[test]
fn gemma_beyond_its_window_is_the_same() {
    let options = Options { n_ctx: 2048, n_ubatch: 32, ..Options::new((F16, F16)) };
    check("Gemma, long", gemma_f32(), options, (950, 24));
}
