//! `turboquant needle`: what is found in long texts under several cache types.

mod print;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use llama_turboquant::calibrate::TEXT;
use llama_turboquant::eval::needle::{
    NeedleCell, NeedleMode, NeedleOptions, NeedlePair, NeedleTrial, needle,
};
use llama_turboquant::llama::Model;
use serde_json::{Value, json};

use crate::args::{KeyArgs, ModelArgs, Pair, read_text};
use crate::interrupt::Interrupt;
use crate::plot::{self, heatmap};
use crate::table::Format;
use crate::{progress, provenance};

/// Look for needles in a haystack, under several cache types: what is found where in long texts.
///
/// Codes of seven digits are hidden in a text, one or several of different names; at the end one is asked for. Exact is
/// how often the most likely digits are the right ones; the log-probability of a right token is finer. All pairs get
/// the same texts. No chat template is used, so that models without one can be asked.
///
/// A needle test finds coarse damage, as of turbo2 on a small model, and hardly tells finer types apart; much of what is
/// missed is the model's own limit. To choose a cache type use `turboquant eval`: KL divergence does tell.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A text to hide needles in, UTF-8 [default: one that comes with the program]. It is repeated and cut at sentence
    /// ends as needed.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Types of K and V: K/V or one for both, as many as you like; with exceptions as -ctk takes them.
    #[arg(long, value_name = "K/V", num_args = 1.., default_values = ["f16/f16", "turbo4/turbo4", "turbo3/turbo3"])]
    pairs: Vec<Pair>,
    /// Tokens of prompts, the question included.
    #[arg(long, value_name = "N", num_args = 1.., value_delimiter = ',', default_value = "512,1024,2048",
        value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    lengths: Vec<u32>,
    /// Where needles are, percent: 0 is the beginning.
    #[arg(
        long,
        value_name = "PERCENT",
        num_args = 1..,
        value_delimiter = ',',
        default_value = "0,25,50,75,100",
        allow_negative_numbers = true
    )]
    depths: Vec<f64>,
    /// One needle, several of which one is asked for, or both tests.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Both)]
    mode: Mode,
    /// Needles where there are several, at least one for each depth.
    #[arg(long = "keys", value_name = "N", default_value_t = 8)]
    n_keys: usize,
    /// Trials of each place, with other texts, names and codes.
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// Seed of texts, names and codes.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Allow lengths that the model was not trained with.
    #[arg(long)]
    beyond: bool,
    #[command(flatten)]
    keys: KeyArgs,
    /// A heat map of it, SVG.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// What to print: tables, JSON, CSV (a line per cell), or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Single,
    Multi,
    Both,
}

impl Mode {
    fn modes(self) -> Vec<NeedleMode> {
        match self {
            Self::Single => vec![NeedleMode::Single],
            Self::Multi => vec![NeedleMode::Multi],
            Self::Both => vec![NeedleMode::Single, NeedleMode::Multi],
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::new()?;
    let text = args.file.as_deref().map_or_else(|| Ok(TEXT.to_owned()), read_text)?;
    args.plot.as_deref().map_or(Ok(()), plot::check_writable)?;
    let model = args.model.load()?;
    let begin = Instant::now();

    let pairs = Pair::types(&args.pairs);
    let found = needle(&model, &text, &pairs, &options(args), progress::steps("looking"))?;
    progress::message(&format!(
        "{} questions for each pair, {:.1} s",
        found.first().map_or(0, |pair| pair.cells.len()) * args.trials as usize,
        begin.elapsed().as_secs_f64()
    ));
    crate::print(&match args.format {
        Format::Table => print::text(&found),
        Format::Csv => print::csv(&found),
        Format::Md => print::table(&found).markdown(),
        Format::Json => format!("{:#}\n", json(args, &model, &found)),
    })?;
    if let Some(path) = &args.plot {
        let title = format!("needles in a haystack, {}", model.description());
        interrupt.hold(|| heatmap::write(path, &title, &found))?;
        progress::message(&format!("{} written", path.display()));
    }
    Ok(())
}

fn options(args: &Args) -> NeedleOptions {
    let mut options = NeedleOptions::default();
    options.lengths = args.lengths.clone();
    options.depths = args.depths.clone();
    options.modes = args.mode.modes();
    options.n_keys = args.n_keys;
    options.n_trials = args.trials as usize;
    options.seed = args.seed;
    options.beyond = args.beyond;
    options.cache = args.keys.settings(args.model.threads);
    options
}

/// All that is needed to repeat it.
fn json(args: &Args, model: &Model, found: &[NeedlePair]) -> Value {
    let settings = json!({
        "text": args.file.as_ref().map(|file| file.display().to_string()),
        "lengths": args.lengths,
        "depths": args.depths,
        "modes": args.mode.modes().iter().map(|mode| mode.name()).collect::<Vec<_>>(),
        "keys": args.n_keys,
        "trials": args.trials,
        "seed": args.seed,
        "beyond": args.beyond,
    });
    let pair = |pair: &NeedlePair| {
        let mean = |mode: NeedleMode| {
            let (exact, log_prob) = (pair.exact(mode), pair.log_prob(mode));
            (mode.name().to_owned(), json!({ "exact": exact, "mean_logprob": log_prob }))
        };
        json!({
            "k": pair.k.to_string(),
            "v": pair.v.to_string(),
            "mean": args.mode.modes().into_iter().map(mean).collect::<serde_json::Map<_, _>>(),
            "cells": pair.cells.iter().map(cell).collect::<Vec<_>>(),
        })
    };
    let results = found.iter().map(pair).collect();
    provenance::json(&args.model, model, &args.keys, settings, results)
}

fn cell(cell: &NeedleCell) -> Value {
    let trial = |trial: &NeedleTrial| {
        json!({
            "prompt_tokens": trial.n_prompt,
            "name": trial.name,
            "code": trial.code,
            "answer": trial.answer,
            "logprob": trial.log_prob,
        })
    };
    json!({
        "mode": cell.mode.name(),
        "length": cell.length,
        "depth": cell.depth,
        "exact": cell.exact(),
        "mean_logprob": cell.log_prob(),
        "trials": cell.trials.iter().map(trial).collect::<Vec<_>>(),
    })
}
