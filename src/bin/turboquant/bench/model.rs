//! `turboquant bench model`: prompt and generation speed by cache types, treatment of keys, and depth.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::llama::{ContextParams, Model, ModelProbe, Token};
use serde_json::{Value, json};
use signal_hook::{consts::SIGINT, flag};

use super::lane::Lane;
use super::setting::{Setting, Treatment};
use super::stats::{Spread, ratios};
use crate::args::{ModelArgs, Pair, check_model};
use crate::log::{self, Errors};
use crate::machine::Memory;
use crate::plot::{self, lines};
use crate::progress;
use crate::provenance::{self, with_provenance};
use crate::table::{self, Format, Table};
use crate::units::{mib, size};

/// Measure a model's speed, in tokens per second: prompts (pp) and generation (tg), at depths of the context.
///
/// All settings, pairs by treatments of keys, have their contexts at once, filled to the depth; in each round each
/// decodes some tokens in its turn and removes them again. The ratio to the first setting is the median of ratios
/// within rounds, which a machine's moods leave alone. A round to warm up does not count.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Types of K and V: K/V or one for both, as many as you like, the first to compare with; with exceptions as
    /// -ctk takes them.
    #[arg(long, value_name = "K/V", num_args = 1.., default_values = [
        "f16/f16", "q8_0/q8_0", "turbo4/turbo4", "turbo4/turbo3", "turbo3/turbo3",
    ])]
    pairs: Vec<Pair>,
    /// How keys are treated, as many ways as you like: auto (anchors and scales where K is of a turbo type), off
    /// (neither), on (anchors for any type), calib=FILE, calib=auto or calib=off (anchors as for auto, and these scales).
    #[arg(long, value_name = "TREATMENT", num_args = 1.., default_value = "auto")]
    keys: Vec<Treatment>,
    /// Tokens in the context before those that are measured, as many depths as you like.
    #[arg(short, long, value_name = "N", num_args = 1.., value_delimiter = ',', default_value = "0,4096",
        value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    depths: Vec<u32>,
    /// Tokens of a prompt; 0: no prompts.
    #[arg(short = 'p', long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    n_prompt: u32,
    /// Tokens to generate; 0: no generation.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    n_gen: u32,
    /// Rounds.
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Tokens that are computed at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    ubatch_size: u32,
    /// Keep all tokens also in layers with a sliding window.
    #[arg(long)]
    swa_full: bool,
    /// Seed of the tokens, which are drawn at random.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What to print: a table, JSON, CSV, or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// A picture of speed by depth, an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Prompt(u32),
    Generation(u32),
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prompt(n) => write!(f, "pp{n}"),
            Self::Generation(n) => write!(f, "tg{n}"),
        }
    }
}

/// Of one setting at one depth.
struct Measured {
    setting: usize,
    depth: u32,
    test: Test,
    /// Tokens per second, by round.
    samples: Vec<f64>,
    /// To the first setting, by round.
    ratios: Vec<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    log::init(args.model.verbose, Errors::InMessage);
    let tests = tests(args)?;
    let depths = depths(args);
    let settings = settings(args);
    if let Some(path) = &args.plot {
        plot::check_writable(path)?;
    }
    check_model(&args.model.model)?;
    let params = context_params(args, &depths, &tests);
    check_memory(args, &settings, &params)?;
    let model = args.model.load()?;

    let lane = |setting: &Setting| Lane::new(&model, setting, &params);
    let mut lanes = settings.iter().map(lane).collect::<Result<Vec<_>>>()?;
    stop_on_interrupt(&lanes)?;
    progress::message(&format!(
        "measuring {} settings in {} rounds, and one to warm up",
        lanes.len(),
        args.rounds
    ));
    let begin = Instant::now();
    let measured = measure(args, &model, &mut lanes, &depths, &tests)?;
    progress::message(&format!("measured in {:.1} s", begin.elapsed().as_secs_f64()));
    crate::print(&match args.format {
        Format::Table => rows(&measured, &lanes).text(),
        Format::Csv => rows(&measured, &lanes).csv(),
        Format::Md => rows(&measured, &lanes).markdown(),
        Format::Json => format!("{:#}\n", json(args, &model, &measured, &lanes)),
    })?;
    match &args.plot {
        Some(path) => draw(path, &model, &measured, &lanes, &tests),
        None => Ok(()),
    }
}

fn tests(args: &Args) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    if args.n_prompt > 0 {
        tests.push(Test::Prompt(args.n_prompt));
    }
    if args.n_gen > 0 {
        tests.push(Test::Generation(args.n_gen));
    }
    if tests.is_empty() {
        return Err(crate::Exit::usage("-p 0 and -n 0 leave nothing to measure"));
    }
    Ok(tests)
}

