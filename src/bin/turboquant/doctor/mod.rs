//! `turboquant doctor`: whether the types are really in use, and what keeps them from it.

mod environment;
mod hardware;
mod kernels;
mod model;
mod tools;
mod trial;

use std::path::PathBuf;

use anyhow::Result;
use llama_turboquant::llama::{CachePolicy, CacheType, KvCalibration, KvPreset};
use serde_json::{Value, json};

use crate::args::{KeyArgs, Pair};
use crate::interrupt::Interrupt;
use crate::log::{self, Errors};
use crate::provenance::with_provenance;
use crate::table::{Format, Table};
use crate::{Exit, info};

/// Find what keeps the types from being in use, or makes them slow or worse: the build, the environment, programs on
/// PATH, memory; with a model, whether it can have them, and whether it really does when it runs.
///
/// Ends with code 1 if there is a problem. Warnings are no problems.
#[derive(clap::Args)]
pub struct Args {
    /// A model, a GGUF file.
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Type of K, with exceptions by KV layer if need be [also: -ctk].
    #[arg(long, value_name = "TYPE", default_value = "turbo4")]
    cache_type_k: CachePolicy,
    /// Type of V, likewise [also: -ctv].
    #[arg(long, value_name = "TYPE", default_value = "turbo4")]
    cache_type_v: CachePolicy,
    /// Types of K and V together: k3v2, k4v2, k4v3, k4v4 or quality.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["cache_type_k", "cache_type_v"])]
    kv_preset: Option<KvPreset>,
    #[command(flatten)]
    keys: KeyArgs,
    /// Tokens of context that are to fit into memory [default: the training context].
    #[arg(short, long, visible_alias = "ctx", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    ctx_size: Option<u32>,
    /// Threads [default: as many as there are cores].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// Read the model's metadata alone, and do not run it.
    #[arg(long)]
    no_run: bool,
    /// What to print: a list, JSON, CSV, or a Markdown table.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
    /// Show llama.cpp's log.
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    /// As asked for, or as goes with the preset; None: the default.
    fn calibration(&self) -> Option<KvCalibration> {
        self.keys.calibration().or(self.kv_preset.and_then(KvPreset::calibration))
    }

    fn pair(&self) -> Pair {
        let types = self.kv_preset.map(KvPreset::types);
        match types {
            Some((k, v)) => Pair { k: k.into(), v: v.into() },
            None => Pair { k: self.cache_type_k.clone(), v: self.cache_type_v.clone() },
        }
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warning,
    Problem,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What one look found.
struct Check {
    state: State,
    name: String,
    found: String,
    /// Empty: there is nothing to do.
    fix: String,
}

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { state: State::Ok, name: name.into(), found: found.into(), fix: String::new() }
    }

    fn warning(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Warning, name: name.into(), found: found.into(), fix: fix.into() }
    }

    fn problem(name: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Problem, name: name.into(), found: found.into(), fix: fix.into() }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let _interrupt = Interrupt::new()?;
    log::init(args.verbose, Errors::InMessage);
    let mut report = Report { checks: Vec::new(), as_text: matches!(args.format, Format::Table) };
    report.add(kernels::checks())?;
    report.add(environment::checks())?;
    report.add(tools::checks())?;
    report.add(hardware::checks(args.threads))?;
    // Below C++ kernels that cannot be would end the process.
    let runs = kernels::chosen().is_ok();
    if let Some(path) = &args.model {
        report.add(model::checks(args, path))?;
        let stops = |check: &Check| check.name == model::TYPES || check.name == model::SIZE;
        let stopped = |check| stops(check) && check.state == State::Problem;
        let can_have = !report.checks.iter().any(stopped);
        if !args.no_run && runs && can_have {
            trial::checks(args, path, |check| report.add([check]))?;
        } else if !args.no_run {
            let why = "not run: see the problems above";
            report.add([Check::warning(trial::NAME, why, "mend them, and run doctor again")])?;
        }
    }
    let checks = report.checks;
    let worst = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
    crate::print(&match args.format {
        Format::Table => summary(&checks),
        Format::Csv => table(&checks).csv(),
        Format::Md => table(&checks).markdown(),
        Format::Json => format!("{:#}\n", json(args, &checks, worst, runs)),
    })?;
    match worst {
        State::Problem => Err(Exit { code: 1, message: String::new() }.into()),
        _ => Ok(()),
    }
}

/// What has been found so far.
struct Report {
    checks: Vec<Check>,
    /// Prints each as it is found: what comes after it takes a while, and may fail.
    as_text: bool,
}

impl Report {
    fn add(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<()> {
        for check in checks {
            if self.as_text {
                crate::print(&text(&check))?;
            }
            self.checks.push(check);
        }
        Ok(())
    }
}

/// What was found, and what to do below it.
fn text(check: &Check) -> String {
    let Check { state, name, found, fix } = check;
    let found = format!("{:<8} {name}: {found}\n", state.name());
    if fix.is_empty() { found } else { format!("{found}{:8} -> {fix}\n", "") }
}

fn summary(checks: &[Check]) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (problems, warnings) = (count(State::Problem), count(State::Warning));
    format!("\n{}, {}\n", plural(problems, "problem"), plural(warnings, "warning"))
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(["state", "check", "found", "fix"]);
    for check in checks {
        let Check { state, name, found, fix } = check;
        table.row([state.name().to_owned(), name.clone(), found.clone(), fix.clone()]);
    }
    table
}

/// `with_kernels`: there are some to tell of.
fn json(args: &Args, checks: &[Check], worst: State, with_kernels: bool) -> Value {
    let check = |check: &Check| {
        let Check { state, name, found, fix } = check;
        json!({ "state": state.name(), "check": name, "found": found, "fix": fix })
    };
    let value = json!({
        "model": args.model.as_ref().map(|path| path.display().to_string()),
        "pair": { "k": args.pair().k.to_string(), "v": args.pair().v.to_string() },
        "state": worst.name(),
        "checks": checks.iter().map(check).collect::<Vec<_>>(),
    });
    if with_kernels {
        return with_provenance(value);
    }
    let mut all = json!({ "version": env!("CARGO_PKG_VERSION"), "commit": info::commit() });
    if let (Some(all), Value::Object(mut value)) = (all.as_object_mut(), value) {
        all.append(&mut value);
    }
    all
}

/// `turbo4`, without exceptions.
fn turbo(policy: &CachePolicy) -> bool {
    policy.base().is_turbo()
}

/// Types that attention has a fast way for beside a turbo type.
fn is_fast(t: CacheType) -> bool {
    t.is_turbo() || matches!(t, CacheType::Q8_0 | CacheType::F16 | CacheType::Bf16)
}
