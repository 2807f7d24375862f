//! `libturboquant.a`: every `tq_*` symbol of `llama_turboquant`'s C ABI, and nothing else.
//! Empty unless the `capi` feature is on.
#[cfg(feature = "capi")]
pub use llama_turboquant::capi::*;
