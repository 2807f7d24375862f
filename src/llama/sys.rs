//! The C API of llama.cpp, unchanged, and [`fence`], what the safe API calls of it. Unsafe and undocumented
//! here: see llama.h and ggml-ext/tools/turboquant/turbo-api.h.
//!
//! `sys/bindings_NAME.rs` is generated from the edited llama.h of the pin NAME (vendor/llama.cpp.toml), and `sys/fence.rs`
//! from turbo-api.h. All are checked in; `script/bindings` regenerates them.
#![allow(
    missing_docs,
    rustdoc::all, // upstream's comments are not written for rustdoc
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    unsafe_op_in_unsafe_fn
)]

#[rustfmt::skip]
#[cfg_attr(tq_pin = "0.25.3", path = "sys/bindings_0.25.3.rs")]
#[cfg_attr(not(tq_pin = "0.25.3"), path = "sys/bindings_b12032.rs")]
mod bindings;
pub mod fence;

pub use bindings::*;
