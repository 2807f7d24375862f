//! The programs, as a user runs them: what they list, what they refuse and how, a real answer.
#![cfg(feature = "llama")]

mod common;

use std::time::Duration;

use common::gguf::{Tiny, write_tiny_model};
use common::models;
use common::process::{Finished, run, turbo4_key_sizes};

const CLI: &str = env!("CARGO_BIN_EXE_llama-cli");
const COMPLETION: &str = env!("CARGO_BIN_EXE_llama-completion");
const BENCH: &str = env!("CARGO_BIN_EXE_llama-bench");
const PERPLEXITY: &str = env!("CARGO_BIN_EXE_llama-perplexity");
const SERVER: &str = env!("CARGO_BIN_EXE_llama-server");
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool on a model with a short prompt.
fn complete(tool: &str, model: &str, args: &[&str], env: &[(&str, &str)]) -> Finished {
    let (prompt, mode) = match tool {
        CLI => ("Tell me the capital of France.", "-st"),
        _ => ("The capital of France is", "-no-cnv"),
    };
    let mut all = vec!["-m", model, "-p", prompt, mode, "--simple-io", "-n", "12", "-c", "256"];
    all.extend(["-t", "1", "--temp", "0", "--no-warmup"]);
    all.extend(args);
    run(tool, &all, env, LIMIT)
}

/// A tiny model in a temporary folder.
fn tiny(head_dim: u64) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join(format!("head-dim-{head_dim}.gguf"));
    write_tiny_model(&file, Tiny::new(head_dim));
    let file = file.to_str().expect("a path in UTF-8").to_string();
    (dir, file)
}

#[test]
fn help_lists_the_types_for_both_models() {
    for tool in [CLI, COMPLETION, SERVER] {
        let help = run(tool, &["--help"], &[], LIMIT);
        help.assert_success();
        for flag in ["k TYPE", "v TYPE", "k-draft TYPE", "v-draft TYPE"] {
            let flag = format!("--cache-type-{flag}");
            let (_, after) = help.stdout.split_once(&flag).unwrap_or_else(|| panic!("no {flag}"));
            let (values, _) = after.split_once("(default").expect("a default value");
            for name in ["f16", "q8_0", "turbo2", "turbo3", "turbo4"] {
                assert!(values.contains(name), "{flag} without {name}: {values}");
            }
        }
    }
    let help = run(BENCH, &["--help"], &[], LIMIT);
    help.assert_success();
    for name in ["turbo2", "turbo3", "turbo4"] {
        assert!(help.text().contains(name), "llama-bench --help does not list {name}");
    }
}

#[test]
fn an_unknown_type_is_refused() {
    let (_dir, model) = tiny(64);
    for tool in [CLI, COMPLETION] {
        complete(tool, &model, &["-ctk", "turbo9"], &[]).assert_refused(&["turbo9"]);
        complete(tool, &model, &["-ctv", "turbo9"], &[]).assert_refused(&["turbo9"]);
    }
    // llama-bench names the flag, not the value.
    run(BENCH, &["-m", &model, "-ctk", "turbo9"], &[], LIMIT).assert_refused(&["invalid", "-ctk"]);
}

/// Each overflows a stack of 8 MiB, or takes all memory, where nothing limits it.
#[test]
fn texts_that_nest_or_repeat_too_much_are_refused() {
    let (dir, model) = tiny(64);
    let nested = |open: &str, middle: &str, close: &str| {
        [&open.repeat(100_000), middle, &close.repeat(100_000)].concat()
    };
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_string()
    };
    let parens = write("parens", &format!("root ::= {}", nested("(", "\"a\"", ")")));
    let repeated = write("repeated", "root ::= \"a\"{5,3}");
    let json = write("json", &nested("{\"items\":", "{}", "}"));
    let template = write("template", &nested("{% if 1 %}", "", "{% endif %}"));
    for (args, words) in [
        (["--grammar-file", &parens], ["grammar recursion depth limit", "256"]),
        (["--grammar-file", &repeated], ["at least 5", "at most 3"]),
        (["--json-schema-file", &json], ["JSON nests", "200 deep"]),
    ] {
        complete(COMPLETION, &model, &args, &[]).assert_refused(&words);
    }
    let chat = ["--jinja", "--chat-template-file", &template];
    complete(CLI, &model, &chat, &[]).assert_refused(&["template nests", "100 deep"]);
}

