//! Puts the edits and the files that they add into the command `turboquant`, as Rust source.

use std::fmt::Write;
use std::path::Path;

use super::Result;
use super::edit::{Edit, EditFile};
use super::overlay;
use super::pin::Pins;

/// Writes `edits.rs` to `out`: `edits()`, `PINS` and `FILES`, the names and texts of the files of ours.
pub fn generate(root: &Path, pins: &Pins, edits: &[EditFile], out: &Path) -> Result<()> {
    let to = out.join("edits.rs");
    std::fs::write(&to, source(root, pins, edits)).map_err(|e| format!("{}: {e}", to.display()))
}

fn source(root: &Path, pins: &Pins, edits: &[EditFile]) -> String {
    // Strings are printed as Rust has them.
    let mut text = String::from("pub fn edits() -> Vec<EditFile> {\n    vec![\n");
    for file in edits {
        let _ = write!(
            text,
            "EditFile {{ name: {:?}.into(), why: {:?}.into(), needs: owned({:?}), ",
            file.name, file.why, file.needs
        );
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
            write_edit(&mut text, edit);
            text += ",\n";
        }
        text += "] },\n";
    }
    text += "    ]\n}\n\npub const PINS: &[Pin] = &[\n";
    for pin in pins.all() {
        let _ = writeln!(
            text,
            "Pin {{ name: {:?}, commit: {:?}, ggml: {:?} }},",
            pin.name, pin.commit, pin.ggml
        );
    }
    text += "];\n\npub const FILES: &[(&str, &str)] = &[\n";
    for copy in edits.iter().flat_map(|file| &file.copy) {
        let path = root.join(overlay::FOLDER).join(&copy.from);
        let _ =
            writeln!(text, "({:?}, include_str!({:?})),", copy.from, path.display().to_string());
    }
    text + "];\n"
}

fn write_edit(text: &mut String, edit: &Edit) {
    let _ =
        write!(text, "Edit {{ file: {:?}.into(), anchor: {:?}.into(), ", edit.file, edit.anchor);
    for (name, value) in [
        ("then", &edit.then),
        ("before", &edit.before),
        ("after", &edit.after),
        ("replace", &edit.replace),
    ] {
        let _ = write!(text, "{name}: owned({value:?}), ");
    }
    match &edit.pins {
        Some(pins) => {
            *text += "pins: Some(vec![";
            for pin in pins {
                let _ = write!(text, "{pin:?}.into(), ");
            }
            *text += "]), variant: vec![";
        }
        None => *text += "pins: None, variant: vec![",
    }
    for (pin, variant) in &edit.variant {
        let _ = write!(text, "({pin:?}.into(), ");
        write_edit(text, variant);
        *text += "), ";
    }
    *text += "] }";
}
