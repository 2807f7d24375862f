//! llama.cpp with the turbo types, as build.rs built it.

pub mod calibrate;
pub mod sys;
pub mod tools;
