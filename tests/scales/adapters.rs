//! Control vectors and LoRA adapters beside scales that were fitted without them.

use std::path::Path;

use super::common::calibration::Calibration;
use super::common::engine::{Context, Model, Options, c_path, context};
use super::common::gguf::{Tiny, float, text, tokens, uniform};
use super::common::gguf_file::{Gguf, Tensor};
use super::common::models::tiny;
use super::common::stats::kld;
use super::common::{F16, TURBO3};
use super::{BIASED, sys};

const N_EMBD: usize = 128;
const N_LAYER: usize = 2;

fn options(kv_calib: Option<&Path>) -> Options<'_> {
    Options { kv_calib, ..Options::new((F16, F16)) }
}

/// A vector for the layers after the first.
fn set_control_vector(context: &Context) {
    let mut seed = 11;
    let values: Vec<f32> = (0..N_EMBD * (N_LAYER - 1)).map(|_| 0.3 * uniform(&mut seed)).collect();
    let (n_embd, last) = (N_EMBD as i32, N_LAYER as i32);
    // SAFETY: as many values as stated, which are copied.
    let status = unsafe {
        sys::llama_set_adapter_cvec(context.raw(), values.as_ptr(), values.len(), n_embd, 1, last)
    };
    assert_eq!(status, 0);
}

/// Of rank 2, on queries and keys of the last layer.
fn write_lora(path: &Path) {
    let metadata = [
        ("general.type", text("adapter")),
        ("general.architecture", text("gemma2")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", float(2.0)),
    ];
    let mut seed = 5;
    let mut tensors = Vec::new();
    for name in ["attn_q", "attn_k"] {
        for (part, shape) in [("a", vec![N_EMBD as u64, 2]), ("b", vec![2, N_EMBD as u64])] {
            let values = (0..2 * N_EMBD).map(|_| uniform(&mut seed)).collect::<Vec<_>>();
            let name = format!("blk.{}.{name}.weight.lora_{part}", N_LAYER - 1);
            tensors.push(Tensor::f32(name, shape, values.into_iter()));
        }
    }
    let metadata = metadata.map(|(key, value)| (key.to_string(), value)).into();
    Gguf { metadata, tensors }.write(path);
}

/// Logits of a prompt and of tokens after it.
fn logits(mut context: Context) -> Vec<Vec<f32>> {
    let mut all = vec![context.prefill(&tokens(150), 0, 0)];
    all.extend((150..158).map(|pos| context.prefill(&[5], pos, 0)));
    all
}

fn mean(exact: &[Vec<f32>], other: &[Vec<f32>]) -> f64 {
    let all = exact.iter().zip(other).map(|(p, q)| kld(p, q));
    all.sum::<f64>() / exact.len() as f64
}

/// `adapt` changes a context. What it does to f16 the scales leave as it is, and they serve its keys, too.
fn check(name: &str, model: &Model, adapt: impl Fn(&Context)) {
    let calibration = Calibration::of(model, 256);
    assert!(calibration.strength() > 1.1, "{name}");
    let path = calibration.path();
    let adapted = |options| {
        let context = context(model, options);
        adapt(&context);
        logits(context)
    };
    let exact = adapted(options(None));
    let effect = mean(&logits(context(model, options(None))), &exact);
    assert!(effect > 1e-3, "{name} changes nothing: {effect:.1e}");

    let scaled = mean(&exact, &adapted(options(Some(&path))));
    assert!(scaled <= 2e-5, "{name}: a mean KLD of {scaled:.1e}");
    let turbo3 = |kv_calib| mean(&exact, &adapted(Options { k: TURBO3, ..options(kv_calib) }));
    let (with, without) = (turbo3(Some(&*path)), turbo3(None));
    println!(
        "{name}: effect {effect:.1e}, f16 {scaled:.1e}, turbo3 {without:.1e}, {with:.1e} with scales"
    );
    assert!(with <= 2.0 * without, "{name}: {without:.1e}, {with:.1e} with scales");
}

#[test]
fn a_control_vector_leaves_scales_as_good() {
    check("a control vector", &tiny(Tiny { softcap: 30.0, ..BIASED }), set_control_vector);
}

#[test]
fn an_adapter_leaves_scales_as_good() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("lora.gguf");
    write_lora(&path);
    let model = tiny(Tiny { softcap: 30.0, ..BIASED });
    let file = c_path(&path);
    // SAFETY: the model is loaded, and the path is terminated. It frees its adapters.
    let adapter = unsafe { sys::llama_adapter_lora_init(model.raw(), file.as_ptr()) };
    assert!(!adapter.is_null());
    check("an adapter", &model, |context| {
        let (mut adapters, mut scales) = ([adapter], [1.0]);
        // SAFETY: one adapter of the model, and its scale.
        let status = unsafe {
            sys::llama_set_adapters_lora(
                context.raw(),
                adapters.as_mut_ptr(),
                1,
                scales.as_mut_ptr(),
            )
        };
        assert_eq!(status, 0);
    });
}
