//! AVX-512 kernels: F and BW.

pub mod decode;
