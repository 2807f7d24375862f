//! `turboquant doctor`: it finds what is wrong, and says what to do.
#![cfg(feature = "cli")]

mod common;

use common::cli::{LIMIT, TURBOQUANT};
use common::gguf::{Tiny, write_tiny_model};
use common::models;
use common::process::{Finished, run};
use serde_json::Value;

/// Runs the doctor in an environment without surprises but for `env`.
fn doctor(args: &[&str], env: &[(&str, &str)]) -> Finished {
    let clean = [("PATH", "/usr/bin:/bin"), ("TQ_SIMD", best())];
    run(TURBOQUANT, &[&["doctor"], args].concat(), &[&clean, env].concat(), LIMIT)
}

fn best() -> &'static str {
    llama_turboquant::kernels::available().next().expect("scalar").name
}

fn checks(ran: &Finished) -> Vec<Value> {
    let json: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.text()));
    json["checks"].as_array().expect("checks").clone()
}

/// The check of this name is in this state, and says the words.
#[track_caller]
fn assert_check(ran: &Finished, name: &str, state: &str, words: &[&str]) {
    let checks = checks(ran);
    let found: Vec<_> = checks.iter().filter(|check| check["check"] == name).collect();
    let fits = |check: &&&Value| {
        let text = format!("{} {}", check["found"], check["fix"]);
        check["state"] == state && words.iter().all(|word| text.contains(word))
    };
    assert!(
        found.iter().any(|check| fits(&check)),
        "no {name} is {state} with {words:?}: {found:#?}"
    );
}

fn model(dir: &tempfile::TempDir, head_dim: u64) -> String {
    let path = dir.path().join("model.gguf");
    write_tiny_model(&path, Tiny::new(head_dim));
    path.to_str().expect("a path in UTF-8").into()
}

#[test]
fn a_machine_without_problems_has_none() {
    let ran = doctor(&[], &[]);
    ran.assert_success();
    for word in [
        "ok       kernels: ",
        best(),
        "self test",
        "turbo2, 3 and 4 0.08",
        "memory",
        "processors",
        "0 problems",
    ] {
        assert!(ran.stdout.contains(word), "no {word}: {}", ran.text());
    }
    let json = doctor(&["--format", "json"], &[]);
    json.assert_success();
    for name in ["kernels", "self test", "environment", "PATH"] {
        assert_check(&json, name, "ok", &[]);
    }
    let csv = doctor(&["--format", "csv"], &[]);
    csv.assert_success();
    assert!(csv.stdout.starts_with("state,check,found,fix\n"), "{}", csv.stdout);
}

