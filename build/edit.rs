//! Anchored edits: small, visible changes to a source tree that we do not own.
//!
//! An edit names a file, an *anchor* (a short string that occurs exactly once in it), and the
//! lines to put before or after the anchor's line, or the text to put in the anchor's place.
//! Where one string is not enough to name a place (a `case` that many switches share), `then` is
//! looked for behind the anchor and takes its role. Nothing is guessed: an anchor that is missing
//! or ambiguous is an error, and a tree either takes every edit or stays as it was.
//!
//! This module knows nothing of Cargo or build scripts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How many lines behind the anchor `then` may be.
const THEN_LINES: usize = 40;

/// One file of edits, `NNNN-what.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    /// File name, for reports. Not part of the TOML.
    #[serde(skip)]
    pub name: String,
    /// Why these edits exist, one sentence.
    pub why: String,
    /// Files of ours that are copied whole into the tree.
    #[serde(default)]
    pub copy: Vec<Copy>,
    /// Edits of upstream's files, in order.
    #[serde(default)]
    pub edit: Vec<Edit>,
}

/// A whole file to add to the tree.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// Path inside the extension folder.
    pub from: String,
    /// Path inside the tree.
    pub to: String,
}

/// One change of one file. Exactly one of `before`, `after` and `replace` is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Path inside the tree.
    pub file: String,
    /// Occurs exactly once in the file.
    pub anchor: String,
    /// If set: the first occurrence of this string at most [`THEN_LINES`] lines behind the anchor
    /// is the place of the edit.
    pub then: Option<String>,
    /// Lines to put before the line of the place.
    pub before: Option<String>,
    /// Lines to put after the line of the place.
    pub after: Option<String>,
    /// Text to put instead of the anchor (or of `then`).
    pub replace: Option<String>,
}

/// What an edit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// The text is already where the edit would put it.
    AlreadyApplied,
}

/// Why a tree cannot be edited. Every message names the edit and what to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    #[error("{edit}: cannot parse: {message}")]
    Parse { edit: String, message: String },
    #[error("{edit}: {file}: anchor {anchor:?}: {message}")]
    Malformed { edit: String, file: String, anchor: String, message: &'static str },
    #[error("{edit}: {file}: anchor {anchor:?} is missing")]
    Missing { edit: String, file: String, anchor: String },
    #[error("{edit}: {file}: anchor {anchor:?} is ambiguous: it occurs on lines {lines:?}")]
    Ambiguous { edit: String, file: String, anchor: String, lines: Vec<usize> },
    #[error(
        "{edit}: {file}: {then:?} is missing within {THEN_LINES} lines after anchor {anchor:?} on line {line}"
    )]
    MissingThen { edit: String, file: String, anchor: String, then: String, line: usize },
    #[error("{edit}: {}: {source}", path.display())]
    Io { edit: String, path: PathBuf, source: io::Error },
}

/// What happened to one edit, for `turboquant patch` and the build log.
#[derive(Debug, Clone)]
pub struct Done {
    pub edit: String,
    pub file: String,
    pub outcome: Outcome,
}

impl EditFile {
    /// Parses one TOML file of edits. `name` is its file name.
    /// Errors: Parse, Malformed (not exactly one action, empty anchor, text that holds its anchor).
    pub fn parse(name: &str, text: &str) -> Result<Self, EditError> {
        let mut file: EditFile = toml::from_str(text)
            .map_err(|e| EditError::Parse { edit: name.into(), message: e.to_string() })?;
        file.name = name.into();
        for edit in &file.edit {
            edit.check().map_err(|message| EditError::Malformed {
                edit: name.into(),
                file: edit.file.clone(),
                anchor: edit.anchor.clone(),
                message,
            })?;
        }
        Ok(file)
    }

    /// Reads every `*.toml` of a folder, in the order of their names.
    pub fn read_all(dir: &Path) -> Result<Vec<Self>, EditError> {
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
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Self::parse(&name, &text)
            })
            .collect()
    }
}

