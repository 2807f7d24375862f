//! llama.cpp's own tools: their logic is in libraries, their `main`s are ours.

use std::ffi::{CString, OsString, c_char, c_int};
use std::process::exit;

/// One of llama.cpp's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tool {
    Bench,
    Cli,
    Completion,
    Perplexity,
    Server,
}

// ggml-ext/tools/turboquant/main.cpp. None of them lets an exception out.
unsafe extern "C" {
    fn tq_main_llama_bench(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn tq_main_llama_cli(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn tq_main_llama_completion(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn tq_main_llama_perplexity(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn tq_main_llama_server(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

/// Runs a tool with this process's arguments and ends the process with its exit code.
/// To be called once, from `main`.
pub fn run(tool: Tool) -> ! {
    let args: Vec<CString> = std::env::args_os().map(to_c).collect();
    let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null_mut());
    let main = match tool {
        Tool::Bench => tq_main_llama_bench,
        Tool::Cli => tq_main_llama_cli,
        Tool::Completion => tq_main_llama_completion,
        Tool::Perplexity => tq_main_llama_perplexity,
        Tool::Server => tq_main_llama_server,
    };
    // SAFETY: argv holds argc strings, each terminated and owned by nobody else, and a null at its
    // end; all of them live until the process ends, and the tool may write to them.
    exit(unsafe { main(argc, argv.as_mut_ptr()) })
}

/// The bytes of an argument as they came. An argument cannot hold a NUL.
#[cfg(unix)]
fn to_c(arg: OsString) -> CString {
    use std::os::unix::ffi::OsStringExt;
    CString::new(arg.into_vec()).unwrap_or_default()
}

#[cfg(not(unix))]
fn to_c(arg: OsString) -> CString {
    CString::new(arg.to_string_lossy().into_owned()).unwrap_or_default()
}
