//! llama.cpp's log: its lines become `tracing` events of target `llama.cpp`, and the errors among them the
//! reasons of ours.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

use super::sys;

/// The target of llama.cpp's events, for filters.
pub const TARGET: &str = "llama.cpp";

/// What a thread has logged of a line that is not over, and with which level it began.
struct Line {
    level: sys::ggml_log_level,
    text: String,
}

thread_local! {
    static LINE: RefCell<Line> =
        const { RefCell::new(Line { level: sys::GGML_LOG_LEVEL_INFO, text: String::new() }) };
    static ERRORS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Starts llama.cpp and takes over its log, once. Loading a model does it.
pub fn init() {
    static ONCE: Once = Once::new();
    // SAFETY: called once, before other functions of llama.cpp that log.
    ONCE.call_once(|| unsafe {
        sys::llama_log_set(Some(on_log), std::ptr::null_mut());
        sys::llama_backend_init();
    });
}

/// Runs `f`; returns its result and the errors that llama.cpp logged on this thread meanwhile, joined.
pub(super) fn errors_of<T>(f: impl FnOnce() -> T) -> (T, String) {
    let outer = ERRORS.replace(Some(Vec::new()));
    let result = f();
    let errors = ERRORS.replace(outer).unwrap_or_default();
    (result, errors.join("; "))
}

/// A panic in here, as in a subscriber, ends the process: C++ is below.
unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: ggml passes a string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // While a thread ends it has no line: what it logs then is lost.
    let lines = LINE.try_with(|line| take_lines(&mut line.borrow_mut(), level, &text));
    lines.into_iter().flatten().for_each(forward);
}

/// Adds a text to the line that is being logged; returns the lines that are whole by it.
fn take_lines(line: &mut Line, level: sys::ggml_log_level, text: &str) -> Vec<Line> {
    let mut whole = Vec::new();
    let mut finish = |line: &mut Line| {
        let text = std::mem::take(&mut line.text);
        if !text.trim().is_empty() {
            whole.push(Line { level: line.level, text });
        }
    };
    if level != sys::GGML_LOG_LEVEL_CONT {
        finish(line);
        line.level = level;
    }
    let mut parts = text.split('\n');
    line.text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        finish(line);
        line.text.push_str(part);
    }
    whole
}

fn forward(line: Line) {
    let text = line.text.trim_end();
    match line.level {
        sys::GGML_LOG_LEVEL_ERROR => {
            ERRORS.with_borrow_mut(|errors| {
                if let Some(errors) = errors {
                    errors.push(without_function(text).into());
                }
            });
            tracing::error!(target: TARGET, "{text}");
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: TARGET, "{text}"),
        // What llama.cpp informs of is detail to a program that uses it.
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: TARGET, "{text}"),
        _ => tracing::trace!(target: TARGET, "{text}"),
    }
}

/// `llama_decode: failed` without the name of the function.
fn without_function(text: &str) -> &str {
    match text.split_once(": ") {
        Some((name, rest)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: Vec<Line>) -> Vec<(sys::ggml_log_level, String)> {
        lines.into_iter().map(|line| (line.level, line.text)).collect()
    }

    #[test]
    fn parts_of_lines_are_joined() {
        let (info, cont) = (sys::GGML_LOG_LEVEL_INFO, sys::GGML_LOG_LEVEL_CONT);
        let mut line = Line { level: info, text: String::new() };
        assert!(take_lines(&mut line, info, "loading ").is_empty());
        assert!(take_lines(&mut line, cont, ".").is_empty());
        assert_eq!(
            texts(take_lines(&mut line, cont, ".\nnext\n")),
            [(info, "loading ..".into()), (info, "next".into())]
        );
    }

    #[test]
    fn a_new_message_ends_the_line_before() {
        let (info, error) = (sys::GGML_LOG_LEVEL_INFO, sys::GGML_LOG_LEVEL_ERROR);
        let mut line = Line { level: info, text: String::new() };
        assert!(take_lines(&mut line, info, "loading").is_empty());
        assert_eq!(
            texts(take_lines(&mut line, error, "no memory\n")),
            [(info, "loading".into()), (error, "no memory".into())]
        );
    }

    #[test]
    fn errors_are_kept_for_the_innermost_operation() {
        let log = |text: &str| {
            forward(Line { level: sys::GGML_LOG_LEVEL_ERROR, text: text.into() });
        };
        let (inner, outer) = errors_of(|| {
            log("f: one");
            let ((), inner) = errors_of(|| log("g: two\n"));
            log("three: it's 3 o'clock");
            inner
        });
        assert_eq!(inner, "two");
        assert_eq!(outer, "one; it's 3 o'clock");
    }
}
