//! What the end-to-end tests share: the test models, a small harness over the raw bindings,
//! GGUF files and a writer of tiny models, calibrations, and programs run with a time limit.
#![allow(dead_code)] // every test binary uses a part

pub mod api;
pub mod archive;
pub mod calibration;
pub mod cli;
pub mod cmake;
pub mod engine;
pub mod gguf;
pub mod gguf_file;
pub mod hybrid;
pub mod latent;
pub mod models;
pub mod outline;
pub mod process;
pub mod server;
pub mod state;
pub mod stats;
pub mod steps;
pub mod t5;
pub mod tools;
pub mod tree;
pub mod widened;

use llama_turboquant::llama::sys::ggml_type;

pub const F32: ggml_type = ggml_type::GGML_TYPE_F32;
pub const F16: ggml_type = ggml_type::GGML_TYPE_F16;
pub const Q8_0: ggml_type = ggml_type::GGML_TYPE_Q8_0;
pub const Q4_0: ggml_type = ggml_type::GGML_TYPE_Q4_0;
pub const TURBO2: ggml_type = ggml_type::GGML_TYPE_TURBO2;
pub const TURBO3: ggml_type = ggml_type::GGML_TYPE_TURBO3;
pub const TURBO4: ggml_type = ggml_type::GGML_TYPE_TURBO4;

/// Every (K, V) pair of our types, q8_0 and f16 in which one of ours occurs: 21.
pub fn pairs() -> Vec<(ggml_type, ggml_type)> {
    let types = [TURBO2, TURBO3, TURBO4, Q8_0, F16];
    let ours = |t| [TURBO2, TURBO3, TURBO4].contains(&t);
    let all = types.iter().flat_map(|&k| types.iter().map(move |&v| (k, v)));
    all.filter(|&(k, v)| ours(k) || ours(v)).collect()
}

/// About 150 tokens, with repetitions that attention can use.
pub const TEXT: &str = "The capital of France is Paris, and the capital of Italy is Rome. \
A lighthouse keeper on a small island wrote down every ship that passed: the name, the hour and the \
colour of the sails. On Monday the first ship was called Aurora, it passed at nine, and its sails \
were red. On Tuesday the first ship was called Borealis, it passed at ten, and its sails were white. \
In winter no ship came for weeks, and he counted the waves instead. When a visitor asked him what \
the numbers were good for, he opened the book and read: on Monday the first ship was called Aurora, \
it passed at nine, and its sails were red. The capital of Spain is Madrid, and the capital of \
Portugal is";
