//! Key scales with tiny models: the cache holds scaled keys, and attention is as it was, whatever
//! happens to the cache.
#![cfg(feature = "llama")]

#[path = "scales/adapters.rs"]
mod adapters;
mod common;
#[path = "scales/hybrids.rs"]
mod hybrids;
#[path = "scales/inputs.rs"]
mod inputs;

use common::calibration::{Calibration, RopePairs};
use common::engine::{Model, Options, context, type_name};
use common::gguf::{Tiny, tokens, uniform};
use common::models::tiny;
use common::state::save_seq;
use common::steps::{Steps, divergence, run};
use common::{F16, F32, TURBO4};
use llama_turboquant::llama::sys::{self, ggml_type};

/// Logits of attention go up to about 5, and keys have a common part.
const BIASED: Tiny = Tiny { key_bias: 3.0, sharpness: 30.0, softcap: 0.0, head_dim: 64 };

/// Tokens of a prompt, and those that follow one by one.
const N: (usize, usize) = (150, 24);

/// Adjacent RoPE pairs, and halves with a softcap and a sliding window.
fn cases() -> impl Iterator<Item = (String, RopePairs, Model)> {
    let cases = [
        ("llama", RopePairs::Adjacent, BIASED),
        ("llama", RopePairs::Adjacent, Tiny { head_dim: 128, ..BIASED }),
        ("gemma2", RopePairs::Halves, Tiny { softcap: 1.0, ..BIASED }),
        ("gemma2", RopePairs::Halves, Tiny { softcap: 1.0, head_dim: 128, ..BIASED }),
    ];
    cases.into_iter().map(|(arch, pairs, model)| {
        (format!("{arch}, head_dim {}", model.head_dim), pairs, tiny(model))
    })
}

fn options(k: ggml_type, v: ggml_type) -> Options<'static> {
    let anchors = sys::LLAMA_KV_ANCHORS_OFF;
    Options { n_seq: 2, unified: true, n_ubatch: 48, anchors, ..Options::new((k, v)) }
}

/// The steps with a calibration and without.
fn both(model: &Model, options: Options, calibration: &Calibration) -> [Steps; 2] {
    let path = calibration.path();
    [Some(&*path), None]
        .map(|kv_calib| run(model, Options { kv_calib, ..options }, &tokens(300), N))
}

/// One of 1/4, 1/2, 1, 2, 4.
fn power_of_two(seed: &mut u64) -> f32 {
    (2.5 * uniform(seed)).round().clamp(-2.0, 2.0).exp2()
}

/// A product with a power of two is exact, and so is all that follows from it. Flash attention would
/// round to f16, which has too few exponents for that.
#[test]
fn powers_of_two_change_no_bit() {
    let flash_attn = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
    for (name, pairs, model) in cases() {
        let mut seed = 7;
        let calibration =
            Calibration::of(&model, 256).with_scales(pairs, || power_of_two(&mut seed));
        let options = Options { flash_attn, ..options(F32, F32) };
        let [with, without] = both(&model, options, &calibration);
        for ((step, with), (_, without)) in with.iter().zip(&without) {
            assert!(with == without, "{name}, {step}");
        }
    }
}

/// The keys of a saved sequence of f32/f32: the model has one layer.
fn keys(state: &[u8], head_dim: usize, n: usize) -> Vec<f32> {
    let size = n * 2 * head_dim * size_of::<f32>();
    // Behind them: type, size of a row and rows of V.
    let end = state.len() - (4 + 8 + size);
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    state[end - size..end].chunks_exact(4).map(value).collect()
}

/// If nothing were scaled, nothing would change: they are.
#[test]
fn keys_are_stored_times_their_scales() {
    let model = tiny(BIASED);
    let mut seed = 7;
    let calibration =
        Calibration::of(&model, 256).with_scales(RopePairs::Adjacent, || power_of_two(&mut seed));
    let path = calibration.path();
    let [with, without] = [Some(&*path), None].map(|kv_calib| {
        let mut context = context(&model, Options { kv_calib, ..options(F32, F32) });
        context.prefill(&tokens(100), 0, 0);
        keys(&save_seq(&context, 0), 64, 100)
    });
    let scaled = without.iter().zip(calibration.scales().into_iter().cycle()).map(|(k, s)| k * s);
    assert!(with.iter().copied().eq(scaled));
    assert_ne!(with, without);
}

/// Scales from 1/4 to 4: no difference but that of rounding to f16. Measured: 1.9e-6.
#[test]
fn any_scales_leave_f16_as_it_is() {
    const LIMIT: f64 = 2e-5;
    let f16 = options(F16, F16);
    let anchors = sys::LLAMA_KV_ANCHORS_ON;
    let flash_attn = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
    for (name, pairs, model) in cases() {
        let mut seed = 7;
        let calibration =
            Calibration::of(&model, 256).with_scales(pairs, || 4f32.powf(uniform(&mut seed)));
        for (how, options) in [
            ("flash attention", f16),
            ("no flash attention", Options { flash_attn, ..f16 }),
            ("anchors", Options { anchors, ..f16 }),
            ("anchors, no flash attention", Options { anchors, flash_attn, ..f16 }),
        ] {
            let [with, without] = both(&model, options, &calibration);
            let mean = divergence(&format!("{name}, {how}"), &with, &without);
            assert!(mean <= LIMIT, "{name}, {how}: a mean KLD of {mean:.1e}");
        }
    }
}

/// What a calibration finds: not much in random weights, which have no channels that stand out.
/// Measured: 1.2e-6; with turbo4 keys, whose codes become others, 0.013.
#[test]
fn fitted_scales_leave_f16_as_it_is_and_turbo4_close() {
    let turbo4 = Options { anchors: sys::LLAMA_KV_ANCHORS_AUTO, ..options(TURBO4, F16) };
    for (name, _, model) in cases() {
        let calibration = Calibration::of(&model, 512);
        let strength = calibration.strength();
        assert!(strength > 1.1, "{name}: scales of {strength} at most say nothing");
        for (options, limit) in [(options(F16, F16), 2e-5), (turbo4, 0.1)] {
            let [with, without] = both(&model, options, &calibration);
            let name = format!("{name}, K {}", type_name(options.k));
            let mean = divergence(&name, &with, &without);
            assert!(mean <= limit, "{name}: a mean KLD of {mean:.1e}");
        }
    }
}
