//! What results came from: all that is needed to repeat them.

use llama_turboquant::kernels;
use llama_turboquant::llama::{GGML, LLAMA_CPP, Model, cpu, features};
use serde_json::{Value, json};

use crate::args::{KeyArgs, ModelArgs};
use crate::info;

/// Results with the build, the machine, the model and the settings. `settings`: those of the verb, an object.
pub fn json(
    args: &ModelArgs,
    model: &Model,
    keys: &KeyArgs,
    mut settings: Value,
    results: Vec<Value>,
) -> Value {
    settings["threads"] = json!(args.threads);
    settings["kv_anchors"] = json!(keys.anchors_name());
    settings["kv_calib"] = json!(keys.calibration_name());
    settings["flash_attn"] = json!(keys.flash_attention_name());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": info::commit(),
        "llama_cpp": { "commit": LLAMA_CPP, "ggml": GGML },
        "cpu": cpu().map(|cpu| cpu.description),
        "features": features(),
        "kernels": kernels::active().name,
        "model": { "file": args.model.display().to_string(), "description": model.description() },
        "settings": settings,
        "results": results,
    })
}
