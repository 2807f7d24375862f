//! `turboquant plan`: what fits into memory.

mod recommend;

use std::path::PathBuf;

use anyhow::{Result, bail};
use llama_turboquant::llama::{ContextError, ContextParams, MemoryUse, Model, ModelProbe};
use serde_json::{Value, json};

use crate::args::{KeyArgs, Pair, PairArgs, check_model};
use crate::interrupt::Interrupt;
use crate::log::{self, Errors};
use crate::machine::Memory;
use crate::padding;
use crate::table::{Format, Table};
use crate::units::{mib, size};

use recommend::Advice;

/// Show what a model's cache takes, by cache types and context, and the longest context that fits.
///
/// Nothing is loaded or allocated: llama.cpp is asked what it would take. The longest context is that of which weights,
/// cache and buffers for computing fit together, at most the training context. For each context the most precise pair
/// that fits is recommended, of those whose quality was measured. Key scales take next to no memory.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a GGUF file [also: -m MODEL].
    #[arg(value_name = "MODEL", required_unless_present = "file")]
    model: Option<PathBuf>,
    #[arg(short = 'm', long = "model", value_name = "FILE", hide = true, conflicts_with = "model")]
    file: Option<PathBuf>,
    #[command(flatten)]
    pairs: PairArgs,
    /// Tokens of context, as many as you like [default: 4096, 32768 and the training context, up to that].
    #[arg(short, long, visible_alias = "ctx", value_name = "N", num_args = 1..,
        value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    ctx_size: Vec<u32>,
    /// Memory for all: 16G, 800M [default: the machine's, or what its container or ulimit leave of it].
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Sequences at once.
    #[arg(long, visible_alias = "np", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// Keep all tokens also in layers with a sliding window.
    #[arg(long)]
    swa_full: bool,
    #[command(flatten)]
    keys: KeyArgs,
    /// What to print: a table, JSON, CSV, or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    verbose: bool,
}

/// What one pair takes.
struct Row {
    pair: Pair,
    /// By context. Errors: why the model cannot have the pair.
    uses: Result<Vec<MemoryUse>, ContextError>,
    /// None: not even the shortest context fits.
    longest: Option<u32>,
}

pub fn run(args: &Args) -> Result<()> {
    let _interrupt = Interrupt::new()?;
    log::init(args.verbose, Errors::InMessage);
    let Some(path) = args.model.as_deref().or(args.file.as_deref()) else {
        bail!("no model"); // clap asks for one
    };
    check_model(path)?;
    let probe = ModelProbe::open(path)?;
    let Some(memory) = args.memory.or_else(|| Memory::now().all()) else {
        bail!("the machine's memory is not known: give --memory");
    };
    let contexts = contexts(args, probe.model().n_ctx_train());
    let f16: Pair = "f16/f16".parse()?;
    let others = args.pairs.pairs.iter().filter(|pair| **pair != f16);
    let pairs = std::iter::once(&f16).chain(others);
    let rows = pairs.map(|pair| row(args, &probe, pair, &contexts, memory)).collect::<Vec<_>>();
    crate::print(&match args.format {
        Format::Table => text(probe.model(), &rows, &contexts, memory),
        Format::Csv => table(&rows, &contexts).csv(),
        Format::Md => table(&rows, &contexts).markdown(),
        Format::Json => format!("{:#}\n", json(probe.model(), &rows, &contexts, memory)),
    })
}

fn contexts(args: &Args, n_ctx_train: u32) -> Vec<u32> {
    if !args.ctx_size.is_empty() {
        return args.ctx_size.clone();
    }
    let mut contexts = vec![4096, 32768, n_ctx_train];
    contexts.retain(|&n| n <= n_ctx_train);
    contexts.dedup();
    contexts
}

