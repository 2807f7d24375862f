//! `turboquant info`: what was built, and what a model is like.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use llama_turboquant::kernels;
use llama_turboquant::llama::{
    CacheError, CachePolicy, CacheType, Device, GGML, KvFitKind, KvFitOutlook, KvLayer, LLAMA_CPP,
    Model, ModelError, ModelProbe, cpu, devices, features,
};
use serde_json::{Value, json};

use crate::args::check_model;
use crate::interrupt::Interrupt;
use crate::log::{self, Errors};
use crate::padding;
use crate::provenance::{self, with_provenance};
use crate::table::Table;
use crate::units::mib;

/// Show what was built and what it runs on; of a model, its shape, which cache types it can have, and its key scales.
///
/// Of a model only the metadata is read, and the few weights by which its key scales are found in the user's cache.
#[derive(clap::Args)]
pub struct Args {
    /// A model, a GGUF file [also: -m MODEL].
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[arg(short = 'm', long = "model", value_name = "FILE", hide = true, conflicts_with = "model")]
    file: Option<PathBuf>,
    /// What to print: text, or JSON.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub fn run(args: &Args) -> Result<()> {
    let _interrupt = Interrupt::new()?;
    log::init(args.verbose, Errors::InMessage);
    let json = |value| format!("{:#}\n", with_provenance(value));
    let Some(path) = args.model.as_deref().or(args.file.as_deref()) else {
        return crate::print(&match args.format {
            Format::Text => of_build(),
            Format::Json => json(build_json()),
        });
    };
    check_model(path)?;
    let probe = ModelProbe::open(path)?;
    crate::print(&match args.format {
        Format::Text => of_model(path, &probe),
        Format::Json => json(model_json(path, &probe)),
    })
}

/// `name` and what is to be said of it.
fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name:<18}{value}");
}

fn of_build() -> String {
    let mut text = String::new();
    line(&mut text, "turboquant", version());
    line(&mut text, "llama.cpp", format_args!("{LLAMA_CPP} (ggml {GGML})"));
    line(&mut text, "CPU", cpu().map_or("none".into(), |cpu| cpu.description));
    line(&mut text, "ggml uses", features().join(" "));
    let kernels = kernels::active();
    let others = kernels::available().filter(|k| k.name != kernels.name).map(|k| k.name);
    let others = others.collect::<Vec<_>>().join(", ");
    let others = if others.is_empty() { others } else { format!(" (TQ_SIMD has also {others})") };
    line(&mut text, "turbo kernels", format_args!("{}{others}", kernels.name));
    for device in devices() {
        line(
            &mut text,
            "device",
            format_args!("{}: {}, {:.1} GiB", device.name, device.backend, gib(device.memory)),
        );
    }
    let mut table = Table::new(["type", "bits per value", "as K, with anchors", "head_dim"]);
    for t in CacheType::ALL {
        let with_anchors = match t.is_turbo() {
            true => format!("{}", t.bits_per_value() + ANCHOR_BITS),
            false => String::new(),
        };
        let head_dim = match t.block() {
            1 => "any".into(),
            block if t.is_turbo() => format!("multiple of {block}, or padded to one"),
            block => format!("multiple of {block}"),
        };
        table.row([t.to_string(), t.bits_per_value().to_string(), with_anchors, head_dim]);
    }
    text + "\n" + &table.text()
}

/// One F16 vector for the keys of 64 cells.
const ANCHOR_BITS: f32 = 16.0 / 64.0;

/// `0.1.0`, and the commit if the build was told.
pub fn version() -> String {
    let commit = commit().map_or(String::new(), |commit| format!(" ({commit})"));
    format!("{}{commit}", env!("CARGO_PKG_VERSION"))
}

/// `TQ_COMMIT` of the build.
pub fn commit() -> Option<&'static str> {
    option_env!("TQ_COMMIT")
}

