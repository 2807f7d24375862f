//! What `turboquant patch` says.

use std::path::Path;

use similar::TextDiff;

use super::edit::Plan;
use super::embedded::Pin;
use crate::table::Table;

/// A row for each file and the edits that change it.
pub fn table(plan: &Plan) -> String {
    let mut table = Table::new(["file", "lines", "edit"]);
    let mut rows: Vec<([&str; 2], bool, usize, usize)> = Vec::new();
    for done in &plan.done {
        let names = [done.edit.as_str(), done.file.as_str()];
        match rows.iter_mut().find(|row| row.0 == names) {
            Some(row) => (row.2, row.3) = (row.2 + done.added, row.3 + done.removed),
            None => rows.push((names, done.copied, done.added, done.removed)),
        }
    }
    rows.sort_by_key(|row| row.0[1]);
    for ([edit, file], new, added, removed) in rows {
        let lines = match (new, removed) {
            (true, _) => format!("new, {added}"),
            (false, 0) => format!("+{added}"),
            (false, _) => format!("+{added} -{removed}"),
        };
        table.row([file.into(), lines, edit.into()]);
    }
    table.text()
}

/// How many files.
pub fn summary(plan: &Plan, pin: &Pin, applied: bool) -> String {
    let new = plan.changes.iter().filter(|change| change.old.is_none()).count();
    let changed = plan.changes.len() - new;
    let text = format!(
        "{changed} files changed, {new} new, by the edits for llama.cpp {}",
        pin.describe()
    );
    if applied {
        format!("{text}\n")
    } else {
        format!(
            "{}. Nothing is written yet: --apply does it, --diff shows it\n",
            text.replace(" changed", " to change")
        )
    }
}

/// As `git apply` and `patch -p1` take it.
pub fn diff(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        let (old, new) = (change.old.as_deref().unwrap_or_default(), &change.new);
        let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
        let from = match change.old {
            Some(_) => format!("a/{}", change.file),
            None => "/dev/null".into(),
        };
        let to = format!("b/{}", change.file);
        let diff = TextDiff::from_lines(old.as_ref(), new.as_ref());
        text += &diff.unified_diff().header(&from, &to).to_string();
    }
    text
}

/// The commands that build a patched checkout.
pub fn how_to_build(dir: &Path, lib: Option<&Path>) -> String {
    let dir = quoted(dir);
    let (lib, note) = match lib {
        Some(lib) => (quoted(lib), ""),
        None => (
            "/path/libturboquant.a".into(),
            "\nlibturboquant.a is what `cargo build --release --no-default-features --features capi` puts into target/release.\n",
        ),
    };
    format!(
        "\nBuild it with\n    cmake -S {dir} -B {dir}/build -DTURBOQUANT_LIB={lib}\n    \
         cmake --build {dir}/build --config Release --target llama-cli\nand run it with\n    \
         {dir}/build/bin/llama-cli -m MODEL.gguf -ctk turbo4 -ctv turbo3\n{note}"
    )
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