fn row(args: &Args, probe: &ModelProbe, pair: &Pair, contexts: &[u32], memory: u64) -> Row {
    let params = ContextParams::default()
        .n_seq_max(args.parallel)
        .swa_full(args.swa_full)
        .cache_types(pair.k.clone(), pair.v.clone())
        .kv_anchors(args.keys.anchors())
        .flash_attention(args.keys.flash_attention());
    let of = |&n_ctx: &u32| probe.memory_use(&params.clone().n_ctx(n_ctx));
    let uses = contexts.iter().map(of).collect::<Result<Vec<_>, _>>();
    let all = uses.and_then(|uses| Ok((uses, probe.longest_context(&params, memory)?)));
    let (uses, longest) = match all {
        Ok((uses, longest)) => (Ok(uses), longest),
        Err(reason) => (Err(reason), None),
    };
    Row { pair: pair.clone(), uses, longest }
}

fn text(model: &Model, rows: &[Row], contexts: &[u32], memory: u64) -> String {
    let mut text = format!("memory {}\n", size(memory));
    if let Some(uses) = rows.iter().find_map(|row| row.uses.as_ref().ok()) {
        let Some(first) = uses.first() else { return text };
        text += &format!("weights {}\n", size(first.model));
        if first.state > 0 {
            text += &format!("recurrent states {}\n", size(first.state));
        }
        for (n_ctx, of) in contexts.iter().zip(uses) {
            text += &format!("buffers for computing {} at {n_ctx}\n", size(of.compute));
        }
    }
    text += &padding::lines(model);
    text += "\nK and V in MiB, by tokens of context:\n\n";
    text += &table(rows, contexts).text();
    let refused = |row: &Row| Some((row.pair.to_string(), row.uses.as_ref().err()?.to_string()));
    let refused: Vec<_> = rows.iter().filter_map(refused).collect();
    // Pairs that come next to each other often have one reason.
    for same in refused.chunk_by(|a, b| a.1 == b.1) {
        let pairs: Vec<_> = same.iter().map(|(pair, _)| pair.as_str()).collect();
        text += &format!("\n{}: {}\n", pairs.join(", "), same[0].1);
    }
    text.push('\n');
    for (index, &n_ctx) in contexts.iter().enumerate() {
        text.extend(Advice::new(rows, index, memory).map(|advice| advice.text(n_ctx)));
    }
    text
}

fn table(rows: &[Row], contexts: &[u32]) -> Table {
    let mut header = vec!["K / V".to_owned()];
    header.extend(contexts.iter().map(u32::to_string));
    header.push("longest context".into());
    let mut table = Table::new(header);
    for row in rows {
        let mut cells = vec![row.pair.to_string()];
        match &row.uses {
            Ok(uses) => {
                cells.extend(uses.iter().map(|of| format!("{:.1}", mib(of.kv()))));
                cells.push(row.longest.map_or("none".into(), |n| n.to_string()));
            }
            Err(_) => cells.extend(vec!["no".to_owned(); contexts.len() + 1]),
        }
        table.row(cells);
    }
    table
}

fn json(model: &Model, rows: &[Row], contexts: &[u32], memory: u64) -> Value {
    let of = |(n_ctx, of): (&u32, &MemoryUse)| {
        json!({
            "ctx_size": n_ctx, "k": of.k, "v": of.v, "state": of.state, "model": of.model, "compute": of.compute,
            "fits": of.total() <= memory,
        })
    };
    let row = |row: &Row| match &row.uses {
        Ok(uses) => json!({
            "k": row.pair.k.to_string(),
            "v": row.pair.v.to_string(),
            "bytes": contexts.iter().zip(uses).map(of).collect::<Vec<_>>(),
            "longest_context": row.longest,
        }),
        Err(reason) => json!({
            "k": row.pair.k.to_string(),
            "v": row.pair.v.to_string(),
            "error": reason.to_string(),
        }),
    };
    let advice = |(index, &n_ctx): (usize, &u32)| {
        Advice::new(rows, index, memory).map_or(Value::Null, |advice| advice.json(n_ctx))
    };
    json!({
        "memory": memory,
        "padding": padding::json(model),
        "pairs": rows.iter().map(row).collect::<Vec<_>>(),
        "recommended": contexts.iter().enumerate().map(advice).collect::<Vec<_>>(),
    })
}

/// `16G`, `1.5GiB`, `800M`, or bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let error = || format!("{text:?} is no size: 16G or 800M is");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(error()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| error())?;
    let bytes = number * factor;
    if bytes >= 1.0 && bytes < 2f64.powi(63) { Ok(bytes as u64) } else { Err(error()) }
}
