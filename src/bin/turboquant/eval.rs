//! `turboquant eval`: what cache types cost in quality.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use llama_turboquant::eval::{EvalOptions, Evaluation, PairScore, evaluate};
use llama_turboquant::llama::Model;
use serde_json::{Value, json};

use crate::args::{KeyArgs, ModelArgs, Pair, PairArgs, read_text};
use crate::interrupt::Interrupt;
use crate::plot::style::Theme;
use crate::plot::{self, quality};
use crate::table::{self, Format, Table};
use crate::units::mib;
use crate::{progress, provenance};

/// Measure what cache types cost in quality: divergence from f16 caches, and perplexity, over a text.
///
/// The text is cut into chunks of the context's size, of each the second half is scored, as llama-perplexity does.
/// Divergence is the KL divergence of predictions from those with f16 caches, in nats; top-1 is how often the most
/// likely token is the same.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text, UTF-8, of one chunk or more.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    pairs: PairArgs,
    /// Tokens of a chunk.
    #[arg(short, long, visible_alias = "ctx", value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(16..=1 << 24))]
    ctx_size: u32,
    /// Chunks of the text, if it has as many; 0: all.
    #[arg(long, value_name = "N", default_value_t = 8)]
    chunks: usize,
    #[command(flatten)]
    keys: KeyArgs,
    /// What to print: a table, JSON, CSV, or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// A picture of divergence against bits per value, an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let text = read_text(&args.file)?;
    if let Some(path) = &args.plot {
        plot::check_writable(path)?;
    }
    let interrupt = Interrupt::new()?;
    let model = args.model.load()?;
    let begin = Instant::now();

    let mut options = EvalOptions::default();
    options.n_ctx = args.ctx_size;
    options.n_chunks = if args.chunks == 0 { usize::MAX } else { args.chunks };
    options.cache = args.keys.settings(args.model.threads);
    let pairs = Pair::types(&args.pairs.pairs);
    let steps = progress::steps("evaluating");
    let evaluation = evaluate(&model, &text, &pairs, &options, steps)?;
    progress::message(&format!(
        "chunks of {1} tokens: {0}, {2} tokens scored, {3:.1} s",
        evaluation.n_chunks,
        args.ctx_size,
        evaluation.reference.summary.n,
        begin.elapsed().as_secs_f64()
    ));
    crate::print(&match args.format {
        Format::Table => rows(&evaluation).text(),
        Format::Csv => rows(&evaluation).csv(),
        Format::Md => rows(&evaluation).markdown(),
        Format::Json => format!("{:#}\n", json(args, &model, &evaluation)),
    })?;
    let draw = |path: &PathBuf| interrupt.hold(|| draw(path, &model, &evaluation));
    args.plot.as_ref().map_or(Ok(()), draw)
}

fn draw(path: &Path, model: &Model, evaluation: &Evaluation) -> Result<()> {
    let point = |score: &PairScore| quality::Point {
        k: score.k.to_string(),
        v: score.v.to_string(),
        bits_per_value: score.bits_per_value,
        kld: score.summary.mean_kld,
        error: score.summary.mean_kld_error,
    };
    let points = evaluation.pairs.iter().map(point).collect();
    let panel = quality::Panel { title: model.description(), points };
    quality::draw(path, &Theme::LIGHT, "KL divergence from an f16 cache", &[panel])
}

fn scores(evaluation: &Evaluation) -> impl Iterator<Item = &PairScore> {
    std::iter::once(&evaluation.reference).chain(&evaluation.pairs)
}

fn rows(evaluation: &Evaluation) -> Table {
    let mut table = Table::new([
        "K / V",
        "bits per value",
        "KV MiB",
        "PPL",
        "mean KLD",
        "+-",
        "99% KLD",
        "top-1 %",
        "scales",
    ]);
    for score in scores(evaluation) {
        let summary = &score.summary;
        table.row([
            format!("{} / {}", score.k, score.v),
            format!("{:.2}", score.bits_per_value),
            format!("{:.2}", mib(score.memory.kv())),
            format!("{:.3}", summary.ppl),
            format!("{:.4}", summary.mean_kld),
            format!("{:.4}", summary.mean_kld_error),
            format!("{:.4}", summary.kld_99),
            format!("{:.1}", 100.0 * summary.same_top),
            table::fit(score.fit.as_ref()),
        ]);
    }
    table
}

/// All that is needed to repeat it.
fn json(args: &Args, model: &Model, evaluation: &Evaluation) -> Value {
    let score = |score: &PairScore| {
        json!({
            "k": score.k.to_string(),
            "v": score.v.to_string(),
            "bits_per_value": score.bits_per_value,
            "kv_mib": mib(score.memory.kv()),
            "ppl": score.summary.ppl,
            "mean_kld": score.summary.mean_kld,
            "mean_kld_error": score.summary.mean_kld_error,
            "kld_99": score.summary.kld_99,
            "max_kld": score.summary.max_kld,
            "same_top": score.summary.same_top,
            "kv_fit": provenance::fit(score.fit.as_ref()),
        })
    };
    let settings = json!({
        "text": args.file.display().to_string(),
        "ctx_size": args.ctx_size,
        "chunks": evaluation.n_chunks,
        "scored": evaluation.reference.summary.n,
    });
    let results = scores(evaluation).map(score).collect();
    provenance::json(&args.model, model, &args.keys, settings, results)
}