impl Edit {
    fn check(&self) -> Result<(), &'static str> {
        let actions = [&self.before, &self.after, &self.replace];
        if actions.iter().filter(|a| a.is_some()).count() != 1 {
            return Err("exactly one of before, after and replace is needed");
        }
        if self.anchor.trim().is_empty() || self.then.as_ref().is_some_and(|t| t.trim().is_empty())
        {
            return Err("an anchor cannot be empty");
        }
        let inserted = self.before.as_ref().or(self.after.as_ref());
        if inserted.is_some_and(|t| t.contains(&self.anchor)) {
            return Err("the inserted text holds its own anchor, which would make it ambiguous");
        }
        Ok(())
    }

    /// Applies this edit to the text of a file. `name` is the edit's, for errors.
    ///
    /// A file with CRLF line ends keeps them: anchors and texts are written with LF, and are
    /// converted. Errors: Missing, Ambiguous, MissingThen.
    pub fn apply(&self, name: &str, text: &str) -> Result<(String, Outcome), EditError> {
        let crlf = text.contains("\r\n");
        let native = |s: &str| {
            if crlf { s.replace("\r\n", "\n").replace('\n', "\r\n") } else { s.to_string() }
        };
        let newline = if crlf { "\r\n" } else { "\n" };
        let anchor = native(&self.anchor);
        let then = self.then.as_deref().map(native);

        if let Some(new) = self.replace.as_deref().map(native) {
            return self.apply_replace(name, text, &anchor, then.as_deref(), &new);
        }

        let (at, len) = self.locate(name, text, &anchor, then.as_deref())?;
        let mut lines =
            native(self.before.as_deref().or(self.after.as_deref()).unwrap_or_default());
        if !lines.ends_with(newline) {
            lines.push_str(newline);
        }
        let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[at + len..].find('\n').map_or(text.len(), |i| at + len + i + 1);
        let (place, done) = if self.before.is_some() {
            (line_start, text[..line_start].ends_with(&lines))
        } else {
            (line_end, text[line_end..].starts_with(&lines))
        };
        if done {
            return Ok((text.into(), Outcome::AlreadyApplied));
        }
        // The last line of a file may lack its line end.
        let gap = if place == text.len() && !text.ends_with('\n') { newline } else { "" };
        Ok((format!("{}{gap}{lines}{}", &text[..place], &text[place..]), Outcome::Applied))
    }

    fn apply_replace(
        &self,
        name: &str,
        text: &str,
        anchor: &str,
        then: Option<&str>,
        new: &str,
    ) -> Result<(String, Outcome), EditError> {
        let old = then.unwrap_or(anchor);
        match self.locate(name, text, anchor, then) {
            Ok((at, len)) => {
                // A replacement that keeps the old text around: is it there already?
                let done =
                    new.match_indices(old).any(|(i, _)| at >= i && text[at - i..].starts_with(new));
                if done {
                    return Ok((text.into(), Outcome::AlreadyApplied));
                }
                Ok((format!("{}{new}{}", &text[..at], &text[at + len..]), Outcome::Applied))
            }
            Err(error) => {
                let rest = match then {
                    Some(_) => text.find(anchor).map_or("", |i| &text[i..]),
                    None => text,
                };
                let missing =
                    matches!(error, EditError::Missing { .. } | EditError::MissingThen { .. });
                if missing && !new.is_empty() && rest.contains(new) {
                    return Ok((text.into(), Outcome::AlreadyApplied));
                }
                Err(error)
            }
        }
    }

    /// Byte offset and length of the place of this edit.
    fn locate(
        &self,
        name: &str,
        text: &str,
        anchor: &str,
        then: Option<&str>,
    ) -> Result<(usize, usize), EditError> {
        let (edit, file) = (name.to_string(), self.file.clone());
        let found: Vec<usize> = text.match_indices(anchor).map(|(i, _)| i).collect();
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        let at = match found[..] {
            [at] => at,
            [] => {
                return Err(EditError::Missing { edit, file, anchor: self.anchor.clone() });
            }
            _ => {
                let lines = found.into_iter().map(line).collect();
                return Err(EditError::Ambiguous {
                    edit,
                    file,
                    anchor: self.anchor.clone(),
                    lines,
                });
            }
        };
        let Some(then) = then else {
            return Ok((at, anchor.len()));
        };
        let from = at + anchor.len();
        let window: usize = text[from..].split_inclusive('\n').take(THEN_LINES).map(str::len).sum();
        match text[from..from + window].find(then) {
            Some(i) => Ok((from + i, then.len())),
            None => Err(EditError::MissingThen {
                edit,
                file,
                anchor: self.anchor.clone(),
                then: then.into(),
                line: line(at),
            }),
        }
    }
}

/// Applies every file of edits to the tree at `root`. `extension(from)` gives the bytes of a file
/// that is copied whole. Nothing is written unless everything fits; unchanged files are not touched.
pub fn apply_all(
    root: &Path,
    files: &[EditFile],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<Vec<Done>, EditError> {
    let mut texts: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut copies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut done = Vec::new();

    for file in files {
        let io_error = |path: PathBuf| {
            let edit = file.name.clone();
            move |source| EditError::Io { edit, path, source }
        };
        for copy in &file.copy {
            let bytes = extension(&copy.from).map_err(io_error(copy.from.clone().into()))?;
            let same = fs::read(root.join(&copy.to)).is_ok_and(|old| old == bytes);
            let outcome = if same { Outcome::AlreadyApplied } else { Outcome::Applied };
            done.push(Done { edit: file.name.clone(), file: copy.to.clone(), outcome });
            if !same {
                copies.insert(copy.to.clone(), bytes);
            }
        }
        for edit in &file.edit {
            if !texts.contains_key(&edit.file) {
                let path = root.join(&edit.file);
                let text = fs::read_to_string(&path).map_err(io_error(path))?;
                texts.insert(edit.file.clone(), (text, false));
            }
            let (text, changed) = texts.get_mut(&edit.file).expect("inserted above");
            let (new, outcome) = edit.apply(&file.name, text)?;
            *text = new;
            *changed |= outcome == Outcome::Applied;
            done.push(Done { edit: file.name.clone(), file: edit.file.clone(), outcome });
        }
    }

    let write = |to: &str, bytes: &[u8]| {
        let path = root.join(to);
        let result = fs::create_dir_all(path.parent().unwrap_or(root))
            .and_then(|()| fs::write(&path, bytes));
        result.map_err(|source| EditError::Io { edit: "write".into(), path, source })
    };
    for (to, bytes) in &copies {
        write(to, bytes)?;
    }
    for (to, (text, changed)) in &texts {
        if *changed {
            write(to, text.as_bytes())?;
        }
    }
    Ok(done)
}
