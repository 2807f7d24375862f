//! Reads edits from TOML.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::edit::{Copy, Edit, EditError, EditFile};

/// [`EditFile`] without its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    why: String,
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
}

/// Parses one TOML file of edits. `name` is its file name.
/// Errors: Parse, Malformed (not exactly one action, empty anchor, text that holds its anchor).
pub fn parse(name: &str, text: &str) -> Result<EditFile, EditError> {
    let file: FileText = toml::from_str(text)
        .map_err(|e| EditError::Parse { edit: name.into(), message: e.to_string() })?;
    let copy = file.copy.into_iter().map(|c| Copy { from: c.from, to: c.to }).collect();
    let edit = file.edit.into_iter().map(|text| {
        let EditText { file, anchor, then, before, after, replace } = text;
        let edit = Edit { file, anchor, then, before, after, replace };
        match edit.check() {
            Ok(()) => Ok(edit),
            Err(message) => Err(EditError::Malformed {
                edit: name.into(),
                file: edit.file,
                anchor: edit.anchor,
                message,
            }),
        }
    });
    let edit = edit.collect::<Result<_, _>>()?;
    Ok(EditFile { name: name.into(), why: file.why, copy, edit })
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