#[test]
fn a_truncated_model_is_refused() {
    let (_dir, model) = tiny(64);
    let bytes = std::fs::read(&model).expect("written");
    for n in [bytes.len() / 2, 1000, 10, 0] {
        std::fs::write(&model, &bytes[..n]).expect("written");
        for tool in [CLI, COMPLETION] {
            complete(tool, &model, &["-ctk", "turbo4", "-ctv", "turbo2"], &[])
                .assert_refused(&["load"]);
        }
    }
}

#[test]
fn turbo_v_without_flash_attention_is_refused() {
    let (_dir, model) = tiny(64);
    for tool in [CLI, COMPLETION] {
        complete(tool, &model, &["-ctv", "turbo2", "-fa", "off"], &[])
            .assert_refused(&["turbo2 requires flash attention", "-fa on"]);
    }
    for ran in others(&model, &["-ctv", "turbo2", "-fa", "off"]) {
        ran.assert_refused(&["turbo2 requires flash attention", "-fa on"]);
    }
}

/// The tools that take no prompt as an argument.
fn others(model: &str, args: &[&str]) -> [Finished; 3] {
    let text = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(text.path(), "words ".repeat(300)).expect("a text");
    let text = text.path().to_str().expect("a path in UTF-8");
    [
        (SERVER, &["--port", "0"][..]),
        (PERPLEXITY, &["-f", text, "-c", "128"]),
        (BENCH, &["-p", "8", "-n", "1", "-r", "1"]),
    ]
    .map(|(tool, own)| run(tool, &[&["-m", model, "-t", "1"], own, args].concat(), &[], LIMIT))
}

/// Every tool says the library's reason, not only that there is no context.
#[test]
fn every_tool_says_why_there_is_no_context() {
    let (_dir, narrow) = tiny(80);
    let reason = ["q8_0 with block size 32 does not divide", "80"];
    for ran in others(&narrow, &["-ctk", "q8_0", "-fa", "on"]) {
        ran.assert_refused(&reason);
    }
    let (_dir, model) = tiny(64);
    for ran in others(&model, &["--kv-calib", "/no/such/scales.kvs", "-fa", "on"]) {
        ran.assert_refused(&["/no/such/scales.kvs"]);
    }
    // And why there is no model.
    let bytes = std::fs::read(&model).expect("written");
    std::fs::write(&model, &bytes[..bytes.len() / 2]).expect("written");
    for ran in others(&model, &[]) {
        ran.assert_refused(&["tensor", "not within the file bounds"]);
    }
}

#[test]
fn a_pair_without_fast_attention_says_so() {
    let (_dir, model) = tiny(64);
    for (v, slow) in [("q4_0", true), ("q8_0", false), ("turbo2", false), ("f16", false)] {
        let ran = complete(COMPLETION, &model, &["-ctk", "turbo4", "-ctv", v], &[]);
        ran.assert_success();
        let warned = ran.text().contains(&format!("turbo4 and V of type {v} is slow"));
        assert_eq!(warned, slow, "{}", ran.text());
    }
}

/// What does not fill a block is padded, and the log says what a value then takes.
#[test]
fn tiny_models_of_any_head_dim_run() {
    let pair = ["-ctk", "turbo3", "-ctv", "turbo4"];
    for head_dim in [64, 128, 192, 256] {
        let (_dir, model) = tiny(head_dim);
        let ran = complete(COMPLETION, &model, &pair, &[]);
        ran.assert_success();
        assert!(!ran.text().contains("padded"), "{}", ran.text());
    }
    for (head_dim, padded, turbo3) in [(40, 64, "5.20"), (80, 128, "5.20"), (96, 128, "4.33")] {
        let (_dir, model) = tiny(head_dim);
        for tool in [CLI, COMPLETION] {
            let ran = complete(tool, &model, &[&pair[..], &["-lv", "4"]].concat(), &[]);
            ran.assert_success();
            let said = format!(
                "K heads of {head_dim} values are padded to {padded}: turbo3 takes {turbo3} bits a value (q8_0 8.50, q4_0 4.50)"
            );
            assert!(ran.text().contains(&said), "no {said:?} in: {}", ran.text());
        }
    }
}

#[test]
fn rotation_switched_off_is_refused() {
    let (_dir, model) = tiny(64);
    let off = [("LLAMA_ATTN_ROT_DISABLE", "1")];
    for tool in [CLI, COMPLETION] {
        for flag in ["-ctk", "-ctv"] {
            complete(tool, &model, &[flag, "turbo4"], &off)
                .assert_refused(&["turbo4", "LLAMA_ATTN_ROT_DISABLE"]);
        }
    }
    complete(COMPLETION, &model, &["-ctk", "q8_0"], &off).assert_success();
}

