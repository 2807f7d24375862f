//! `turboquant compare`, as a user runs it.
#![cfg(feature = "cli")]

mod common;

use common::cli::{Folder, assert_error, column, smollm2, turboquant};
use common::process::Finished;
use llama_turboquant::llama::free_memory;
use serde_json::Value;

const QUESTION: &str = "What is the capital of France?";

/// The answers to a question.
fn compare(args: &[&str]) -> Finished {
    let model = smollm2();
    turboquant(&[&["compare", "-m", &model, "-n", "16", "-t", "1"], args].concat())
}

fn results(ran: &Finished) -> (Value, Vec<Value>) {
    ran.assert_success();
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let results = json["results"].as_array().expect("results").clone();
    (json, results)
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().expect("an array").iter();
    numbers.map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn coarser_caches_are_further_from_the_reference() {
    let pairs = ["--pairs", "f16/f16", "f16/f16", "turbo4/turbo4", "turbo2/turbo2"];
    let ran = compare(&[&["-p", QUESTION, "--format", "json"], &pairs[..]].concat());
    let (json, results) = results(&ran);
    for (key, word) in
        [("prompt", QUESTION.into()), ("predict", 16.into()), ("seed", Value::from(1))]
    {
        assert_eq!(json["settings"][key], word, "{key}");
    }
    for key in ["version", "commit", "llama_cpp", "cpu", "kernels", "model"] {
        assert!(json.get(key).is_some(), "no {key}: {json}");
    }
    assert_eq!(results.len(), 4);
    let n = results[0]["tokens"].as_array().expect("tokens").len();
    let klds: Vec<Vec<f64>> = results.iter().map(|result| numbers(&result["kld"])).collect();
    assert!(klds.iter().all(|kld| kld.len() == n), "a number for each of {n} tokens");

    // The same types are the same to the bit, whatever the text.
    assert!(klds[0].iter().chain(&klds[1]).all(|&kld| kld == 0.0), "{klds:?}");
    assert_eq!(results[1]["text"], results[0]["text"]);
    assert_eq!((&results[1]["divergence"], &results[1]["same_top"]), (&Value::Null, &1.0.into()));

    let mean = |i: usize| results[i]["mean_kld"].as_f64().expect("a number");
    assert!(0.0 < mean(2) && 2.0 * mean(2) < mean(3), "{} and {}", mean(2), mean(3));
    let of_tokens = klds[3].iter().sum::<f64>() / n as f64;
    assert!((of_tokens - mean(3)).abs() < 1e-9, "{of_tokens} and {}", mean(3));
    // 30 layers of 192 values for K and V each, 256 cells.
    let bits = |i: usize| results[i]["bits_per_value"].as_f64().expect("a number");
    assert_eq!((bits(0), bits(2)), (16.0, 4.375));
    let mib = |key: &str| results[2][key].as_f64().expect("a number");
    let expected = |bits: f64| 30.0 * 192.0 * 256.0 * bits / 8.0 / f64::from(1 << 20);
    assert_eq!((mib("k_mib"), mib("v_mib")), (expected(4.5), expected(4.25)));
}

#[test]
fn the_first_token_that_differs_is_marked() {
    // Of random weights: what is likely hangs by a hair.
    let folder = Folder::new(64);
    let base = ["compare", "-m", &folder.model(), "--raw", "-p", "abc", "-n", "64", "-t", "1"];
    let run = |format: &str| {
        let pairs = ["--pairs", "f16", "turbo2", "--format", format];
        turboquant(&[&base[..], &pairs].concat())
    };
    let (_, results) = results(&run("json"));
    let tokens = |i: usize| numbers(&results[i]["tokens"]);
    let (expected, found) = (tokens(0), tokens(1));
    let first = expected.iter().zip(&found).position(|(a, b)| a != b).expect("they differ");
    let divergence = &results[1]["divergence"];
    assert_eq!(divergence["token"], first, "{divergence}");
    assert_ne!(divergence["expected"], divergence["found"]);
    let text = |i: usize| results[i]["text"].as_str().expect("a text");
    let byte = divergence["byte"].as_u64().expect("a number") as usize;
    assert_eq!(text(0)[..byte], text(1)[..byte]);

    let ran = run("table");
    ran.assert_success();
    let (same, other) = text(1).split_at(byte);
    assert!(ran.stdout.contains(format!("{same}[!=]{other}").trim_end()), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("reference f16 / f16, 64 tokens:\n\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\x1b'), "no colour in a pipe: {}", ran.stdout);

    let csv = run("csv").stdout;
    assert_eq!(column(&csv, "same tokens"), ["-", &first.to_string()]);
    assert_eq!(column(&csv, "K / V"), ["f16 / f16", "turbo2 / turbo2"]);
    assert!(run("md").stdout.starts_with("| K / V | bits per value |"));
}

#[test]
fn a_seed_repeats_texts() {
    let folder = Folder::new(64);
    let text = |seed: &str| {
        let base = ["compare", "-m", &folder.model(), "--raw", "-p", "abc", "-n", "32", "-t", "1"];
        let pairs = ["--pairs", "f16", "f16", "--temp", "2", "--seed", seed, "--format", "json"];
        let (_, results) = results(&turboquant(&[&base[..], &pairs].concat()));
        // The same seed for both.
        assert_eq!(results[0]["tokens"], results[1]["tokens"]);
        results[0]["tokens"].clone()
    };
    assert_eq!(text("7"), text("7"));
    assert_ne!(text("7"), text("8"));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = Folder::new(80);
    let model = folder.model();
    let bad = folder.write("bad.txt", [0xff]);
    let compare = |args: &[&str]| turboquant(&[&["compare", "-m", &model, "--raw"], args].concat());
    let prompt = ["-p", "a"];
    assert_error(&compare(&[]), 2, &["--prompt"]);
    assert_error(&compare(&["-p", " "]), 1, &["prompt is empty"]);
    assert_error(&compare(&["-f", &bad]), 1, &["bad.txt is not UTF-8"]);
    let with = |args: &[&str]| compare(&[&prompt[..], args].concat());
    assert_error(&with(&["--pairs", "f16"]), 1, &["1 pairs", "one more"]);
    assert_error(&with(&["--pairs", "f16", "turbo9"]), 2, &["turbo9", "turbo4"]);
    assert_error(
        &with(&["--pairs", "f16", "f16/q8_0"]),
        1,
        &["f16 / q8_0", "multiple of 32", "use"],
    );
    assert_error(&with(&["--pairs", "f16", "q8_0", "-n", "0"]), 2, &["--predict"]);
    assert_error(&with(&["--pairs", "f16", "bf16", "--temp", "nan"]), 1, &["NaN"]);
    if free_memory().is_some_and(|free| free < 192 << 30) {
        let long =
            ["compare", "-m", &smollm2(), "-p", "a", "--pairs", "f16", "q8_0", "-n", "1048576"];
        let words = ["1048576 tokens, 49152 each", "192.0 GiB", "fewer tokens"];
        assert_error(&turboquant(&long), 1, &words);
    }
    let none = turboquant(&["compare", "-m", &folder.path("none.gguf"), "-p", "a"]);
    assert_error(&none, 1, &["none.gguf"]);
}
