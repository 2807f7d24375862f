//! `turboquant bench codec`: rows of blocks on one thread, in the processor's cache.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK};
use llama_turboquant::kernels::{self, BlockQ8_0, Kernels, QK8_0, Rows};
use serde_json::{Value, json};

use super::stats::{Spread, ratios};
use crate::interrupt::Interrupt;
use crate::plot::{self, bars};
use crate::progress;
use crate::provenance::with_provenance;
use crate::table::{Format, Table};

/// Measure the codec on one thread, by type and instruction set: encoding, decoding, dot products with q8_0.
///
/// Results are compared with those of the scalar kernels before they are timed. GB/s are of the f32 values that are
/// read or written; a dot product reads none, but stands for as many.
#[derive(clap::Args)]
pub struct Args {
    /// Values of a row, a multiple of 64.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=1 << 24))]
    values: u32,
    /// Samples of each.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// Milliseconds of a sample.
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sample_ms: u32,
    /// Seed of the values, which are Gaussian.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What to print: a table, JSON, CSV, or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// A picture of speed by instruction set, an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

const OPERATIONS: [&str; 3] = ["encode", "decode", "dot"];
const TYPES: [&str; 3] = ["turbo2", "turbo3", "turbo4"];

type Run<'a> = Box<dyn FnMut() + 'a>;

/// A row's operation, ready to be timed.
struct Work<'a> {
    operation: &'static str,
    cache_type: &'static str,
    kernels: &'static str,
    run: Run<'a>,
    /// Calls of a sample.
    calls: u32,
    /// Seconds per call.
    samples: Vec<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::new()?;
    let n = args.values as usize;
    if !n.is_multiple_of(QK) {
        return Err(crate::Exit::usage(format!("--values {n} is not a multiple of {QK}")));
    }
    if let Some(path) = &args.plot {
        plot::check_writable(path)?;
    }
    let mut random = SplitMix64::new(args.seed);
    let (x, y) = (random.gaussians(n), random.gaussians(n));
    let q8_0: Vec<_> = y.as_chunks::<QK8_0>().0.iter().map(BlockQ8_0::quantize).collect();
    let mut all = Vec::new();
    prepare::<2>(&mut all, &x, &q8_0)?;
    prepare::<3>(&mut all, &x, &q8_0)?;
    prepare::<4>(&mut all, &x, &q8_0)?;
    all.sort_by_key(|work| OPERATIONS.iter().position(|o| *o == work.operation));
    measure(args, &mut all);

    crate::print(&match args.format {
        Format::Table => table(args, &all).text(),
        Format::Csv => table(args, &all).csv(),
        Format::Md => table(args, &all).markdown(),
        Format::Json => format!("{:#}\n", json(args, &all)),
    })?;
    args.plot.as_ref().map_or(Ok(()), |path| interrupt.hold(|| draw(args, path, &all)))
}

/// All operations of a type, by instruction set.
fn prepare<'a, const K: usize>(
    all: &mut Vec<Work<'a>>,
    x: &'a [f32],
    y: &'a [BlockQ8_0],
) -> Result<()>
where
    Kernels: Rows<K>,
{
    let scalar = kernels::select(Some("scalar"))?;
    let mut code = vec![Block::<K>::ZERO; x.len() / QK];
    (scalar.rows().quantize_row)(x, &mut code);
    let mut decoded = vec![0.0; x.len()];
    (scalar.rows().dequantize_row)(&code, &mut decoded);
    let dot = (scalar.rows().vec_dot_q8_0)(&code, y);
    // What rounding may cost, as the kernels promise for either.
    let products = decoded.iter().zip(y.iter().flat_map(|b| b.qs.map(|q| b.d() * f32::from(q))));
    let magnitude: f32 = products.map(|(x, y)| (x * y).abs()).sum();
    let tolerance = 2.0 * (x.len() / 32 + 16) as f32 * f32::EPSILON * magnitude;

    for kernels in kernels::available() {
        let rows: &'static kernels::RowKernels<K> = kernels.rows();
        let name = kernels.name;
        let (mut blocks, mut floats) = (code.clone(), decoded.clone());
        blocks.fill(Block::ZERO);
        floats.fill(0.0);
        (rows.quantize_row)(x, &mut blocks);
        ensure!(
            blocks == code,
            "the {name} kernels encode turbo{K} otherwise than the scalar ones"
        );
        (rows.dequantize_row)(&code, &mut floats);
        ensure!(
            floats == decoded,
            "the {name} kernels decode turbo{K} otherwise than the scalar ones"
        );
        let sum = (rows.vec_dot_q8_0)(&code, y);
        ensure!(
            (sum - dot).abs() <= tolerance,
            "the {name} kernels have {sum} for a dot product of turbo{K}, the scalar ones {dot}"
        );
        let code = code.clone();
        let again = code.clone();
        let works: [(&'static str, Run<'a>); 3] = [
            (
                "encode",
                Box::new(move || {
                    black_box((rows.quantize_row)(black_box(x), &mut blocks));
                }),
            ),
            (
                "decode",
                Box::new(move || {
                    (rows.dequantize_row)(black_box(&code), &mut floats);
                    black_box(&floats);
                }),
            ),
            (
                "dot",
                Box::new(move || {
                    black_box((rows.vec_dot_q8_0)(black_box(&again), black_box(y)));
                }),
            ),
        ];
        all.extend(works.into_iter().map(|(operation, run)| Work {
            operation,
            cache_type: TYPES[K - 2],
            kernels: name,
            run,
            calls: 1,
            samples: Vec::new(),
        }));
    }
    Ok(())
}

