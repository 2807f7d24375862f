//! AVX2 kernels (with FMA and F16C, which every AVX2 processor has).

pub mod decode;