/// The shallowest first, each once.
fn depths(args: &Args) -> Vec<u32> {
    let mut depths = args.depths.clone();
    depths.sort_unstable();
    depths.dedup();
    depths
}

fn settings(args: &Args) -> Vec<Setting> {
    let of = |pair: &Pair| {
        let setting = |keys: &Treatment| Setting { pair: pair.clone(), keys: keys.clone() };
        args.keys.iter().map(setting).collect::<Vec<_>>()
    };
    args.pairs.iter().flat_map(of).collect()
}

fn context_params(args: &Args, depths: &[u32], tests: &[Test]) -> ContextParams {
    let tokens = |test: &Test| match *test {
        Test::Prompt(n) => n,
        Test::Generation(n) => n + 1,
    };
    let behind = tests.iter().map(tokens).max().unwrap_or(0);
    let params = ContextParams::default()
        .n_ctx(depths.last().unwrap_or(&0) + behind)
        .n_batch(args.ubatch_size.max(2048))
        .n_ubatch(args.ubatch_size)
        .swa_full(args.swa_full);
    match args.model.threads {
        Some(n) => params.n_threads(n),
        None => params,
    }
}

/// Whether all contexts fit into memory together, before any of them is made.
fn check_memory(args: &Args, settings: &[Setting], params: &ContextParams) -> Result<()> {
    let probe = ModelProbe::open(&args.model.model)?;
    let mut weights = 0;
    let mut contexts = Vec::new();
    for setting in settings {
        let used = probe.memory_use(&setting.params(params));
        let used = used.with_context(|| setting.to_string())?;
        weights = used.model;
        contexts.push((used.total() - used.model, setting));
    }
    let together = contexts.iter().map(|(bytes, _)| bytes).sum::<u64>();
    let (Some((room, of)), Some(largest)) =
        (Memory::now().room(), contexts.iter().max_by_key(|c| c.0))
    else {
        return Ok(());
    };
    if weights + together > room {
        bail!(
            "the contexts of all {} settings take {} together (most, {}, that of {}), the weights {}, but {of} has {} \
             left: compare fewer --pairs and --keys at a time, or take smaller --depths",
            contexts.len(),
            size(together),
            size(largest.0),
            largest.1,
            size(weights),
            size(room)
        );
    }
    Ok(())
}

/// Ctrl-C aborts what is being decoded, and all that would follow; a second one ends the program.
fn stop_on_interrupt(lanes: &[Lane]) -> Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&again))?;
    flag::register(SIGINT, again)?;
    for lane in lanes {
        flag::register(SIGINT, lane.context.abort_flag())?;
    }
    Ok(())
}

fn measure(
    args: &Args,
    model: &Model,
    lanes: &mut [Lane],
    depths: &[u32],
    tests: &[Test],
) -> Result<Vec<Measured>> {
    let mut random = Tokens::new(model, args.seed);
    let text = random.draw(depths.last().map_or(0, |&depth| depth as usize), true);
    let n_rounds = args.rounds as usize + 1;
    let steps = depths.len() * lanes.len() * (1 + n_rounds * tests.len());
    let bar = progress::bar("measuring", steps as u64);
    let mut all = Vec::new();
    for &depth in depths {
        for lane in &mut *lanes {
            lane.fill(&text[..depth as usize])?;
            bar.inc(1);
        }
        // [test][setting][round]
        let mut samples = vec![vec![Vec::new(); lanes.len()]; tests.len()];
        for round in 0..n_rounds {
            for (test, samples) in tests.iter().zip(&mut samples) {
                let tokens = match *test {
                    Test::Prompt(n) => random.draw(n as usize, depth == 0),
                    Test::Generation(n) => random.draw(n as usize + 1, depth == 0),
                };
                for turn in 0..lanes.len() {
                    // Another begins each time.
                    let place = (round + turn) % lanes.len();
                    let rate = match test {
                        Test::Prompt(_) => lanes[place].prompt(&tokens)?,
                        Test::Generation(_) => lanes[place].generation(&tokens)?,
                    };
                    if round > 0 {
                        samples[place].push(rate);
                    }
                    bar.inc(1);
                }
            }
        }
        for (&test, samples) in tests.iter().zip(&samples) {
            for (setting, of) in samples.iter().enumerate() {
                let ratios = ratios(of, &samples[0]);
                all.push(Measured { setting, depth, test, samples: of.clone(), ratios });
            }
        }
    }
    bar.finish_and_clear();
    Ok(all)
}

