//! Key scales with real models: exact in floats, and quantized keys cost less with them.
#![cfg(feature = "llama")]

mod common;

use std::sync::OnceLock;

use common::calibration::Calibration;
use common::engine::{Entry, Model, Options, context, label};
use common::models::{self, gemma, gemma_f32, smollm2, smollm2_f32};
use common::stats::mean_kld;
use common::steps::{divergence, run};
use common::{F16, Q4_0, TEXT, TURBO2, TURBO3, widened};
use llama_turboquant::llama::sys;

/// A test model, and scales that were fitted to its quantized weights.
struct Calibrated {
    name: &'static str,
    model: &'static Model,
    f32: fn() -> &'static Model,
    calibration: Calibration,
}

impl Calibrated {
    fn new(name: &'static str, model: &'static Model, f32: fn() -> &'static Model) -> Self {
        Self { name, model, f32, calibration: Calibration::of(model, 512) }
    }
}

fn calibrated() -> &'static [Calibrated; 2] {
    static MODELS: OnceLock<[Calibrated; 2]> = OnceLock::new();
    MODELS.get_or_init(|| {
        [
            Calibrated::new("SmolLM2", smollm2(), smollm2_f32),
            Calibrated::new("Gemma", gemma(), gemma_f32),
        ]
    })
}

/// The scales of quantized weights are accepted by those of f32, and exact: with anchors, so that
/// attention is ours. Weights of f32 for the reason of tests/e2e_anchors_models.rs.
/// Measured: 3.2e-6.
#[test]
fn scales_are_for_every_quantization_and_exact() {
    const LIMIT: f64 = 2e-5;
    for Calibrated { name, model, f32, calibration } in calibrated() {
        let f32 = f32();
        // SAFETY: both models are loaded.
        let [a, b] = [model, f32].map(|m| unsafe { sys::llama_model_kv_fingerprint(m.raw()) });
        assert_eq!(a, b, "{name}: fingerprints");
        assert_ne!(a, 0);

        let strength = calibration.strength();
        assert!(strength > 1.5, "{name}: scales of {strength} at most say nothing");
        let tokens = f32.tokenize(&TEXT.repeat(3));
        let path = calibration.path();
        let anchors = sys::LLAMA_KV_ANCHORS_ON;
        let options = Options { n_seq: 2, unified: true, anchors, ..Options::new((F16, F16)) };
        let [with, without] = [Some(&*path), None]
            .map(|kv_calib| run(f32, Options { kv_calib, ..options }, &tokens, (120, 12)));
        let mean = divergence(name, &with, &without);
        assert!(mean <= LIMIT, "{name}: a mean KLD of {mean:.1e}");
    }
}

/// Two models have other fingerprints.
#[test]
fn fingerprints_tell_models_apart() {
    // SAFETY: the models are loaded.
    let [a, b] = [smollm2(), gemma()].map(|m| unsafe { sys::llama_model_kv_fingerprint(m.raw()) });
    assert_ne!(a, b);
}

/// A text of 216 tokens. The first 16 are not compared.
fn essay(model: &Model) -> Vec<Entry> {
    let mut tokens = model.tokenize(&format!("{TEXT} {ESSAY}"));
    tokens.truncate(216);
    let entry = |(pos, &token)| Entry { token, pos, seq: 0, output: pos >= 16 };
    tokens.iter().enumerate().map(entry).collect()
}

/// Mean KLD from f16/f16 without scales and with them, measured:
///
/// |               | SmolLM2         | Gemma           |
/// |---------------|-----------------|-----------------|
/// | turbo2/f16    | 0.1948   0.1571 | 0.2999   0.1075 |
/// | turbo3/turbo3 | 0.0686   0.0621 | 0.0875   0.0405 |
/// | q4_0/q4_0     | 0.0681   0.0720 | 0.1298   0.0435 |
///
/// So short a text leaves a spread of 10% to 25%, and values cost what they did.
#[test]
fn quantized_keys_cost_less_with_scales() {
    for (i, Calibrated { name, model, calibration, .. }) in calibrated().iter().enumerate() {
        let entries = essay(model);
        let logits = |options| context(model, options).decode(&entries);
        let exact = logits(Options::new((F16, F16)));
        let path = calibration.path();
        for (pair, limits) in [
            ((TURBO2, F16), [1.0, 0.75]),
            ((TURBO3, TURBO3), [1.0, 0.75]),
            ((Q4_0, Q4_0), [1.5, 1.5]), // any type may be used
        ] {
            let [without, with] = [None, Some(&*path)].map(|kv_calib| {
                mean_kld(&exact, &logits(Options { kv_calib, ..Options::new(pair) }))
            });
            let report = format!("{name} {}: {without:.4}, {with:.4} with scales", label(pair));
            println!("{report}");
            assert!(with < limits[i] * without, "{report}");
        }
    }
}

/// Heads of 96 values, which turbo types pad to 128: scales are of the 96, and keys cost less with them.
///
/// Mean KLD from f16/f16 without and with them, measured: turbo2/f16 0.2072 and 0.1035, turbo3/f16 0.0447 and 0.0297.
#[test]
fn padded_keys_cost_less_with_scales() {
    let model = models::written(|path| widened::write(&models::path("smollm2"), 96, path));
    let entries = essay(&model);
    let logits = |options| context(&model, options).decode(&entries);
    let exact = logits(Options::new((F16, F16)));
    let narrow = context(smollm2(), Options::new((F16, F16))).decode(&entries);
    let widened = mean_kld(&narrow, &exact);
    // Factors of weights were rounded to f16 once more: 0.0038.
    assert!(widened < 0.02, "the model with wider heads is another one: {widened}");

    let calibration = Calibration::of(&model, 512);
    let path = calibration.path();
    for pair in [(TURBO2, F16), (TURBO3, F16)] {
        let [without, with] = [None, Some(&*path)]
            .map(|kv_calib| mean_kld(&exact, &logits(Options { kv_calib, ..Options::new(pair) })));
        let report = format!("{}: {without:.4}, {with:.4} with scales", label(pair));
        println!("{report}");
        assert!(with < 0.85 * without, "{report}");
    }
}

/// Text of another kind than [`TEXT`].
const ESSAY: &str = "Bread is made of flour, water, salt and time. The flour of a hard wheat takes up more water \
than that of a soft one, and its dough holds the gas that the yeast gives off; this is why bakers of the north, whose \
fields grew rye, made loaves that were flat and dark and kept for a month. In 1859 a chemist in Lille showed that the \
yeast is alive. Until then many had thought that the rising of dough was a kind of rotting, and recipes of the century \
before speak of it with some caution: cover the bowl with a cloth, they say, and do not look.";

/// A graph over two streams with anchors and scales has more nodes than upstream has room for.
#[test]
fn two_streams_have_room_in_their_graph() {
    for Calibrated { model, calibration, .. } in calibrated() {
        let path = calibration.path();
        let options = Options { n_seq: 2, kv_calib: Some(&path), ..Options::new((TURBO3, TURBO3)) };
        let entry = |i: i32| Entry { token: 100 + i, pos: 0, seq: i, output: true };
        let logits = context(model, options).decode(&[entry(0), entry(1)]);
        assert_eq!(logits.len(), 2);
    }
}
