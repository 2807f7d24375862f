//! Texts that nest or repeat too much are errors that name the limit, on a stack of 512 KiB: what such texts come from
//! (GGUF files, requests, answers) is not trusted. What is just within a limit works there, too.

mod answers;
mod grammars;
mod schemas;
mod server;
mod templates;
mod texts;

use std::fmt::Display;
use std::thread;

use crate::common::api::tiny;

/// What macOS gives threads, of which llama-server answers requests by some.
const STACK: usize = 512 << 10;

/// Whether llama.cpp has limits of its own, of which some are stricter than ours and met first.
fn upstream_has_limits() -> bool {
    !cfg!(tq_pin = "0.25.3")
}

/// Parentheses of a grammar, and what an error says about them.
fn grammar_limit() -> (usize, &'static [&'static str]) {
    match upstream_has_limits() {
        true => (256, &["grammar recursion depth limit", "256"]),
        false => (500, &["parentheses", "500", "limit"]),
    }
}

/// Limits of ggml-ext/src/turbo-limits.h and its neighbours.
const TEMPLATE: usize = 100;
const SCHEMA: usize = 100;
const OPTIONAL: usize = 500;
const PATTERN: usize = 500;

/// Runs this with little stack.
fn small<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    with_stack(STACK, f)
}

fn with_stack<T: Send>(bytes: usize, f: impl FnOnce() -> T + Send) -> T {
    tiny(); // is loaded elsewhere
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(bytes).spawn_scoped(scope, f);
        thread.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// It is an error, and says these words.
#[track_caller]
fn assert_refused<T, E: Display>(result: Result<T, E>, words: &[&str]) {
    let Err(error) = result else { panic!("not refused: {words:?}") };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {}", text.get(..2000).unwrap_or(&text));
    }
}

/// `open` and `close` around `middle`, so many times.
fn nested(n: usize, open: &str, middle: &str, close: &str) -> String {
    [&open.repeat(n), middle, &close.repeat(n)].concat()
}
