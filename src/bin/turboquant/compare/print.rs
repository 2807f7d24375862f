//! Texts beside that of the reference.

use std::io::IsTerminal;

use llama_turboquant::eval::PairRun;

use crate::table::{self, Table};
use crate::units::mib;

/// Where a text leaves the reference's.
const MARK: &str = "[!=]";

/// The reference's text, a summary, and the text of each other pair.
pub fn text(runs: &[PairRun]) -> String {
    let mut text = String::new();
    for (i, run) in runs.iter().enumerate() {
        let name = if i == 0 { "reference" } else { "pair" };
        text += &format!("{name} {} / {}, {} tokens:\n\n", run.k, run.v, run.tokens.len());
        text += &marked(run, coloured());
        text += "\n\n";
        if i == 0 {
            text += &table(runs).text();
            text += "\n";
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

pub fn table(runs: &[PairRun]) -> Table {
    let mut table = Table::new([
        "K / V",
        "bits per value",
        "KV MiB",
        "K MiB",
        "V MiB",
        "t/s",
        "mean KLD",
        "max KLD",
        "top-1 %",
        "same tokens",
        "then",
        "scales",
    ]);
    for (i, run) in runs.iter().enumerate() {
        let (same, then) = match &run.divergence {
            _ if i == 0 => ("-".into(), "-".into()),
            None => ("all".into(), "none".into()),
            Some(at) => (at.index.to_string(), format!("{:?} for {:?}", at.found, at.expected)),
        };
        table.row([
            format!("{} / {}", run.k, run.v),
            format!("{:.2}", run.bits_per_value),
            format!("{:.2}", mib(run.memory.kv())),
            format!("{:.2}", mib(run.memory.k)),
            format!("{:.2}", mib(run.memory.v)),
            format!("{:.1}", run.tokens_per_second),
            format!("{:.4}", run.summary.mean_kld),
            format!("{:.4}", run.summary.max_kld),
            format!("{:.1}", 100.0 * run.summary.same_top),
            same,
            then,
            table::fit(run.fit.as_ref()),
        ]);
    }
    table
}

/// A text with a mark where it leaves the reference's, in yellow from there on.
fn marked(run: &PairRun, coloured: bool) -> String {
    let Some(divergence) = &run.divergence else { return run.text.clone() };
    let (same, other) = run.text.split_at(divergence.byte);
    let (begin, end) = if coloured { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
    format!("{same}{begin}{MARK}{other}{end}")
}

fn coloured() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !no_color && !dumb
}
