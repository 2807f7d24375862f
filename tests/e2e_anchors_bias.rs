//! Keys with a large common part, as biases make them: what anchors are for.
#![cfg(feature = "llama")]

mod common;

use common::engine::{Entry, Model, Options, context};
use common::gguf_file::{Gguf, Tensor};
use common::models;
use common::stats::mean_kld;
use common::{F16, TEXT, TURBO3};
use llama_turboquant::llama::sys;

const N_LAYER: usize = 30;
const N_HEAD_KV: usize = 3;
const HEAD_DIM: usize = 64;
/// Pairs of values that RoPE turns by less than 0.01 over the text: a key's part in them adds about
/// the same to all logits of a query, which softmax does not see.
const PAIRS: std::ops::Range<usize> = 28..32;

/// SmolLM2 with biases of its keys.
fn biased(size: f32) -> Model {
    let mut model = Gguf::read(&models::path("smollm2"));
    let bias = |i: usize| {
        let sign = if i.is_multiple_of(3) { -1.0 } else { 1.0 };
        if PAIRS.contains(&(i % HEAD_DIM / 2)) { sign * size } else { 0.0 }
    };
    for il in 0..N_LAYER {
        let shape = vec![(N_HEAD_KV * HEAD_DIM) as u64];
        let values = (0..N_HEAD_KV * HEAD_DIM).map(bias);
        model.tensors.push(Tensor::f32(format!("blk.{il}.attn_k.bias"), shape, values));
    }
    models::written(|path| model.write(path))
}

fn logits(model: &Model, options: Options) -> Vec<Vec<f32>> {
    let tokens = model.tokenize(TEXT);
    let entry = |(pos, &token)| Entry { token, pos, seq: 0, output: pos >= 16 };
    let entries: Vec<_> = tokens.iter().enumerate().map(entry).collect();
    context(model, Options { n_threads: 2, ..options }).decode(&entries)
}

/// Measured, for biases of several sizes: how much they change the model, the mean KLD of
/// turbo3/turbo3 without anchors and with them, and that of f16/f16 with anchors.
///
/// | bias | model  | off    | on     | f16 on |
/// |-----:|-------:|-------:|-------:|-------:|
/// |    0 | 0      | 0.1456 | 0.0608 | 0.0031 |
/// |   10 | 0.0033 | 0.7105 | 0.0869 | 0.0032 |
/// |   30 | 0.0038 | 4.0718 | 0.0669 | 0.0039 |
/// |  100 | 0.0072 | 5.7632 | 0.0638 | 0.0038 |
#[test]
fn anchors_take_large_key_biases_away() {
    let original = models::smollm2();
    let f16 = Options::new((F16, F16));
    let turbo3 = Options::new((TURBO3, TURBO3));
    let off = Options { anchors: sys::LLAMA_KV_ANCHORS_OFF, ..turbo3 };

    let exact = logits(original, f16);
    let goal = mean_kld(&exact, &logits(original, turbo3));
    let model = biased(30.0);
    let with_bias = logits(&model, f16);
    let changed = mean_kld(&exact, &with_bias);
    let [off, on] = [off, turbo3].map(|o| mean_kld(&with_bias, &logits(&model, o)));
    println!("{goal:.4} without biases; the model: {changed:.4}; off {off:.4}, on {on:.4}");
    assert!(changed < 0.02, "biases change the model: {changed}");
    assert!(off > 1.0, "biases do not matter: {off}");
    assert!(on < 1.5 * goal + 0.02, "{on}, without biases {goal}");
}
