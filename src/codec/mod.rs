//! The codec: blocks of 64 values, their decoder (the format) and their encoder (a search).
//!
//! Pure safe Rust without SIMD: the specification that every kernel is tested against.
#![forbid(unsafe_code)]

mod block;
pub mod distortion;
pub mod encode;
pub mod lloyd_max;
pub mod paper;
pub mod rng;
pub mod rotation;
mod tables;
pub mod train;
pub mod trellis;

pub use block::{Block, QK, Turbo2Block, Turbo3Block, Turbo4Block, TurboType};
pub use tables::levels;
