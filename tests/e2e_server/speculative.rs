//! Drafts: they change no greedy text, and survive a context shift.

use serde_json::json;

use super::common::gguf::{Tiny, write_tiny_model};
use super::common::hybrid::write_qwen35;
use super::common::models;
use super::common::server::Server;
use super::{TURBO, tiny};

/// Short patterns, which a text of noise repeats, too.
const SPECULATORS: [&str; 5] = [
    "ngram-simple --spec-ngram-simple-size-n 2 --spec-ngram-simple-size-m 3",
    "ngram-map-k --spec-ngram-map-k-size-n 2 --spec-ngram-map-k-size-m 3",
    "ngram-map-k4v --spec-ngram-map-k4v-size-n 2 --spec-ngram-map-k4v-size-m 3",
    "ngram-mod --spec-ngram-mod-n-match 2 --spec-ngram-mod-n-min 1 --spec-ngram-mod-n-max 4",
    "ngram-cache",
];

/// A shift takes tokens out of the middle of what speculators have seen.
#[test]
fn context_shifts_go_with_every_speculator() {
    let (_dir, model) = tiny();
    let path = model.to_str().expect("a path in UTF-8");
    // The model's own noise: what ngram-cache learns is the prompt alone.
    let sampled = |seed: u32| json!({"temperature": 0.5, "seed": seed});
    let prompt = Server::start(&model, &["-np", "1", "-c", "256"])
        .complete("to be or not to be", 200, sampled(3))
        .tokens();
    let draft = format!("draft-simple -md {path} -ctkd turbo4 -ctvd turbo3");
    for spec in SPECULATORS.into_iter().chain([draft.as_str()]) {
        let args = format!("-np 1 -c 256 --context-shift --spec-type {spec}");
        let args: Vec<_> = args.split(' ').collect();
        let server = Server::start(&model, &[&TURBO[..], &args].concat());
        // Twice: what was learned from one text meets another.
        for seed in [1, 2] {
            let answer = server.complete(prompt.clone(), 600, sampled(seed));
            assert_eq!(answer.tokens().len(), 600, "{spec}");
            assert_eq!(answer.0["truncated"], true, "{spec}");
            let drafted = answer.0["timings"]["draft_n"].as_u64();
            assert!(drafted.is_some_and(|n| n > 0), "{spec}: {}", answer.0["timings"]);
        }
    }
}

/// The draft's caches decide how many of its tokens are taken, not which text results.
#[test]
fn a_draft_model_with_turbo_caches_changes_no_text() {
    let model = models::path("smollm2");
    let path = model.to_str().expect("a path in UTF-8");
    let draft = ["--spec-type", "draft-simple", "-md", path, "--spec-draft-n-max", "4"];
    let types = ["-ctkd", "turbo3", "-ctvd", "turbo2"];
    let main = ["-np", "1", "-c", "512", "--kv-anchors", "off"];
    let prompts = ["The capital of France is", "One, two, three, four, five, six,"];
    for target in [&[][..], &TURBO] {
        let answers = |more: &[&str]| {
            let server = Server::start(&model, &[&main[..], target, more].concat());
            prompts.map(|prompt| server.complete(prompt, 20, json!({"n_probs": 8})))
        };
        let plain = answers(&[]);
        let drafted = answers(&[&draft[..], &types].concat());
        for (plain, drafted) in plain.iter().zip(&drafted) {
            assert!(drafted.timing("draft_n_accepted") > 0, "{}", drafted.0["timings"]);
            // Tokens that are checked together are sums in another order.
            plain.assert_same(drafted, 0.02, "drafted");
        }
    }
}

/// The scales that contexts have, as the log tells of them in order: where they are from, and their id.
fn scales(log: &str) -> Vec<(&str, &str)> {
    let lines = log.lines().filter_map(|line| line.split_once("llama_kv_scales: key scales "));
    let parts = lines.map(|(_, line)| {
        let (from, id) = line.split_once(", id ").expect("an id");
        (from, &id[..16])
    });
    parts.collect()
}

/// Each model has its own, whatever the target is told; but that nobody wants any goes for both.
#[test]
fn a_draft_model_has_a_fit_of_its_own() {
    let (dir, model) = tiny();
    let draft = dir.path().join("draft.gguf");
    write_tiny_model(&draft, Tiny::new(128));
    let file = dir.path().join("scales.gguf");
    let [draft, file] = [&draft, &file].map(|path| path.to_str().expect("a path in UTF-8"));
    let quick = |calib: &[&str]| {
        let types = ["-ctkd", "turbo3", "-ctvd", "turbo2", "-np", "1", "-c", "256", "-lv", "4"];
        let spec = ["--spec-type", "draft-simple", "-md", draft];
        let server = Server::start(&model, &[&TURBO[..], &types, &spec, calib].concat());
        let answer = server.complete("to be or not to be", 12, json!({}));
        assert_eq!(answer.tokens().len(), 12);
        server.log()
    };
    let log = quick(&[]);
    let [(of_target, target), (of_draft, drafts)] = scales(&log)[..] else { panic!("{log}") };
    assert!(of_target.contains("quick fit") && of_draft.contains("quick fit"), "{log}");
    assert_ne!(target, drafts);

    // Those that the target has, by name.
    let (_, source) = of_target.split_once('\'').expect("a file");
    let (source, _) = source.split_once('\'').expect("a file");
    std::fs::copy(source, file).expect("copied");
    let log = quick(&["--kv-calib", file]);
    let [(of_target, first), (of_draft, second)] = scales(&log)[..] else { panic!("{log}") };
    assert!(of_target.contains(file) && of_draft.contains("quick fit"), "{log}");
    assert_eq!((first, second), (target, drafts));

    assert_eq!(scales(&quick(&["--kv-calib", "off"])), []);
}

/// What drafts with a layer of the target's own (MTP) has keys of that layer alone, which no text was run for.
#[test]
fn a_layer_that_drafts_has_no_scales() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = dir.path().join("model.gguf");
    write_qwen35(&model);
    let answer = |spec: &[&str]| {
        let types = ["-ctkd", "turbo3", "-ctvd", "turbo2", "-np", "1", "-c", "256", "-lv", "4"];
        let server = Server::start(&model, &[&TURBO[..], &types, spec].concat());
        let answer = server.complete("to be or not to be", 12, json!({"n_probs": 8}));
        (answer, server.log())
    };
    let (plain, _) = answer(&[]);
    let (drafted, log) = answer(&["--spec-type", "draft-mtp"]);
    assert!(drafted.0["timings"]["draft_n"].as_u64().is_some_and(|n| n > 0), "{log}");
    plain.assert_same(&drafted, 0.02, "drafted");
    let of_all = scales(&log);
    assert!(matches!(of_all[..], [(of_target, _)] if of_target.contains("quick fit")), "{log}");
    assert!(log.contains("key scales are off: the context drafts by layers of its own"), "{log}");
}