/// Takes samples in turns.
fn measure(args: &Args, all: &mut [Work<'_>]) {
    let target = Duration::from_millis(args.sample_ms.into()).as_secs_f64();
    let bar = progress::bar("measuring", all.len() as u64 * (1 + u64::from(args.samples)));
    for work in &mut *all {
        // Until it takes long enough to tell how many calls a sample needs.
        loop {
            let seconds = seconds(work);
            if seconds > 0.2 * target {
                let calls = f64::from(work.calls) * target / seconds;
                work.calls = calls.clamp(1.0, f64::from(u32::MAX)) as u32;
                break;
            }
            work.calls = work.calls.saturating_mul(4);
        }
        bar.inc(1);
    }
    for _ in 0..args.samples {
        for work in &mut *all {
            let seconds = seconds(work);
            work.samples.push(seconds / f64::from(work.calls));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
}

/// Of a sample.
fn seconds(work: &mut Work<'_>) -> f64 {
    let begin = Instant::now();
    for _ in 0..work.calls {
        (work.run)();
    }
    begin.elapsed().as_secs_f64()
}

/// What is said of one operation.
struct Speed {
    /// Nanoseconds per block of 64 values.
    block: Spread,
    /// Values per second.
    values: Spread,
    /// Bytes of f32 per second.
    bytes: Spread,
    /// How many times as fast as the scalar kernels.
    gain: Spread,
}

fn speed(args: &Args, all: &[Work<'_>], work: &Work<'_>) -> Option<Speed> {
    let n = f64::from(args.values);
    let seconds = Spread::of(&work.samples)?;
    let scalar = all.iter().find(|other| {
        other.kernels == "scalar"
            && (other.operation, other.cache_type) == (work.operation, work.cache_type)
    })?;
    Some(Speed {
        block: seconds.map(|s| 1e9 * s * QK as f64 / n),
        values: seconds.map(|s| n / s),
        bytes: seconds.map(|s| 4.0 * n / s),
        gain: Spread::of(&ratios(&scalar.samples, &work.samples))?,
    })
}

fn table(args: &Args, all: &[Work<'_>]) -> Table {
    let mut table = Table::new([
        "operation",
        "type",
        "kernels",
        "ns/block",
        "ns 10%",
        "ns 90%",
        "million values/s",
        "GB/s",
        "of scalar",
    ]);
    for work in all {
        if let Some(speed) = speed(args, all, work) {
            table.row([
                work.operation.to_owned(),
                work.cache_type.into(),
                work.kernels.into(),
                format!("{:.1}", speed.block.median),
                format!("{:.1}", speed.block.low),
                format!("{:.1}", speed.block.high),
                format!("{:.1}", 1e-6 * speed.values.median),
                format!("{:.3}", 1e-9 * speed.bytes.median),
                format!("{:.2}", speed.gain.median),
            ]);
        }
    }
    table
}

fn json(args: &Args, all: &[Work<'_>]) -> Value {
    let one = |work: &Work<'_>| {
        let speed = speed(args, all, work);
        json!({
            "operation": work.operation,
            "type": work.cache_type,
            "kernels": work.kernels,
            "ns_per_block": speed.as_ref().map(|s| s.block.json()),
            "values_per_second": speed.as_ref().map(|s| s.values.json()),
            "f32_bytes_per_second": speed.as_ref().map(|s| s.bytes.json()),
            "times_scalar": speed.as_ref().map(|s| s.gain.json()),
            "calls": work.calls,
            "samples": work.samples,
        })
    };
    with_provenance(json!({
        "settings": {
            "values": args.values,
            "samples": args.samples,
            "sample_ms": args.sample_ms,
            "seed": args.seed,
            "threads": 1,
        },
        "results": all.iter().map(one).collect::<Vec<_>>(),
    }))
}

fn draw(args: &Args, path: &std::path::Path, all: &[Work<'_>]) -> Result<()> {
    // The slowest first: bars rise.
    let mut names: Vec<_> = kernels::available().map(|kernels| kernels.name).collect();
    names.reverse();
    let bar = |operation: &str, cache_type: &str, name: &str| {
        let is = |work: &&Work<'_>| {
            (work.operation, work.cache_type, work.kernels) == (operation, cache_type, name)
        };
        let gb = speed(args, all, all.iter().find(is)?)?.bytes.map(|bytes| 1e-9 * bytes);
        Some(bars::Bar { y: gb.median, low: gb.low, high: gb.high })
    };
    let panel = |operation: &str| bars::Panel {
        title: operation.into(),
        y: "GB/s of f32".into(),
        groups: TYPES
            .map(|of| bars::Group {
                name: of.into(),
                bars: names.iter().filter_map(|name| bar(operation, of, name)).collect(),
            })
            .into(),
    };
    bars::draw(path, "the codec on one thread", &names, &OPERATIONS.map(panel))
}
