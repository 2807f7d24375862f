//! `turboquant plan`: against arithmetic, for outlines of large models, and against what llama.cpp allocates.
#![cfg(feature = "cli")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::models;
use common::outline::Outline;
use common::process::run;
use llama_turboquant::llama::{CachePolicy, Context, ContextParams, Model};
use serde_json::Value;

const CONTEXTS: [u32; 3] = [8192, 32768, 131_072];
const PAIRS: [&str; 5] =
    ["f16/f16", "q8_0/q8_0", "turbo4/turbo4", "turbo4/turbo2", "turbo2,first2=q8_0/turbo3"];

fn plan(model: &str, args: &[&str]) -> Value {
    let args = [&["plan", model, "--format", "json"], args].concat();
    let ran = run(env!("CARGO_BIN_EXE_turboquant"), &args, &[], Duration::from_secs(300));
    ran.assert_success();
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// The plan of an outline: all pairs but f16 for both, which every plan begins with, at all contexts.
fn plan_outline(outline: &Outline, memory: &str) -> Value {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("outline.gguf");
    outline.write(&path);
    let contexts = CONTEXTS.map(|n| n.to_string());
    let args = [&["--memory", memory, "--pairs"], &PAIRS[1..], &["-c"]].concat();
    let args: Vec<_> = args.into_iter().chain(contexts.iter().map(String::as_str)).collect();
    plan(path.to_str().expect("a path in UTF-8"), &args)
}

/// Bytes of a value: of K, with an f16 anchor for 64 cells, and of V.
fn sizes(pair: &str) -> (f64, f64) {
    match pair {
        "f16/f16" => (2.0, 2.0),
        "q8_0/q8_0" => (34.0 / 32.0, 34.0 / 32.0),
        "turbo4/turbo4" => ((34.0 + 2.0) / 64.0, 34.0 / 64.0),
        "turbo4/turbo2" => ((34.0 + 2.0) / 64.0, 18.0 / 64.0),
        _ => panic!("{pair}"),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn assert_near(got: &Value, want: f64, what: &str) {
    let got = number(got);
    assert!((got - want).abs() <= 0.01 * want, "{what}: {got}, not {want}");
}

/// Values of K in the caches of a context, as many as of V.
fn assert_pairs(plan: &Value, n_values: impl Fn(u32) -> u64) {
    for (pair, row) in PAIRS.iter().zip(plan["pairs"].as_array().expect("rows")).take(4) {
        for (i, n_ctx) in CONTEXTS.into_iter().enumerate() {
            let of = &row["bytes"][i];
            let (n, (k, v)) = (n_values(n_ctx) as f64, sizes(pair));
            assert_eq!(number(&of["ctx_size"]), f64::from(n_ctx));
            assert_near(&of["k"], n * k, &format!("K of {pair} at {n_ctx}"));
            assert_near(&of["v"], n * v, &format!("V of {pair} at {n_ctx}"));
        }
    }
}

#[test]
fn of_a_model_with_grouped_queries() {
    let outline = Outline::llama_8b();
    let plan = plan_outline(&outline, "16G");
    assert_pairs(&plan, |n_ctx| 32 * 1024 * u64::from(n_ctx));
    let rows = plan["pairs"].as_array().expect("rows");
    for of in rows.iter().flat_map(|row| row["bytes"].as_array().expect("bytes")) {
        assert_near(&of["model"], outline.n_bytes() as f64, "weights");
    }
    // Two layers of q8_0 and 30 of turbo2, whose anchors all layers have.
    let n = 1024.0 * 131_072.0;
    let k = n * (2.0 * 34.0 / 32.0 + 30.0 * 18.0 / 64.0 + 32.0 * 2.0 / 64.0);
    let mixed = number(&rows[4]["bytes"][2]["k"]);
    assert!((mixed - k).abs() <= 0.02 * k, "{mixed}, not {k}");

    // 4.6 GB of weights and 17 GB of f16 do not fit into 16 GiB at 128K, q8_0 does.
    let longest: Vec<_> = rows.iter().map(|row| number(&row["longest_context"])).collect();
    assert!(longest[0] > 65536.0 && longest[0] < 98304.0, "{longest:?}");
    assert_eq!(longest[1..], [131_072.0; 4]);
    let best: Vec<_> = (0..3).map(|i| plan["recommended"][i]["k"].as_str()).collect();
    assert_eq!(best, [Some("f16"), Some("f16"), Some("q8_0")]);
}

#[test]
fn of_a_model_with_sliding_windows() {
    let outline = Outline::gemma3_4b();
    let plan = plan_outline(&outline, "4G");
    // 5 layers of 34 see all cells, the others a window and the batch that is computed at once.
    assert_pairs(&plan, |n_ctx| 1024 * (5 * u64::from(n_ctx) + 29 * (1024 + 512)));
    let rows = plan["pairs"].as_array().expect("rows");
    let longest = number(&rows[0]["longest_context"]);
    let turbo = number(&rows[3]["longest_context"]);
    assert!(longest < turbo && turbo <= 131_072.0, "{longest} {turbo}");
}

#[test]
fn of_a_model_with_latent_attention() {
    let plan = plan_outline(&Outline::deepseek_mla(), "64G");
    let rows = plan["pairs"].as_array().expect("rows");
    for (i, n_ctx) in CONTEXTS.into_iter().enumerate() {
        let values = 61.0 * 576.0 * f64::from(n_ctx);
        assert_near(&rows[0]["bytes"][i]["k"], 2.0 * values, "K in f16");
        assert_eq!(number(&rows[0]["bytes"][i]["v"]), 0.0, "values are a part of keys");
        assert_near(&rows[1]["bytes"][i]["k"], 34.0 / 32.0 * values, "K in q8_0");
    }
    // One type for keys and values alone.
    for row in &rows[2..] {
        let (k, v) = (row["k"].as_str(), row["v"].as_str());
        match row["error"].as_str() {
            None => assert_eq!(k, v, "{row}"),
            Some(why) => assert!(k != v && why.contains("K") && why.contains("V"), "{why}"),
        }
    }
}

/// What llama.cpp then allocates, with the same pairs.
#[test]
fn agrees_with_what_is_allocated() {
    for model in ["smollm2", "gemma"] {
        let path = models::path(model);
        // Mapped, weights that are rearranged for the processor would count twice: pages of the file can be dropped.
        let loaded = Model::builder(&path).mmap(false).load().expect("the model loads");
        let args = [&["--pairs"], &PAIRS[1..], &["-c", "1024", "8192", "--memory", "64G"]].concat();
        let plan = plan(path.to_str().expect("a path in UTF-8"), &args);
        for (pair, row) in PAIRS.iter().zip(plan["pairs"].as_array().expect("rows")) {
            for (i, n_ctx) in [1024, 8192].into_iter().enumerate() {
                let real = allocated(&loaded, pair, n_ctx);
                let said = &row["bytes"][i];
                let what = format!("{model}, {pair} at {n_ctx}");
                for (key, bytes) in ["k", "v", "compute", "model"].iter().zip(real) {
                    assert_near(&said[key], bytes as f64, &format!("{what}, {key}"));
                }
            }
        }
    }
}

/// Bytes of K, of V, of buffers for computing and of weights.
fn allocated(model: &Arc<Model>, pair: &str, n_ctx: u32) -> [u64; 4] {
    let (k, v) = pair.split_once('/').expect("a pair");
    let policy = |text: &str| text.parse::<CachePolicy>().expect("a policy");
    let params =
        ContextParams::default().n_ctx(n_ctx).swa_full(false).cache_types(policy(k), policy(v));
    let context = Context::new(model, &params).expect("a context");
    let of = context.memory_use().expect("sizes");
    [of.k, of.v, of.compute, of.model]
}

/// The columns of the page's first table, behind those of pairs and bits.
const MODELS: [&str; 4] =
    ["Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-0.5B", "Gemma-3-270M", "SmolLM2-135M"];

/// Numbers that plans give reasons with are those of the page.
#[test]
fn recommends_by_what_was_measured() {
    let page = std::fs::read_to_string("docs/quality.md").expect("a page");
    let path = models::path("smollm2");
    let path = path.to_str().expect("a path in UTF-8");
    for pair in
        ["turbo4/turbo4", "turbo4/turbo3", "turbo3/turbo3", "turbo4/turbo2", "turbo2/turbo2"]
    {
        // f16 takes 90 MiB of cache, any of these at most 25.
        let (k, v) = pair.split_once('/').expect("a pair");
        let plan = plan(path, &["--pairs", pair, "-c", "4096", "--memory", "230M"]);
        let best = &plan["recommended"][0];
        assert_eq!((best["k"].as_str(), best["v"].as_str()), (Some(k), Some(v)), "{plan}");
        let row = page.lines().find(|line| line.starts_with(&format!("| {k} / {v} ")));
        let cells: Vec<_> = row.expect("a row").split('|').map(str::trim).collect();
        let kld = &best["mean_kld"];
        let said = MODELS.map(|name| format!("{:.4}", number(&kld[name])));
        assert_eq!(said, cells[3..7], "{pair}");
    }
    let none = plan(path, &["--pairs", "turbo4", "-c", "4096", "--memory", "20M"]);
    assert_eq!(none["recommended"][0], Value::Null);
    let shorter = plan(path, &["--pairs", "turbo4", "-c", "8192", "--memory", "170M"]);
    let longest = number(&shorter["recommended"][0]["ctx_size"]);
    assert!((256.0..8192.0).contains(&longest), "{shorter}");
}

#[test]
#[ignore = "prints the tables of docs/cli.md: cargo test --test e2e_cli_plan tables -- --ignored --nocapture"]
fn tables_for_the_page() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let outline = |name: &str, outline: Outline| {
        let path = dir.path().join(name);
        outline.write(&path);
        path
    };
    let models = [
        models::path("smollm2"),
        models::path("gemma"),
        outline("llama-8b.gguf", Outline::llama_8b()),
        outline("gemma3-4b.gguf", Outline::gemma3_4b()),
        outline("deepseek-mla.gguf", Outline::deepseek_mla()),
    ];
    let contexts = CONTEXTS.map(|n| n.to_string());
    for path in &models {
        let path = path.to_str().expect("a path in UTF-8");
        let args = ["plan", path, "--memory", "16G", "-c"];
        let args: Vec<_> = args.into_iter().chain(contexts.iter().map(String::as_str)).collect();
        let ran = run(env!("CARGO_BIN_EXE_turboquant"), &args, &[], Duration::from_secs(300));
        ran.assert_success();
        println!("{path}\n{}", ran.stdout);
    }
}
