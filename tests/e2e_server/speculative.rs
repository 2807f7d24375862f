//! Drafts: they change no greedy text, and survive a context shift.

use serde_json::json;

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
