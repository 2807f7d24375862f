//! Cache types layer by layer, as a user asks for them: policies, presets, and what is refused.
#![cfg(feature = "llama")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::models;
use common::process::{Finished, run, turbo4_key_sizes};
use common::t5::write_t5;

const COMPLETION: &str = env!("CARGO_BIN_EXE_llama-completion");
const LIMIT: Duration = Duration::from_secs(60);

/// A few tokens of a test model, with the library's log.
fn complete(model: &str, args: &[&str]) -> Finished {
    complete_with(&models::path(model), args)
}

fn complete_with(model: &Path, args: &[&str]) -> Finished {
    let mut all =
        vec!["-m", model.to_str().expect("a path in UTF-8"), "-p", "The capital of France is"];
    all.extend([
        "-no-cnv",
        "--simple-io",
        "-n",
        "8",
        "-c",
        "256",
        "-t",
        "1",
        "--temp",
        "0",
        "--no-warmup",
        "-lv",
        "4",
    ]);
    all.extend(args);
    run(COMPLETION, &all, &[], LIMIT)
}

#[test]
fn a_policy_gives_each_layer_its_type() {
    let ran = complete(
        "smollm2",
        &["-ctk", "turbo3,first2=q8_0,last1=turbo4,5=f16,7-9=turbo2", "-ctv", "turbo4,last2=q8_0"],
    );
    ran.assert_success();
    let types = "K 0-1: q8_0, 2-4: turbo3, 5: f16, 6: turbo3, 7-9: turbo2, 10-28: turbo3, 29: turbo4; V 0-27: turbo4, 28-29: q8_0";
    assert!(ran.text().contains(types), "{}", ran.text());
    assert!(ran.stdout.contains("Paris"), "{}", ran.text());
}

/// Gemma has two caches, one for the layers that see 512 cells: its layers are counted over both.
#[test]
fn layers_are_counted_over_the_caches_of_a_model() {
    let ran = complete("gemma", &["-ctk", "turbo4,6=q8_0", "-ctv", "turbo4"]);
    ran.assert_success();
    assert!(ran.text().contains("K 0-5: turbo4, 6: q8_0, 7-17: turbo4"), "{}", ran.text());
    // 256 cells of one head of 256 values in 18 layers: one with 8.5 bits, the others with 4.25 and anchors.
    let bits = 17.0 * (4.25 + 0.25) + 8.5;
    let expected = 256.0 * 256.0 * bits / 8.0 / 1024.0 / 1024.0;
    let sum: f64 = turbo4_key_sizes(&ran.text()).iter().sum();
    assert!((sum - expected).abs() < 0.011, "{sum} instead of {expected} MiB: {}", ran.text());
}

#[test]
fn presets_are_pairs() {
    for (preset, k, v) in [
        ("k4v4", "turbo4", "turbo4"),
        ("k4v3", "turbo4", "turbo3"),
        ("k4v2", "turbo4", "turbo2"),
        ("k3v2", "turbo3", "turbo2"),
        ("quality", "q8_0", "turbo4"),
    ] {
        let ran = complete("smollm2", &["--kv-preset", preset]);
        ran.assert_success();
        for types in [format!("K ({k})"), format!("V ({v})")] {
            assert!(ran.text().contains(&types), "{preset}: no {types}: {}", ran.text());
        }
    }
    complete("smollm2", &["--kv-preset", "k9"]).assert_refused(&["k9", "k4v2", "quality"]);
}

#[test]
fn a_wrong_policy_is_refused() {
    for (policy, words) in [
        ("turbo4,", &["turbo4,"][..]),
        ("turbo9,first2=q8_0", &["turbo9"]),
        ("turbo4,first2=turbo9", &["turbo9"]),
        ("turbo4,first2", &["first2", "SELECTOR=TYPE"]),
        ("turbo4,middle=f16", &["middle", "firstN, lastN"]),
        ("turbo4,30=f16", &["30", "30 KV layers"]),
        ("turbo4,last31=f16", &["last31", "30 KV layers"]),
        ("turbo4,5-3=f16", &["5-3", "out of range"]),
        ("turbo4,first0=f16", &["first0", "out of range"]),
        ("turbo4,99999999999=f16", &["99999999999"]),
    ] {
        for flag in ["-ctk", "-ctv"] {
            complete("smollm2", &[flag, policy]).assert_refused(words);
        }
    }
    // V of one layer is enough to need flash attention.
    complete("smollm2", &["-ctv", "f16,3=turbo2", "-fa", "off"])
        .assert_refused(&["flash attention", "3: turbo2"]);
}

/// As upstream's types are, too: flash attention is on, but T5's graph leaves it.
#[test]
fn quantized_values_of_t5_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("t5.gguf");
    write_t5(&path);
    for v in ["q8_0", "turbo4", "f16,0=q4_0"] {
        for flash_attention in ["auto", "on"] {
            complete_with(&path, &["-ctv", v, "-fa", flash_attention]).assert_refused(&[
                "needs flash attention",
                "t5",
                "use f16 for V",
            ]);
        }
    }
}
