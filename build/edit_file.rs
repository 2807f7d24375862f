//! Reads edits from TOML.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::edit::{Copy, Edit, EditError, EditFile};

/// [`EditFile`] without its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    why: String,
    needs: Option<String>,
    #[serde(default)]
    copy: Vec<CopyText>,
    #[serde(default)]
    edit: Vec<EditText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyText {
    from: String,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditText {
    file: String,
    anchor: String,
    then: Option<String>,
    before: Option<String>,
    after: Option<String>,
    replace: Option<String>,
    pins: Option<Vec<String>>,
    #[serde(default)]
    variant: BTreeMap<String, VariantText>,
}

/// What is different for a pin. The place (`anchor` and `then`) is one thing, and the text another: each is the edit's
/// own or the variant's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantText {
    anchor: Option<String>,
    then: Option<String>,
    before: Option<String>,
    after: Option<String>,
    replace: Option<String>,
}

impl EditText {
    fn edit(self) -> (Edit, BTreeMap<String, VariantText>) {
        let Self { file, anchor, then, before, after, replace, pins, variant } = self;
        let edit = Edit { file, anchor, then, before, after, replace, pins, variant: Vec::new() };
        (edit, variant)
    }
}

impl VariantText {
    /// Errors: it is as the edit is, or `then` is without an anchor.
    fn edit(self, of: &Edit) -> Result<Edit, &'static str> {
        let mut edit = Edit { variant: Vec::new(), pins: None, ..of.clone() };
        let (place, text) = (
            self.anchor.is_some(),
            self.before.is_some() || self.after.is_some() || self.replace.is_some(),
        );
        match (self.anchor, self.then) {
            (Some(anchor), then) => (edit.anchor, edit.then) = (anchor, then),
            (None, Some(_)) => return Err("a variant's `then` needs an anchor beside it"),
            (None, None) => {}
        }
        if text {
            (edit.before, edit.after, edit.replace) = (self.before, self.after, self.replace);
        }
        if !place && !text { Err("a variant differs in nothing") } else { Ok(edit) }
    }
}

/// Parses one TOML file of edits. `name` is its file name.
/// Errors: Parse, Malformed (not exactly one action, empty anchor, text that holds its anchor, a variant of nothing).
pub fn parse(name: &str, text: &str) -> Result<EditFile, EditError> {
    let file: FileText = toml::from_str(text)
        .map_err(|e| EditError::Parse { edit: name.into(), message: e.to_string() })?;
    let copy = file.copy.into_iter().map(|c| Copy { from: c.from, to: c.to }).collect();
    let edit = file.edit.into_iter().map(|text| {
        let (mut edit, variants) = text.edit();
        let malformed = |edit: &Edit, message| EditError::Malformed {
            edit: name.into(),
            file: edit.file.clone(),
            anchor: edit.anchor.clone(),
            message,
        };
        edit.check().map_err(|message| malformed(&edit, message))?;
        for (pin, text) in variants {
            let variant = text.edit(&edit).map_err(|message| malformed(&edit, message))?;
            variant.check().map_err(|message| malformed(&variant, message))?;
            edit.variant.push((pin, variant));
        }
        Ok(edit)
    });
    let edit = edit.collect::<Result<_, _>>()?;
    Ok(EditFile { name: name.into(), why: file.why, needs: file.needs, copy, edit })
}

/// Reads every `*.toml` of a folder, in the order of their names.
pub fn read_all(dir: &Path) -> Result<Vec<EditFile>, EditError> {
    let io_error =
        |path: &Path, source| EditError::Io { edit: "edits".into(), path: path.into(), source };
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .map_err(|e| io_error(dir, e))?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).map_err(|e| io_error(path, e))?;
            parse(&path.file_name().unwrap_or_default().to_string_lossy(), &text)
        })
        .collect()
}
