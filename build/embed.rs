//! Puts the edits and the files that they add into the command `turboquant`, as Rust source.

use std::fmt::Write;
use std::path::Path;

use super::edit::EditFile;
use super::{Result, edit_file};

/// Writes `edits.rs` to `out`: `edits()` and `FILES`, the names and texts of the files of ours.
pub fn generate(root: &Path, out: &Path) -> Result<()> {
    let edits = edit_file::read_all(&root.join("vendor/edits")).map_err(|e| e.to_string())?;
    let to = out.join("edits.rs");
    std::fs::write(&to, source(root, &edits)).map_err(|e| format!("{}: {e}", to.display()))
}

fn source(root: &Path, edits: &[EditFile]) -> String {
    // Strings are printed as Rust has them.
    let mut text = String::from("pub fn edits() -> Vec<EditFile> {\n    vec![\n");
    for file in edits {
        let _ =
            write!(text, "EditFile {{ name: {:?}.into(), why: {:?}.into(), ", file.name, file.why);
        text += "copy: vec![\n";
        for copy in &file.copy {
            let _ = writeln!(
                text,
                "Copy {{ from: {:?}.into(), to: {:?}.into() }},",
                copy.from, copy.to
            );
        }
        text += "], edit: vec![\n";
        for edit in &file.edit {
            let _ = write!(
                text,
                "Edit {{ file: {:?}.into(), anchor: {:?}.into(), ",
                edit.file, edit.anchor
            );
            for (name, value) in [
                ("then", &edit.then),
                ("before", &edit.before),
                ("after", &edit.after),
                ("replace", &edit.replace),
            ] {
                let _ = write!(text, "{name}: owned({value:?}), ");
            }
            text += "},\n";
        }
        text += "] },\n";
    }
    text += "    ]\n}\n\npub const FILES: &[(&str, &str)] = &[\n";
    for copy in edits.iter().flat_map(|file| &file.copy) {
        let path = root.join("ggml-ext").join(&copy.from);
        let _ =
            writeln!(text, "({:?}, include_str!({:?})),", copy.from, path.display().to_string());
    }
    text + "];\n"
}
