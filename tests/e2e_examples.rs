//! The examples, as their first lines say, with a small model.
#![cfg(feature = "llama")]

mod common;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::models;
use common::process::{Finished, run};
use common::tools::TEMPLATE;

/// Examples have as many threads as the machine, which wait by spinning: two at once take ten times as long.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs an example that `cargo build --examples`, in either profile, or `cargo test` of everything has built.
fn example(name: &str, args: &[&str]) -> Finished {
    let mut path = std::env::current_exe().expect("this test");
    path.pop(); // deps
    path.set_file_name("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is missing: run cargo build --examples", path.display());
    let model = models::path("smollm2");
    let model = model.to_str().expect("a path in UTF-8");
    let program = path.to_str().expect("a path in UTF-8");
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    run(program, &[&[model], args].concat(), &[], Duration::from_secs(300))
}

/// What an example prints, if it ends well.
fn output(name: &str, args: &[&str]) -> String {
    let ran = example(name, args);
    ran.assert_success();
    ran.stdout
}

#[test]
fn generate_goes_on_behind_a_prompt() {
    let ran = example("generate", &["The capital of France is", "turbo4", "turbo3"]);
    ran.assert_success();
    assert!(ran.stdout.starts_with("The capital of France is "), "{}", ran.stdout);
    assert!(ran.stderr.contains("decode") && ran.stderr.contains("t/s"), "{}", ran.stderr);
    example("generate", &["a", "turbo9"]).assert_refused(&["turbo9"]);
}

#[test]
fn a_chat_of_no_lines_ends() {
    assert_eq!(output("chat", &[]), "> ");
}

#[test]
fn a_cat_is_nearer_to_a_kitten() {
    let text = output("embeddings", &["a cat", "a kitten", "the price of crude oil"]);
    let first: Vec<f32> = text
        .lines()
        .next()
        .expect("a line for each text")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!(first.len() == 3 && first[0] > 0.999 && first[1] > first[2], "{text}");
}

#[test]
fn parallel_answers_are_told_apart() {
    let text = output("parallel", &["Once upon a time"]);
    assert!(text.contains("0: ") && text.contains("\n1: "), "{text}");
}

#[test]
fn a_state_is_saved_then_restored() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let state = dir.path().join("prompt.state");
    let state = state.to_str().expect("a path in UTF-8");
    let (first, second) = (output("save_restore", &[state]), output("save_restore", &[state]));
    assert!(first.starts_with("decoded ") && second.starts_with("restored "), "{first}{second}");
    let answer = |text: &str| text.split_once('\n').map(|(_, answer)| answer.to_owned());
    assert_eq!(answer(&first), answer(&second));
}

#[test]
fn sizes_of_turbo_are_smaller() {
    let text = output("kv_sizes", &["8192"]);
    let row = |k: &str, v: &str| {
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let mut rows = text.lines().map(words).filter(|row| row.len() == 5);
        rows.find(|row| row[0] == k && row[1] == v).unwrap_or_else(|| panic!("{k} {v}: {text}"))
    };
    assert_eq!(row("f16", "f16")[4], "1.0x");
    assert!(row("turbo4", "turbo4")[4].as_str() > "3.4", "{text}");
}

#[test]
fn a_tool_is_called_and_its_answer_taken() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let template = dir.path().join("template.jinja");
    std::fs::write(&template, TEMPLATE).expect("a file");
    let text = output("tools", &[template.to_str().expect("a path in UTF-8")]);
    assert!(text.contains("[get_weather({") && text.contains("sunny]"), "{text}");
}
