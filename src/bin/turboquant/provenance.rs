//! What every measurement carries: the build and the machine.

use llama_turboquant::kernels;
use llama_turboquant::llama::{GGML, LLAMA_CPP, cpu, features};
use serde_json::{Value, json};

use crate::info;

/// Version, commit, llama.cpp, CPU, what ggml uses of it, and the kernels in use.
pub fn provenance() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": info::commit(),
        "llama_cpp": { "commit": LLAMA_CPP, "ggml": GGML },
        "cpu": cpu().map(|cpu| cpu.description),
        "features": features(),
        "kernels": kernels::active().name,
    })
}

/// An object with the fields of both.
pub fn with_provenance(mut of: Value) -> Value {
    let mut all = provenance();
    if let (Some(all), Some(of)) = (all.as_object_mut(), of.as_object_mut()) {
        all.append(of);
    }
    all
}