/// Besides what every measurement carries.
fn build_json() -> Value {
    let device = |device: Device| json!({ "name": device.name, "backend": device.backend, "memory": device.memory });
    let cache_type = |t: CacheType| {
        json!({
            "type": t.to_string(),
            "bits_per_value": t.bits_per_value(),
            "block": t.block(),
        })
    };
    json!({
        "devices": devices().into_iter().map(device).collect::<Vec<_>>(),
        "types": CacheType::ALL.into_iter().map(cache_type).collect::<Vec<_>>(),
    })
}

fn of_model(path: &Path, probe: &ModelProbe) -> String {
    let model = probe.model();
    let mut text = String::new();
    line(&mut text, "file", path.display());
    if let Some(name) = model.meta("general.name") {
        line(&mut text, "name", name);
    }
    let architecture = model.meta("general.architecture").unwrap_or_default();
    line(&mut text, "architecture", &architecture);
    line(&mut text, "description", model.description());
    line(&mut text, "parameters", format_args!("{:.1} million", model.n_params() as f64 / 1e6));
    line(&mut text, "weights", format_args!("{:.1} MiB", mib(model.size())));
    line(&mut text, "layers", layers(model));
    line(&mut text, "heads", format_args!("{} query, {} KV", model.n_head(), model.n_head_kv()));
    line(&mut text, "head_dim", head_dims(model));
    line(&mut text, "embedding", model.n_embd());
    line(&mut text, "vocabulary", model.vocab().n_tokens());
    line(&mut text, "training context", model.n_ctx_train());
    let template = if model.chat_template().is_some() { "yes" } else { "no" };
    line(&mut text, "chat template", template);
    line(&mut text, "key scales", key_scales(&probe.kv_fit()));
    if !model.kv_layers().is_empty() {
        text += "\n";
        text += &types(model);
        text += &padding::lines(model);
    }
    text
}

fn model_json(path: &Path, probe: &ModelProbe) -> Value {
    let model = probe.model();
    let layer = |layer: &KvLayer| {
        json!({
            "layer": layer.layer,
            "heads": layer.n_head_kv,
            "head_dim_k": layer.head_dim_k,
            "head_dim_v": layer.head_dim_v,
            "sliding_window": layer.sliding_window,
        })
    };
    let reason = |result: Result<(), CacheError>| result.err().map(|error| error.to_string());
    let cache_type = |t: CacheType| {
        let [k, v] = checks(model, t).map(reason);
        json!({ "type": t.to_string(), "k": k.is_none(), "k_reason": k, "v": v.is_none(), "v_reason": v })
    };
    let of_model = json!({
        "file": path.display().to_string(),
        "name": model.meta("general.name"),
        "architecture": model.meta("general.architecture"),
        "description": model.description(),
        "parameters": model.n_params(),
        "bytes": model.size(),
        "layers": model.n_layer(),
        "kv_layers": model.kv_layers().iter().map(layer).collect::<Vec<_>>(),
        "embedding": model.n_embd(),
        "vocabulary": model.vocab().n_tokens(),
        "training_context": model.n_ctx_train(),
        "chat_template": model.chat_template().is_some(),
        "kv_fit": key_scales_json(&probe.kv_fit()),
        "types": CacheType::ALL.into_iter().map(cache_type).collect::<Vec<_>>(),
        "padding": padding::json(model),
    });
    json!({ "model": of_model })
}

/// Those of a context with turbo keys.
fn key_scales(outlook: &Result<KvFitOutlook, ModelError>) -> String {
    const THOROUGH: &str = "turboquant calibrate makes a thorough one";
    match outlook {
        Ok(KvFitOutlook::Kept(fit)) => {
            let file = fit.source.as_deref().unwrap_or(Path::new("")).display();
            match fit.kind {
                KvFitKind::Quick => format!("{fit}, of {file} ({THOROUGH})"),
                _ => format!("{fit}, of {file}"),
            }
        }
        Ok(KvFitOutlook::AtFirstUse) => {
            format!("none yet: a quick fit is made at first use with turbo keys ({THOROUGH})")
        }
        Ok(KvFitOutlook::Norms { reason }) => {
            format!("from the weights of q and k norms: no quick fit can be made: {reason}")
        }
        Ok(KvFitOutlook::None { reason }) => format!("none: {reason}"),
        Ok(_) => "not known".into(),
        Err(error) => format!("not known: {error}"),
    }
}

