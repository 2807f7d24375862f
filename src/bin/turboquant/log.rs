//! llama.cpp's log: warnings and errors to stderr, everything if asked for.

use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};

use llama_turboquant::llama::sys;

/// Least level that is shown. Continued lines have a level of their own, and follow the line before.
static LEAST: AtomicI32 = AtomicI32::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);

/// To be called once, before any other function of llama.cpp.
pub fn init(verbose: bool) {
    let least = if verbose { sys::GGML_LOG_LEVEL_INFO } else { sys::GGML_LOG_LEVEL_WARN };
    LEAST.store(least as i32, Ordering::Relaxed);
    // SAFETY: the callback is a function, and has no data.
    unsafe { sys::llama_log_set(Some(show), std::ptr::null_mut()) };
}

unsafe extern "C" fn show(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    let level = if level == sys::GGML_LOG_LEVEL_CONT {
        LAST.load(Ordering::Relaxed)
    } else {
        LAST.store(level as i32, Ordering::Relaxed);
        level as i32
    };
    if level >= LEAST.load(Ordering::Relaxed) {
        // SAFETY: ggml passes a string that lives during the call.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        // Nobody may be reading; eprint! would panic, and there is C++ below.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