#[test]
fn slow_kernels_are_a_warning_and_impossible_ones_a_problem() {
    let scalar = doctor(&["--format", "json"], &[("TQ_SIMD", "scalar")]);
    scalar.assert_success();
    if best() != "scalar" {
        assert_check(&scalar, "kernels", "warning", &["TQ_SIMD=scalar", best(), "unset TQ_SIMD"]);
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = model(&dir, 64);
    let ran = doctor(&["--format", "json", "-m", &model], &[("TQ_SIMD", "quantum")]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    assert_check(&ran, "kernels", "problem", &["TQ_SIMD=quantum", "scalar"]);
    assert_check(&ran, "run", "warning", &["not run"]);
}

#[test]
fn variables_that_change_caches_are_told() {
    let env = [
        ("LLAMA_ATTN_ROT_DISABLE", "1"),
        ("LLAMA_ARG_CACHE_TYPE_K", "turbo9"),
        ("LLAMA_ARG_CACHE_TYPE_V", "turbo3,first1=q8_0"),
        ("LLAMA_ARG_KV_ANCHORS", "off"),
        ("LLAMA_ARG_KV_CALIB", "/no/such/file.gguf"),
        ("LLAMA_ARG_FLASH_ATTN", "off"),
        ("LLAMA_ARG_CACHE_TYPE", "turbo4"),
        ("LLAMA_ARG_THREADS", "512"),
        ("LLAMA_GRAPH_REUSE_DISABLE", "1"),
    ];
    let ran = doctor(&["--format", "json"], &env);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    let rotation = ["LLAMA_ATTN_ROT_DISABLE=1", "rotation", "unset LLAMA_ATTN_ROT_DISABLE"];
    assert_check(&ran, "LLAMA_ATTN_ROT_DISABLE", "problem", &rotation);
    assert_check(&ran, "LLAMA_ARG_CACHE_TYPE_K", "problem", &["turbo9", "turbo4"]);
    assert_check(&ran, "LLAMA_ARG_CACHE_TYPE_V", "ok", &["turbo3,first1=q8_0"]);
    assert_check(&ran, "LLAMA_ARG_KV_ANCHORS", "warning", &["less precise"]);
    assert_check(&ran, "LLAMA_ARG_KV_CALIB", "problem", &["/no/such/file.gguf"]);
    assert_check(&ran, "LLAMA_ARG_FLASH_ATTN", "problem", &["flash attention"]);
    assert_check(&ran, "LLAMA_ARG_CACHE_TYPE", "warning", &["no tool reads"]);
    assert_check(&ran, "processors", "warning", &["512 threads"]);
    assert_check(&ran, "LLAMA_GRAPH_REUSE_DISABLE", "warning", &["slower"]);
    let off = doctor(&["--format", "json"], &[("LLAMA_ATTN_ROT_DISABLE", "0")]);
    off.assert_success();
    assert_check(&off, "environment", "ok", &[]);
}

#[test]
fn more_threads_than_processors_are_a_warning() {
    let ran = doctor(&["--format", "json", "-t", "512"], &[]);
    ran.assert_success();
    assert_check(&ran, "processors", "warning", &["512 threads"]);
}

/// Of another llama.cpp, of this build, and one that has the types but is not of this build.
#[cfg(unix)]
#[test]
fn tools_on_path_are_asked_for_the_types() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().expect("a temporary folder");
    let tool = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("a script");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("a mode");
    };
    tool("llama-cli", "echo '-ctk TYPE, allowed values: f16, q8_0, q4_0'");
    tool("llama-server", "echo 'allowed values: f16, turbo4' >&2");
    // Not executable: what comes later on PATH would be run.
    std::fs::write(dir.path().join("llama-perplexity"), "").expect("a file");
    symlink(env!("CARGO_BIN_EXE_llama-bench"), dir.path().join("llama-bench")).expect("a link");
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let ran = doctor(&["--format", "json"], &[("PATH", &path)]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    let folder = dir.path().to_str().expect("a path in UTF-8");
    assert_check(&ran, "llama-cli", "problem", &[folder, "does not know turbo4", "first on PATH"]);
    assert_check(&ran, "llama-server", "warning", &[folder, "not of this build"]);
    assert_check(&ran, "llama-bench", "ok", &[folder, "of this build"]);
    assert!(
        checks(&ran).iter().all(|check| check["check"] != "llama-perplexity"),
        "{}",
        ran.text()
    );
}

#[test]
fn pairs_that_cannot_be_come_with_one_that_can() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let small = model(&dir, 80);
    let ran = doctor(&["--format", "json", "-m", &small, "-ctk", "q8_0", "-ctv", "q4_0"], &[]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    assert_check(&ran, "types", "problem", &["multiple of 32", "80", "-ctk f16 -ctv f16"]);
    assert_check(&ran, "run", "warning", &["not run"]);

    let good = model(&dir, 64);
    let off = doctor(&["--format", "json", "-m", &good, "-fa", "off"], &[]);
    assert_eq!(off.status.code(), Some(1), "{}", off.text());
    assert_check(&off, "types", "problem", &["flash attention", "-fa off"]);
    let rotation = [("LLAMA_ATTN_ROT_DISABLE", "1")];
    let off = doctor(&["--format", "json", "-m", &good], &rotation);
    assert_eq!(off.status.code(), Some(1), "{}", off.text());
    assert_check(&off, "types", "problem", &["LLAMA_ATTN_ROT_DISABLE=1", "unset"]);

    let args = ["--format", "json", "-m", &good, "--no-run", "-ctk", "turbo4", "-ctv", "q4_0"];
    let slow = doctor(&[&args[..], &["--kv-anchors", "off"]].concat(), &[]);
    slow.assert_success();
    assert_check(&slow, "pair", "warning", &["turbo4 / q4_0"]);
    assert_check(&slow, "anchors", "warning", &["off"]);
    assert!(checks(&slow).iter().all(|check| check["check"] != "allocated"), "{}", slow.text());

    let none = doctor(&["--format", "json", "-m", "/no/such/model.gguf"], &[]);
    assert_eq!(none.status.code(), Some(1), "{}", none.text());
    assert_check(&none, "types", "problem", &["/no/such/model.gguf"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_context_that_does_not_fit_is_a_warning() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = model(&dir, 64);
    let limited = format!(
        "ulimit -v 1000000; exec {TURBOQUANT} doctor --format json -m {model} --no-run -c 1000000"
    );
    let ran = run("/bin/sh", &["-c", &limited], &[("PATH", "/usr/bin:/bin")], LIMIT);
    ran.assert_success();
    assert_check(&ran, "address space", "warning", &["976.6 MiB", "ulimit"]);
    assert_check(&ran, "size", "warning", &["1000000 tokens", "976.6 MiB left", "-c 512 or less"]);
}

#[test]
fn a_model_that_runs_is_looked_at() {
    let model = models::path("smollm2");
    let model = model.to_str().expect("a path in UTF-8");
    let ran = doctor(&["--format", "json", "-m", model, "-ctv", "turbo3", "-t", "2"], &[]);
    ran.assert_success();
    // 30 layers of 192 values, 256 cells: 4.5 and 3.25 bits.
    assert_check(&ran, "allocated", "ok", &["K 0.8 MiB", "V 0.6 MiB", "turbo4 / turbo3"]);
    assert_check(&ran, "quality", "ok", &["mean KLD to f16 0.0", "127 tokens"]);
    assert_check(&ran, "speed", "ok", &["t/s"]);
    assert_check(&ran, "anchors", "ok", &["on"]);
    assert_check(&ran, "size", "ok", &["at 8192 tokens", "180.0 MiB of f16"]);
    assert_check(
        &ran,
        "calibration",
        "ok",
        &["quick key scales, id ", ".gguf", "--kv-calib", "turboquant calibrate"],
    );
}
