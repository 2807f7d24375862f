//! TurboQuant KV-cache types for llama.cpp: `turbo2`, `turbo3` and `turbo4`, of 2.25, 3.25 and 4.25 bits a
//! value.
//!
#![cfg_attr(feature = "llama", doc = "```no_run")]
#![cfg_attr(not(feature = "llama"), doc = "```ignore")]
//! use llama_turboquant::llama::{CacheType, Context, ContextParams, GenerateOptions, Model, Sampler};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let model = Model::load("model.gguf")?;
//!     let params = ContextParams::default().cache_types(CacheType::Turbo4, CacheType::Turbo3);
//!     let mut context = Context::new(&model, &params)?;
//!     let prompt = model.vocab().tokenize("The capital of France is", true, false)?;
//!     let mut sampler = Sampler::greedy(&model)?;
//!     let options = GenerateOptions::default().max_tokens(64);
//!     println!("{}", context.generate(&prompt, &mut sampler, options).text()?);
//!     Ok(())
//! }
//! ```
//!
//! llama.cpp rotates keys and values by a Hadamard transform, after which their coordinates are near-Gaussian
//! whatever the model. A block of 64 of them is a scale and a path through a 64-state trellis, which comes
//! closer to the rate-distortion limit than a table of levels can.
//!
//! | module | what it holds | feature |
//! |---|---|---|
//! | [`codec`] | the format: blocks, level tables, decoder, encoder, their trainer; the paper's quantizers and rotations | |
//! | [`kernels`] | rows of blocks on AVX2, AVX-512, NEON: encode, decode, dot product | |
//! | [`attention`] | flash attention over turbo caches on the CPU | |
//! | [`rows`] | coding rows, checked, on all cores: where to begin | |
//! | [`calibrate`] | scales of key channels, fitted to captured queries, keys and values | |
//! | `eval` | what cache types cost in quality: divergence, perplexity, needles in long texts | `llama` |
//! | `capi` | the `tq_*` functions of `turboquant.h`, and those that ggml calls | `capi` |
//! | `llama` | llama.cpp with the types: a safe API, bindings and the tools' entry points | `llama` |
//!
//! Without llama.cpp there are rows of blocks:
//!
//! ```
//! use llama_turboquant::codec::TurboType;
//! use llama_turboquant::rows::{dequantize_row, quantize_row, row_bytes};
//!
//! let row: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin()).collect();
//! let mut bytes = vec![0; row_bytes(TurboType::Turbo4, row.len())?];
//! quantize_row(TurboType::Turbo4, &row, &mut bytes)?;
//! let mut back = vec![0.0; row.len()];
//! dequantize_row(TurboType::Turbo4, &bytes, &mut back)?;
//! assert_eq!(bytes.len(), 68); // 128 values of 4.25 bits
//! # Ok::<(), llama_turboquant::rows::RowError>(())
//! ```
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

pub mod attention;
pub mod calibrate;
#[cfg(feature = "capi")]
pub mod capi;
pub mod codec;
#[cfg(feature = "llama")]
pub mod eval;
pub mod kernels;
#[cfg(feature = "llama")]
pub mod llama;
pub mod rows;