/// Tokens at random.
struct Tokens {
    random: SplitMix64,
    n_tokens: u64,
    /// What texts begin with.
    bos: Option<Token>,
}

impl Tokens {
    fn new(model: &Model, seed: u64) -> Self {
        let vocab = model.vocab();
        Self {
            random: SplitMix64::new(seed),
            n_tokens: vocab.n_tokens().max(1).into(),
            bos: vocab.bos().filter(|_| vocab.adds_bos()),
        }
    }

    fn draw(&mut self, n: usize, begins_text: bool) -> Vec<Token> {
        let mut draw = || (self.random.next_u64() % self.n_tokens) as Token;
        let mut tokens: Vec<Token> = (0..n).map(|_| draw()).collect();
        if let (true, Some(bos), Some(first)) = (begins_text, self.bos, tokens.first_mut()) {
            *first = bos;
        }
        tokens
    }
}

fn rows(measured: &[Measured], lanes: &[Lane]) -> Table {
    let mut table = Table::new([
        "K / V",
        "keys",
        "scales",
        "KV MiB",
        "depth",
        "test",
        "t/s",
        "t/s 10%",
        "t/s 90%",
        "ratio",
        "ratio 10%",
        "ratio 90%",
    ]);
    for of in measured {
        let lane = &lanes[of.setting];
        let (Some(rate), Some(ratio)) = (Spread::of(&of.samples), Spread::of(&of.ratios)) else {
            continue; // there is a round or more
        };
        table.row([
            lane.setting.pair.to_string(),
            lane.setting.keys.to_string(),
            table::fit(lane.fit.as_ref()),
            format!("{:.1}", mib(lane.memory.kv())),
            of.depth.to_string(),
            of.test.to_string(),
            format!("{:.1}", rate.median),
            format!("{:.1}", rate.low),
            format!("{:.1}", rate.high),
            format!("{:.3}", ratio.median),
            format!("{:.3}", ratio.low),
            format!("{:.3}", ratio.high),
        ]);
    }
    table
}

/// All that is needed to repeat it.
fn json(args: &Args, model: &Model, measured: &[Measured], lanes: &[Lane]) -> Value {
    let one = |of: &Measured| {
        let lane = &lanes[of.setting];
        json!({
            "k": lane.setting.pair.k.to_string(),
            "v": lane.setting.pair.v.to_string(),
            "keys": lane.setting.keys.to_string(),
            "kv_fit": provenance::fit(lane.fit.as_ref()),
            "kv_bytes": lane.memory.kv(),
            "depth": of.depth,
            "test": of.test.to_string(),
            "tokens_per_second": Spread::of(&of.samples).map(Spread::json),
            "ratio": Spread::of(&of.ratios).map(Spread::json),
            "samples": of.samples,
            "ratios": of.ratios,
        })
    };
    with_provenance(json!({
        "model": { "file": args.model.model.display().to_string(), "description": model.description() },
        "settings": {
            "n_prompt": args.n_prompt,
            "n_gen": args.n_gen,
            "rounds": args.rounds,
            "seed": args.seed,
            "ctx_size": lanes.first().map(|lane| lane.context.n_ctx()),
            "ubatch_size": args.ubatch_size,
            "swa_full": args.swa_full,
            "threads": args.model.threads,
        },
        "results": measured.iter().map(one).collect::<Vec<_>>(),
    }))
}

fn draw(
    path: &std::path::Path,
    model: &Model,
    measured: &[Measured],
    lanes: &[Lane],
    tests: &[Test],
) -> Result<()> {
    let panel = |test: &Test| {
        let line = |(index, lane): (usize, &Lane)| {
            let of = measured.iter().filter(|m| m.test == *test && m.setting == index);
            let point = |m: &Measured| {
                let rate = Spread::of(&m.samples)?;
                Some(lines::Point {
                    x: m.depth.into(),
                    y: rate.median,
                    low: rate.low,
                    high: rate.high,
                })
            };
            lines::Line { name: lane.setting.to_string(), points: of.filter_map(point).collect() }
        };
        lines::Panel {
            title: match test {
                Test::Prompt(n) => format!("prompt of {n} tokens"),
                Test::Generation(n) => format!("generation of {n} tokens"),
            },
            x: "tokens in the context".into(),
            y: "tokens per second".into(),
            lines: lanes.iter().enumerate().map(line).collect(),
        }
    };
    lines::draw(path, &model.description(), &tests.iter().map(panel).collect::<Vec<_>>())
}
