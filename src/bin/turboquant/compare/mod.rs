//! `turboquant compare`: one prompt under several cache types, side by side.

mod print;

use std::path::PathBuf;

use anyhow::Result;
use llama_turboquant::eval::{CompareOptions, PairRun, compare};
use llama_turboquant::llama::{Finish, Model};
use serde_json::{Value, json};

use crate::args::{KeyArgs, ModelArgs, Pair};
use crate::interrupt::Interrupt;
use crate::table::Format;
use crate::units::mib;
use crate::{Exit, progress, prompt, provenance};

/// Run one prompt under several cache types, side by side.
///
/// Each pair generates a text of its own; [!=] marks where it leaves the reference's, which is that of the first pair.
/// One token that differs changes all behind it: how far predictions are apart is measured along the reference's text,
/// which each pair is fed. Divergence is the KL divergence of predictions from the reference's, in nats; top-1 is how
/// often the most likely token is the same. A short text says little: `turboquant eval` measures over a long one.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What to ask.
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "file"
    )]
    prompt: Option<String>,
    /// A file with what to ask, UTF-8.
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Go on with the prompt as it is, without a chat template.
    #[arg(long)]
    raw: bool,
    /// Types of K and V: K/V or one for both, two or more, of which the first is the reference; with exceptions as -ctk
    /// takes them.
    #[arg(long, value_name = "K/V", num_args = 1.., default_values = ["f16/f16", "turbo4/turbo4", "turbo3/turbo3"])]
    pairs: Vec<Pair>,
    /// Tokens of an answer, at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    predict: u32,
    /// Temperature; 0: always the most likely token. Else tokens are drawn as `turboquant run` does by default.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temp: f32,
    /// Seed of what is drawn, the same for each pair.
    #[arg(short, long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(..i64::from(u32::MAX)))]
    seed: u32,
    #[command(flatten)]
    keys: KeyArgs,
    /// What to print: texts and a table, JSON, or the table as CSV or Markdown.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

pub fn run(args: &Args) -> Result<()> {
    Interrupt::new()?;
    let text = prompt::text(args.prompt.as_deref(), args.file.as_deref())?;
    let text = text.ok_or_else(|| Exit::usage("no prompt: give one with -p or -f"))?;
    let model = args.model.load()?;
    let tokens = prompt::tokens(&model, &text, args.raw, Vec::new())?;

    let mut options = CompareOptions::default();
    options.n_predict = args.predict as usize;
    options.temperature = args.temp;
    options.seed = args.seed;
    options.cache = args.keys.settings(args.model.threads);
    let pairs = Pair::types(&args.pairs);
    let runs = compare(&model, &tokens, &pairs, &options, progress::steps("comparing"))?;
    crate::print(&match args.format {
        Format::Table => print::text(&runs),
        Format::Csv => print::table(&runs).csv(),
        Format::Md => print::table(&runs).markdown(),
        Format::Json => format!("{:#}\n", json(args, &model, &text, tokens.len(), &runs)),
    })
}

/// All that is needed to repeat it.
fn json(args: &Args, model: &Model, prompt: &str, n_prompt: usize, runs: &[PairRun]) -> Value {
    let settings = json!({
        "prompt": prompt,
        "prompt_tokens": n_prompt,
        "raw": args.raw,
        "predict": args.predict,
        "temp": args.temp,
        "seed": args.seed,
    });
    let results = runs.iter().map(result).collect();
    provenance::json(&args.model, model, &args.keys, settings, results)
}

fn result(run: &PairRun) -> Value {
    let divergence = run.divergence.as_ref().map(|divergence| {
        json!({
            "token": divergence.index,
            "byte": divergence.byte,
            "expected": divergence.expected,
            "found": divergence.found,
        })
    });
    json!({
        "k": run.k.to_string(),
        "v": run.v.to_string(),
        "bits_per_value": run.bits_per_value,
        "kv_mib": mib(run.memory.kv()),
        "k_mib": mib(run.memory.k),
        "v_mib": mib(run.memory.v),
        "tokens_per_second": run.tokens_per_second,
        "text": run.text,
        "tokens": run.tokens,
        "ended": matches!(run.finish, Finish::EndOfGeneration(_)),
        "divergence": divergence,
        "mean_kld": run.summary.mean_kld,
        "max_kld": run.summary.max_kld,
        "same_top": run.summary.same_top,
        "kv_fit": provenance::fit(run.fit.as_ref()),
        "kld": run.places.iter().map(|place| place.kld).collect::<Vec<_>>(),
    })
}
