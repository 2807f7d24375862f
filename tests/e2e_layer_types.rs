//! Cache types layer by layer, as a user asks for them: policies, presets, and what is refused.
#![cfg(feature = "llama")]

mod common;

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use llama_turboquant::llama::{CacheType, sys};

use common::engine::{Model, logged, type_name};
use common::gguf::{Tiny, write_tiny_model};
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
        ("f16,0=i32", &["i32", "no cache type", "q8_0"]),
        ("f16,0=iq2_xxs", &["iq2_xxs", "no cache type", "turbo4"]),
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

/// The list of `-ctk` is that of exceptions, and the library's.
#[test]
fn all_lists_of_cache_types_are_one() {
    let help = run(COMPLETION, &["--help"], &[], LIMIT);
    help.assert_success();
    for flag in ["--cache-type-k TYPE", "--cache-type-v TYPE"] {
        let (_, after) = help.stdout.split_once(flag).expect("the flag");
        let (_, values) = after.split_once("allowed values: ").expect("its values");
        let (values, _) = values.split_once(" or TYPE,").expect("what else it takes");
        let mut listed: Vec<_> = values.split([',', ' ', '\n']).filter(|v| !v.is_empty()).collect();
        let mut own: Vec<_> = CacheType::ALL.iter().map(|t| t.name()).collect();
        listed.sort_unstable();
        own.sort_unstable();
        assert_eq!(listed, own, "{flag}");
    }
}

/// Programs in C get as far as `llama_init_from_model` with any number.
#[test]
fn only_cache_types_make_caches() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let model = Model::load(&path).expect("the tiny model loads");
    // SAFETY: plain values.
    let defaults = unsafe { sys::llama_context_default_params() };
    // Whether there is a context, and what was logged.
    let create = |k: sys::ggml_type, exceptions: Option<&str>| {
        let exceptions = exceptions.map(|text| CString::new(text).expect("no NUL"));
        let mut params = defaults;
        params.n_ctx = 256;
        params.type_k = k;
        params.type_k_layers = exceptions.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        // SAFETY: the model and the text live during the calls; the context is freed once.
        logged(|| unsafe {
            let context = sys::llama_init_from_model(model.raw(), params);
            sys::llama_free(context);
            !context.is_null()
        })
    };
    let cache_types: Vec<&str> = CacheType::ALL.iter().map(|t| t.name()).collect();
    let n_types = sys::ggml_type::GGML_TYPE_COUNT.0;
    for id in (0..n_types + 3).chain([u32::MAX]) {
        let name = (id < n_types).then(|| type_name(sys::ggml_type(id)));
        let expected = name.is_some_and(|name| cache_types.contains(&name));
        let (made, log) = create(sys::ggml_type(id), None);
        assert_eq!(made, expected, "{id}: {log}");
        assert!(made || log.contains("no cache type"), "{id}: {log}");
        let Some(name) = name else { continue };
        let (made, log) = create(sys::ggml_type::GGML_TYPE_F16, Some(&format!("0={name}")));
        assert_eq!(made, expected, "{name}: {log}");
        assert!(made || log.contains("no cache type"), "{name}: {log}");
    }
}