fn key_scales_json(outlook: &Result<KvFitOutlook, ModelError>) -> Value {
    match outlook {
        Ok(KvFitOutlook::Kept(fit)) => {
            let mut value = provenance::fit(Some(fit));
            value["state"] = "kept".into();
            value
        }
        Ok(KvFitOutlook::AtFirstUse) => json!({ "state": "at first use" }),
        Ok(KvFitOutlook::Norms { reason }) => json!({ "state": "norms", "reason": reason }),
        Ok(KvFitOutlook::None { reason }) => json!({ "state": "none", "reason": reason }),
        Ok(_) => json!({ "state": "unknown" }),
        Err(error) => json!({ "state": "unknown", "reason": error.to_string() }),
    }
}

/// How many of each kind.
fn layers(model: &Model) -> String {
    let (n, kv) = (model.n_layer() as usize, model.kv_layers());
    let windowed = kv.iter().filter(|layer| layer.sliding_window).count();
    let mut kinds = Vec::new();
    let mut kind = |n: usize, what: String| {
        if n > 0 {
            kinds.push(format!("{n} {what}"));
        }
    };
    kind(kv.len() - windowed, "with full attention".into());
    kind(windowed, format!("with a sliding window of {} tokens", model.n_swa()));
    let others = match model.is_recurrent() {
        true => "recurrent or without attention",
        false => "without keys and values of their own",
    };
    kind(n.saturating_sub(kv.len()), others.into());
    format!("{n}: {}", kinds.join(", "))
}

/// Of K and V, and of how many layers where they differ.
fn head_dims(model: &Model) -> String {
    let mut counts = BTreeMap::new();
    for layer in model.kv_layers() {
        *counts.entry((layer.head_dim_k, layer.head_dim_v)).or_insert(0u32) += 1;
    }
    let one = counts.len() == 1;
    let text = |((k, v), n): (&(u32, u32), &u32)| {
        let dims = if k == v { k.to_string() } else { format!("{k} for K, {v} for V") };
        if one { dims } else { format!("{dims} ({n} layers)") }
    };
    match counts.is_empty() {
        true => "none: no layer has keys".into(),
        false => counts.iter().map(text).collect::<Vec<_>>().join(", "),
    }
}

/// Whether K can be of a type, and V.
fn checks(model: &Model, t: CacheType) -> [Result<(), CacheError>; 2] {
    let check = |(k, v): (CacheType, CacheType)| {
        match model.check_cache(&CachePolicy::new(k), &CachePolicy::new(v), true) {
            // Not of this type alone.
            Err(CacheError::TypesDiffer { .. }) => {
                model.check_cache(&CachePolicy::new(t), &CachePolicy::new(t), true)
            }
            result => result,
        }
    };
    [(t, CacheType::F16), (CacheType::F16, t)].map(check)
}

/// Which cache types work, and why others do not.
fn types(model: &Model) -> String {
    let mut table = Table::new(["type", "K", "V"]);
    let mut reasons: Vec<String> = Vec::new();
    for t in CacheType::ALL {
        let mut cell = |result: Result<(), CacheError>| match result {
            Ok(()) => "yes".to_owned(),
            Err(error) => {
                let reason = error.to_string();
                let known = reasons.iter().position(|r| *r == reason);
                let number = known.unwrap_or_else(|| {
                    reasons.push(reason);
                    reasons.len() - 1
                });
                format!("no [{}]", number + 1)
            }
        };
        let [k, v] = checks(model, t).map(&mut cell);
        table.row([t.to_string(), k, v]);
    }
    let notes = (1..).zip(&reasons).map(|(n, reason): (u32, _)| format!("\n[{n}] {reason}"));
    let notes: String = notes.collect();
    table.text() + &notes + if notes.is_empty() { "" } else { "\n" }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
