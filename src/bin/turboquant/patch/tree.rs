//! The checkout that is to be patched, and what git says of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Errors: not a llama.cpp checkout.
pub fn check(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        bail!("{} is not a folder: DIR is the root of a llama.cpp checkout", dir.display());
    }
    for file in ["CMakeLists.txt", "include/llama.h", "ggml/include/ggml.h"] {
        if !dir.join(file).is_file() {
            bail!("{} is not the root of a llama.cpp checkout: it has no {file}", dir.display());
        }
    }
    Ok(())
}

/// Whether the checkout is git's, be it in a repository of something larger. One that such a repository ignores is not.
pub fn is_git(dir: &Path) -> bool {
    let at = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let tracked = git(dir, &["ls-files", "--error-unmatch", "CMakeLists.txt"]).output();
    at.ancestors().any(|dir| dir.join(".git").exists())
        && tracked.map_or(true, |output| output.status.success())
}

/// What `git status` lists; nothing where there is no git.
pub fn uncommitted(dir: &Path) -> Result<Vec<String>> {
    if !is_git(dir) {
        return Ok(Vec::new());
    }
    let what = || format!("cannot see whether {} has uncommitted changes", dir.display());
    let output = git(dir, &["status", "--porcelain", "--", "."]).output();
    let output = output.context("git does not run").with_context(what)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it said nothing").to_owned();
        return Err(anyhow::anyhow!("git status: {said}")).with_context(what);
    }
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().map(|line| line.trim().to_owned()).collect())
}

/// The commit that is checked out, if git knows.
pub fn commit(dir: &Path) -> Option<String> {
    let output = git(dir, &["rev-parse", "--short", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && is_git(dir)).then(|| commit.trim().to_owned())
}

fn git(dir: &Path, args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).args(args);
    git
}

/// The first `n`, and how many more there are.
pub fn first(list: &[String], n: usize) -> String {
    let shown = list[..n.min(list.len())].join(", ");
    match list.len().saturating_sub(n) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
