//! `turboquant patch`: gives a user's own llama.cpp checkout the turbo types.

mod core;
#[allow(dead_code)] // the build script uses the rest
#[path = "../../../../build/edit/mod.rs"]
mod edit;
mod embedded;
mod report;
mod tree;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Exit;

/// Give a llama.cpp checkout of yours the types turbo2, turbo3 and turbo4.
///
/// Says what would change; --apply changes it, all or nothing. The checkout has to be of a commit that the edits are
/// for, or near one, and without uncommitted changes. It then builds with -DTURBOQUANT_LIB=/path/libturboquant.a.
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
    if edit::is_applied(dir, &edits, &version::names(), &embedded::file) {
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
    let version = version::find(dir, &edits)?;
    let plan = edit::plan(dir, &edits, &version.order(), &embedded::file)
        .with_context(|| version.does_not_fit(dir))?;
    if args.diff {
        return crate::print(&report::diff(&plan));
    }
    let note = version.note(dir).map_or(String::new(), |note| note + "\n");
    if args.apply {
        apply(dir, &plan)?;
        let summary = report::summary(&plan, version.pin, true) + &note;
        return crate::print(&(summary + &report::how_to_build(dir, lib.as_deref())));
    }
    crate::print(
        &(report::table(&plan) + "\n" + &report::summary(&plan, version.pin, false) + &note),
    )
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
