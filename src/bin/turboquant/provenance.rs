//! What every measurement carries: the build, the machine, and what was asked for.

use llama_turboquant::kernels;
use llama_turboquant::llama::{GGML, KvFit, LLAMA_CPP, Model, cpu, features};
use serde_json::{Value, json};

use crate::args::{KeyArgs, ModelArgs};
use crate::info;

/// An object with its fields behind version, commit, llama.cpp, CPU, what ggml uses of it, and the kernels in use.
pub fn with_provenance(mut of: Value) -> Value {
    let mut all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": info::commit(),
        "llama_cpp": { "commit": LLAMA_CPP, "ggml": GGML },
        "cpu": cpu().map(|cpu| cpu.description),
        "features": features(),
        "kernels": kernels::active().name,
    });
    if let (Some(all), Some(of)) = (all.as_object_mut(), of.as_object_mut()) {
        all.append(of);
    }
    all
}

/// Key scales of a context; null: it has none.
pub fn fit(fit: Option<&KvFit>) -> Value {
    fit.map_or(Value::Null, |fit| {
        json!({
            "kind": fit.kind.name(),
            "id": format!("{:016x}", fit.id),
            "file": fit.source.as_ref().map(|file| file.display().to_string()),
        })
    })
}

/// Results of a verb that runs a model. `settings`: those of the verb, an object.
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
    with_provenance(json!({
        "model": { "file": args.model.display().to_string(), "description": model.description() },
        "settings": settings,
        "results": results,
    }))
}
