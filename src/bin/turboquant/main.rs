//! `turboquant`: running models with KV caches of 2 to 4 bits, and what there is to know and to do about them.

mod args;
mod bench;
mod cache;
mod calibrate;
mod compare;
mod completions;
mod doctor;
mod eval;
mod info;
mod interrupt;
mod log;
mod machine;
mod needle;
mod padding;
mod patch;
mod plan;
mod plot;
mod progress;
mod prompt;
mod provenance;
mod run;
mod table;
mod units;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use llama_turboquant::kernels;

/// KV caches of 2 to 4 bits for llama.cpp.
#[derive(Parser)]
#[command(name = "turboquant", version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Info(info::Args),
    Run(run::Args),
    Compare(compare::Args),
    Eval(eval::Args),
    Needle(needle::Args),
    Bench(bench::Args),
    Plot(plot::results::Args),
    Plan(plan::Args),
    Doctor(doctor::Args),
    Calibrate(calibrate::Args),
    Patch(patch::Args),
    Cache(cache::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(long_options(std::env::args_os()));
    // The doctor tells of it, among other things.
    let checked = if matches!(cli.verb, Verb::Doctor(_)) { Ok(()) } else { check_simd() };
    let result = checked.and_then(|()| match cli.verb {
        Verb::Info(args) => info::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Needle(args) => needle::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Plot(args) => plot::results::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Calibrate(args) => calibrate::run(&args),
        Verb::Patch(args) => patch::run(&args),
        Verb::Cache(args) => cache::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => completions::man(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // What reads us has enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<Exit>() {
            Ok(exit) => {
                if !exit.message.is_empty() {
                    progress::message(&format!("error: {}", exit.message));
                }
                ExitCode::from(exit.code)
            }
            Err(error) => {
                progress::message(&format!("error: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

/// Kernels panic where `TQ_SIMD` asks for what is not possible, and below C++ that ends the process.
fn check_simd() -> Result<()> {
    let asked = std::env::var_os("TQ_SIMD").map(|value| value.to_string_lossy().into_owned());
    kernels::select(asked.as_deref())?;
    Ok(())
}

/// An end with a code of its own.
#[derive(Debug)]
struct Exit {
    code: u8,
    /// Empty: none.
    message: String,
}

impl Exit {
    /// The command line is not what it should be.
    fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { code: 2, message: message.into() }.into()
    }

    /// Ctrl-C, as shells tell it.
    fn interrupted() -> anyhow::Error {
        Self { code: 130, message: String::new() }.into()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// Writes data to stdout.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// llama.cpp's short options of several letters, which clap does not have, as the long ones that they stand for.
const SHORT: [(&str, &str); 7] = [
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-fa", "--flash-attn"),
    ("-ngl", "--n-gpu-layers"),
    ("-sys", "--system-prompt"),
    ("--ngl", "--n-gpu-layers"),
    ("--n-predict", "--predict"),
];

fn long_options(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut text_follows = false;
    let mut rewrite = |arg: OsString| {
        let is_text = std::mem::replace(&mut text_follows, arg == "-p" || arg == "--prompt");
        let long = SHORT.iter().find(|(short, _)| !is_text && arg == **short);
        long.map_or(arg, |(_, long)| long.into())
    };
    args.map(&mut rewrite).collect()
}
