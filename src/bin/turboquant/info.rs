//! `turboquant info`: what was built, and what a model is like.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use llama_turboquant::kernels;
use llama_turboquant::llama::{
    CacheError, CachePolicy, CacheType, GGML, LLAMA_CPP, Model, ModelProbe, cpu, devices, features,
};

use crate::args::check_model;
use crate::interrupt::Interrupt;
use crate::log::{self, Errors};
use crate::table::Table;
use crate::units::mib;

/// Show what was built and what it runs on; of a model, its shape and which cache types it can have.
///
/// Of a model only the metadata is read.
#[derive(clap::Args)]
pub struct Args {
    /// A model, a GGUF file [also: -m MODEL].
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    #[arg(short = 'm', long = "model", value_name = "FILE", hide = true, conflicts_with = "model")]
    file: Option<PathBuf>,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let _interrupt = Interrupt::new()?;
    log::init(args.verbose, Errors::InMessage);
    crate::print(&match args.model.as_deref().or(args.file.as_deref()) {
        Some(path) => of_model(path)?,
        None => of_build(),
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

fn of_model(path: &Path) -> Result<String> {
    check_model(path)?;
    let probe = ModelProbe::open(path)?;
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
    if !model.kv_layers().is_empty() {
        text += "\n";
        text += &types(model);
    }
    Ok(text)
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

/// Which cache types work, and why others do not.
fn types(model: &Model) -> String {
    let mut table = Table::new(["type", "K", "V"]);
    let mut reasons: Vec<String> = Vec::new();
    for t in CacheType::ALL {
        let check = |k: CacheType, v: CacheType| {
            match model.check_cache(&CachePolicy::new(k), &CachePolicy::new(v), true) {
                // Not of this type alone.
                Err(CacheError::TypesDiffer { .. }) => {
                    model.check_cache(&CachePolicy::new(t), &CachePolicy::new(t), true)
                }
                result => result,
            }
        };
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
        let k = cell(check(t, CacheType::F16));
        let v = cell(check(CacheType::F16, t));
        table.row([t.to_string(), k, v]);
    }
    let notes = (1..).zip(&reasons).map(|(n, reason): (u32, _)| format!("\n[{n}] {reason}"));
    let notes: String = notes.collect();
    table.text() + &notes + if notes.is_empty() { "" } else { "\n" }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
