//! `turboquant plot`: a picture of results that were measured before.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::check_writable;
use super::quality::{self, Panel, Point};
use super::style::Theme;
use crate::args::{Pair, read_text};
use crate::interrupt::Interrupt;

/// Draw results of `turboquant eval`: divergence from f16 caches against bits per value, a panel for each model.
///
/// For example, after `turboquant eval -m A.gguf -f TEXT --format json > a.json` and the same with another model:
/// turboquant plot a.json b.json -o models.svg
#[derive(clap::Args)]
pub struct Args {
    /// What `turboquant eval --format json` printed, a file for each model.
    #[arg(required = true, value_name = "RESULTS.json")]
    results: Vec<PathBuf>,
    /// The picture, an SVG file.
    #[arg(short, long, value_name = "FILE.svg")]
    output: PathBuf,
    /// Pairs to draw: K/V or one type for both, as many as you like [default: all that were measured].
    #[arg(long, value_name = "K/V", num_args = 1..)]
    pairs: Vec<Pair>,
    /// For pages with a dark background.
    #[arg(long)]
    dark: bool,
}

pub fn run(args: &Args) -> Result<()> {
    check_writable(&args.output)?;
    let interrupt = Interrupt::new()?;
    let (mut panels, mut measured) = (Vec::new(), Vec::new());
    for path in &args.results {
        let wrong =
            || format!("{} is not what `turboquant eval --format json` prints", path.display());
        let json: Value = serde_json::from_str(&read_text(path)?).with_context(wrong)?;
        panels.push(panel(&json, &args.pairs).with_context(wrong)?);
        measured.push(on_what(&json).with_context(wrong)?);
    }
    measured.dedup();
    let title = match &measured[..] {
        [one] => format!("KL divergence from an f16 cache: {one}"),
        _ => "KL divergence from an f16 cache".to_owned(),
    };
    let theme = if args.dark { Theme::DARK } else { Theme::LIGHT };
    interrupt.hold(|| quality::draw(&args.output, &theme, &title, &panels))
}

fn text<'a>(json: &'a Value, place: &str) -> Result<&'a str> {
    json.pointer(place).and_then(Value::as_str).ok_or_else(|| anyhow!("it has no text at {place}"))
}

fn number(json: &Value, place: &str) -> Result<f64> {
    json.pointer(place)
        .and_then(Value::as_f64)
        .ok_or_else(|| anyhow!("it has no number at {place}"))
}

/// The name of a file without its folders.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn on_what(json: &Value) -> Result<String> {
    let (file, n_ctx) = (text(json, "/settings/text")?, number(json, "/settings/ctx_size")?);
    Ok(format!("{}, {n_ctx} tokens of context", file_name(file)))
}

/// What a file has of these pairs; of none: all that it has.
fn panel(json: &Value, pairs: &[Pair]) -> Result<Panel> {
    let file = file_name(text(json, "/model/file")?);
    let title = Path::new(file).file_stem().map_or(file.into(), |stem| stem.to_string_lossy());
    let results = json.get("results").and_then(Value::as_array);
    let results = results.ok_or_else(|| anyhow!("it has no list at /results"))?;
    let point = |row: &Value| -> Result<Point> {
        Ok(Point {
            k: text(row, "/k")?.to_owned(),
            v: text(row, "/v")?.to_owned(),
            bits_per_value: number(row, "/bits_per_value")?,
            kld: number(row, "/mean_kld")?,
            error: number(row, "/mean_kld_error")?,
        })
    };
    let mut points = results.iter().map(point).collect::<Result<Vec<_>>>()?;
    if !pairs.is_empty() {
        let is = |point: &Point, pair: &Pair| {
            pair.k.to_string() == point.k && pair.v.to_string() == point.v
        };
        let lacks = pairs.iter().find(|pair| !points.iter().any(|point| is(point, pair)));
        if let Some(pair) = lacks {
            bail!("it has no {pair}");
        }
        points.retain(|point| pairs.iter().any(|pair| is(point, pair)));
    }
    Ok(Panel { title: title.into_owned(), points })
}
