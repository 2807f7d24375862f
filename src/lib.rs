//! TurboQuant KV-cache types for llama.cpp.
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

pub mod attention;
#[cfg(feature = "capi")]
pub mod capi;
pub mod codec;
pub mod kernels;
#[cfg(feature = "llama")]
pub mod llama;
pub mod rows;
