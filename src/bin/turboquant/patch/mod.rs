//! `turboquant patch`: gives a user's own llama.cpp checkout the turbo types.

mod core;
#[allow(dead_code)] // the build script uses the rest
#[path = "../../../../build/edit.rs"]
mod edit;
mod embedded;
mod report;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use llama_turboquant::llama::{GGML, LLAMA_CPP};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Exit;

/// Give a llama.cpp checkout of yours the types turbo2, turbo3 and turbo4.
///
/// Says what would change; --apply changes it, all or nothing. The checkout has to be of the commit that the edits are
/// for, or near it, and without uncommitted changes. It then builds with -DTURBOQUANT_LIB=/path/libturboquant.a.
#[derive(clap::Args)]
pub struct Args {
    /// The checkout.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Make the changes.
    #[arg(long)]
    apply: bool,
    /// Print the changes as a unified diff.
    #[arg(long, conflicts_with = "apply")]
    diff: bool,
    /// libturboquant.a, for the commands that build the checkout [default: the one installed with this program].
    #[arg(long, value_name = "FILE")]
    lib: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let lib = core::find(args.lib.as_deref())?;
    let dir = args.dir.as_path();
    tree::check(dir)?;
    let edits = embedded::edits();
    if edit::is_applied(dir, &edits, &embedded::file) {
        let text = format!("{} has these edits already: nothing to do\n", dir.display());
        // A diff of nothing is empty.
        return if args.diff {
            Ok(())
        } else {
            crate::print(&(text + &report::how_to_build(dir, lib.as_deref())))
        };
    }
    if let Some(file) =
        edits.iter().flat_map(|file| &file.copy).find(|copy| dir.join(&copy.to).exists())
    {
        bail!(
            "{} is patched already, by another version of turboquant or in part: there is {}. Go back to the source as it \
             was{}, then patch that",
            dir.display(),
            file.to,
            if tree::is_git(dir) { " (git checkout, git clean)" } else { "" }
        );
    }
    let changes = tree::uncommitted(dir)?;
    if !changes.is_empty() {
        bail!(
            "{} has uncommitted changes, which could not be told from the edits: commit or stash them (git stash -u): {}",
            dir.display(),
            tree::first(&changes, 3)
        );
    }
    let plan = edit::plan(dir, &edits, &embedded::file).with_context(|| does_not_fit(dir))?;
    if args.diff {
        return crate::print(&report::diff(&plan));
    }
    let note = tree::note(dir).map_or(String::new(), |note| note + "\n");
    if args.apply {
        apply(dir, &plan)?;
        let summary = report::summary(&plan, true) + &note;
        return crate::print(&(summary + &report::how_to_build(dir, lib.as_deref())));
    }
    crate::print(&(report::table(&plan) + "\n" + &report::summary(&plan, false) + &note))
}

/// Makes the changes. Ctrl-C undoes them.
fn apply(dir: &Path, plan: &edit::Plan) -> Result<()> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupt))?;
    }
    let stop = || interrupt.load(Ordering::Relaxed);
    let written = plan.write(dir, &stop);
    match written {
        Ok(true) => Ok(()),
        Ok(false) => Err(Exit::interrupted()),
        Err(error @ edit::EditError::NotUndone { .. }) => Err(error.into()),
        Err(error) => Err(error).with_context(|| format!("{} is as it was", dir.display())),
    }
}

fn does_not_fit(dir: &Path) -> String {
    let at =
        tree::commit(dir).map_or(String::new(), |commit| format!(", which is at commit {commit},"));
    format!(
        "the edits, which are for llama.cpp {LLAMA_CPP} (ggml {GGML}), do not fit {}{at} and nothing was changed; check \
         {LLAMA_CPP} out (git checkout {LLAMA_CPP}), or use a version of turboquant for yours",
        dir.display()
    )
}
