//! The C ABI: checks, then a call; no maths.
//!
//! `include/turboquant.h` declares what C and C++ programs use: rows ([`tq_quantize_rows`] ..) and
//! what became of a call ([`tq_status`], [`tq_last_error`]). The callbacks for ggml are beside it.

pub mod attention;
pub mod calibrate;
pub mod ggml;
mod rows;
mod status;

pub use rows::*;
pub use status::{tq_last_error, tq_status, tq_status_message};
