//! `turboquant calibrate`: fits key scales to a model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use llama_turboquant::llama::calibrate::{CalibrateOptions, LayerGain, calibrate};

use crate::args::{check_model, read_text};
use crate::log::{self, Errors};
use crate::progress;
use crate::table::Table;

/// Fit key scales to a model thoroughly: quantized keys then cost less quality than with the quick fit of its first use.
///
/// Runs a text with an f16 cache and looks at queries, keys and values. The file is small, and good for every
/// quantization of the model. Without -o the user's cache gets a copy, which every program then takes by itself. Prints, for
/// each layer, what turbo3 keys are predicted to cost without and with scales.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a GGUF file.
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    /// Where to write the scales, for --kv-calib FILE [default: beside the model, MODEL.kvcal.gguf, and in the user's cache].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A text of yours, UTF-8 [default: one that comes with the program].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Tokens of the text to run.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..=16384))]
    tokens: u32,
    /// Threads [default: as many as there are cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Layers to keep on GPUs [default: all that fit] [also: -ngl].
    #[arg(long, value_name = "N")]
    n_gpu_layers: Option<u32>,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    verbose: bool,
}

pub fn run(args: &Args) -> Result<()> {
    log::init(args.verbose, Errors::InMessage);
    check_model(&args.model)?;
    let begin = Instant::now();
    let output = args.output.clone().unwrap_or_else(|| beside(&args.model));

    let mut options = CalibrateOptions::default();
    options.text = args.file.as_deref().map(read_text).transpose()?;
    options.n_tokens = args.tokens;
    options.n_threads = args.threads.unwrap_or(0);
    options.n_gpu_layers = args.n_gpu_layers;
    options.keep = args.output.is_none();

    let bar = progress::bar("calibrating", 1000);
    let mut gains = Vec::new();
    let result = calibrate(
        &args.model,
        &output,
        &options,
        |done| {
            bar.set_position((1000.0 * f64::from(done)) as u64);
            true
        },
        |gain| gains.push(gain),
    );
    bar.finish_and_clear();
    result?;

    crate::print(&format!(
        "{}{}: {:.1} KiB in {:.1} s; {}\n",
        table(&gains).text(),
        output.display(),
        std::fs::metadata(&output).map_or(0.0, |m| m.len() as f64 / 1024.0),
        begin.elapsed().as_secs_f64(),
        match options.keep {
            true => "kept for every program in the user's cache, too",
            false => "use it with --kv-calib",
        }
    ))
}

/// `model.gguf`: `model.kvcal.gguf`.
fn beside(model: &Path) -> PathBuf {
    model.with_extension("kvcal.gguf")
}

fn table(gains: &[LayerGain]) -> Table {
    let mut table = Table::new(["layer", "heads", "scaled", "error without", "with", "gain"]);
    for gain in gains {
        table.row(row(
            &gain.layer.to_string(),
            gain.heads,
            gain.scaled,
            gain.error_without,
            gain.error_with,
        ));
    }
    let n = gains.len().max(1) as f32;
    table.row(row(
        "mean",
        gains.iter().map(|g| g.heads).sum(),
        gains.iter().map(|g| g.scaled).sum(),
        gains.iter().map(|g| g.error_without).sum::<f32>() / n,
        gains.iter().map(|g| g.error_with).sum::<f32>() / n,
    ));
    table
}

fn row(layer: &str, heads: u32, scaled: u32, without: f32, with: f32) -> [String; 6] {
    let gain = if without > 0.0 { 100.0 * (1.0 - with / without) } else { 0.0 };
    [
        layer.into(),
        heads.to_string(),
        scaled.to_string(),
        format!("{without:.5}"),
        format!("{with:.5}"),
        format!("{gain:.0}%"),
    ]
}