/// With scales, as by default, and without.
#[test]
fn a_real_answer() {
    let model = models::path("smollm2");
    let model = model.to_str().expect("a path in UTF-8");
    for tool in [COMPLETION, CLI] {
        for scales in [&[][..], &["--kv-calib", "off"]] {
            let args = [&["-ctk", "turbo4", "-ctv", "turbo3"], scales].concat();
            let answer = complete(tool, model, &args, &[]);
            answer.assert_success();
            assert!(answer.stdout.contains("Paris"), "{tool} {scales:?}: {}", answer.text());
        }
    }
}

#[test]
fn bench_runs_every_type() {
    let (_dir, model) = tiny(64);
    let args = ["-m", &model, "-ctk", "turbo4,turbo3,turbo2", "-ctv", "turbo4,turbo2", "-fa", "1"];
    let bench = run(
        BENCH,
        &[&args[..], &["-p", "16", "-n", "4", "-r", "1", "-t", "2", "-o", "csv"]].concat(),
        &[],
        LIMIT,
    );
    bench.assert_success();
    for k in ["turbo4", "turbo3", "turbo2"] {
        for v in ["turbo4", "turbo2"] {
            let types = format!("\"{k}\",\"{v}\"");
            assert_eq!(bench.stdout.matches(&types).count(), 2, "{types}: {}", bench.text());
        }
    }
}

/// A completion that logs what the library says; its key cache in MiB.
fn key_cache(model: &str, args: &[&str], env: &[(&str, &str)]) -> (Finished, f64) {
    let args = [&["-c", "65536", "-lv", "4", "-ctk", "turbo4"], args].concat();
    let ran = complete(COMPLETION, model, &args, env);
    ran.assert_success();
    let sizes = turbo4_key_sizes(&ran.text());
    assert_eq!(sizes.len(), 1, "{}", ran.text());
    (ran, sizes[0])
}

#[test]
fn key_anchors_are_switched() {
    let (_dir, model) = tiny(64);
    let variable = |value| [("LLAMA_ARG_KV_ANCHORS", value)];
    let (off, off_size) = key_cache(&model, &["--kv-anchors", "off"], &[]);
    assert!(off.text().contains("key anchors are off"), "{}", off.text());
    for (args, env) in [
        (&[][..], &[][..]),
        (&["--kv-anchors", "on"], &[]),
        (&["--kv-anchors", "auto"], &[]),
        (&["--kv-anchors", "on"], &variable("off")),
        (&[], &variable("on")),
    ] {
        let (on, on_size) = key_cache(&model, args, env);
        assert!(on.text().contains("key anchors are on"), "{args:?}: {}", on.text());
        // 16 bits per 64 cells.
        let ratio = on_size / off_size;
        assert!((ratio - 4.5 / 4.25).abs() < 0.005, "{args:?}: {on_size} and {off_size} MiB");
    }
    assert_eq!(key_cache(&model, &[], &variable("off")).1, off_size);

    // Of other types only if asked.
    for (value, is_on) in [("auto", false), ("on", true)] {
        let ran = complete(COMPLETION, &model, &["-lv", "4", "--kv-anchors", value], &[]);
        ran.assert_success();
        assert_eq!(ran.text().contains("key anchors are on"), is_on, "{}", ran.text());
    }
}

#[test]
fn key_anchors_are_an_option_of_every_tool() {
    for tool in [CLI, COMPLETION, SERVER, BENCH] {
        let help = run(tool, &["--help"], &[], LIMIT);
        assert!(help.text().contains("--kv-anchors"), "{tool}: {}", help.text());
    }
    let (_dir, model) = tiny(64);
    for tool in [CLI, COMPLETION] {
        complete(tool, &model, &["--kv-anchors", "bogus"], &[]).assert_refused(&[
            "--kv-anchors",
            "bogus",
            "on, off or auto",
        ]);
        complete(tool, &model, &[], &[("LLAMA_ARG_KV_ANCHORS", "bogus")])
            .assert_refused(&["LLAMA_ARG_KV_ANCHORS", "bogus"]);
    }
    let bench = |value| {
        let args = ["-m", &model, "-ctk", "turbo4", "-fa", "1", "-p", "8", "-n", "2", "-r", "1"];
        run(BENCH, &[&args[..], &["-t", "1", "-v", "--kv-anchors", value]].concat(), &[], LIMIT)
    };
    for value in ["on", "off"] {
        let ran = bench(value);
        ran.assert_success();
        assert!(ran.text().contains(&format!("key anchors are {value}")), "{}", ran.text());
    }
    bench("bogus").assert_refused(&["--kv-anchors", "bogus"]);
}
