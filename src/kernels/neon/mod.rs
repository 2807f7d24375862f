//! NEON kernels.

pub mod decode;
