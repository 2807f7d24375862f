//! Anchored edits: small, visible changes to a source tree that we do not own.
//!
//! An edit names a file, an *anchor* (a short string that occurs exactly once in it), and the
//! lines to put before or after the anchor's line, or the text to put in the anchor's place.
//! Where one string is not enough to name a place (a `case` that many switches share), `then` is
//! looked for behind the anchor and takes its role. Nothing is guessed: an anchor that is missing
//! or ambiguous is an error, and a tree either takes every edit or stays as it was.
//!
//! This module knows nothing of Cargo, build scripts or TOML: `turboquant patch` has it, too.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How many lines behind the anchor `then` may be.
const THEN_LINES: usize = 40;

/// One file of edits, `NNNN-what.toml`.
#[derive(Debug, Clone)]
pub struct EditFile {
    /// File name, for reports.
    pub name: String,
    /// Why these edits exist, one sentence.
    pub why: String,
    /// Files of ours that are copied whole into the tree.
    pub copy: Vec<Copy>,
    /// Edits of upstream's files, in order.
    pub edit: Vec<Edit>,
}

/// A whole file to add to the tree.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Path inside the extension folder.
    pub from: String,
    /// Path inside the tree.
    pub to: String,
}

/// One change of one file. Exactly one of `before`, `after` and `replace` is set.
#[derive(Debug, Clone, Default)]
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
    #[error("{why}; what was done could not be undone: see {paths:?}")]
    NotUndone { why: String, paths: Vec<PathBuf> },
}

/// What happened to one edit.
#[derive(Debug, Clone)]
pub struct Done {
    pub edit: String,
    pub file: String,
    pub outcome: Outcome,
    /// A whole file of ours.
    pub copied: bool,
    /// Lines that the edit puts into the file, and takes out of it.
    pub added: usize,
    pub removed: usize,
}

/// A file that is to change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Inside the tree.
    pub file: String,
    /// None: there is no such file.
    pub old: Option<Vec<u8>>,
    pub new: Vec<u8>,
}

/// Edits that fit a tree, and what comes of it. Nothing is written yet.
#[derive(Debug, Clone)]
pub struct Plan {
    pub done: Vec<Done>,
    /// By the file's name.
    pub changes: Vec<Change>,
}

impl Edit {
    /// Errors: not exactly one action, an empty anchor, text that holds its own anchor.
    pub fn check(&self) -> Result<(), &'static str> {
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

    /// The text as it was before this edit, if it is one that this edit was applied to.
    fn undo(&self, text: &str) -> Option<String> {
        let crlf = text.contains("\r\n");
        let native = |s: &str| {
            if crlf { s.replace("\r\n", "\n").replace('\n', "\r\n") } else { s.to_string() }
        };
        let (new, old) = match &self.replace {
            Some(new) => (new.clone(), self.then.as_ref().unwrap_or(&self.anchor).as_str()),
            None => {
                let lines = self.before.as_ref().or(self.after.as_ref())?;
                (if lines.ends_with('\n') { lines.clone() } else { format!("{lines}\n") }, "")
            }
        };
        let (new, old) = (native(&new), native(old));
        text.match_indices(&new).find_map(|(at, _)| {
            let before = format!("{}{old}{}", &text[..at], &text[at + new.len()..]);
            let again = self.apply("", &before);
            again.is_ok_and(|(again, o)| o == Outcome::Applied && again == text).then_some(before)
        })
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

/// What every file of edits would do to the tree at `root`. `extension(from)` gives the bytes of a file that is copied
/// whole. Errors: an edit does not fit.
pub fn plan(
    root: &Path,
    files: &[EditFile],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<Plan, EditError> {
    let mut texts: BTreeMap<&str, (String, String)> = BTreeMap::new();
    let mut changes = Vec::new();
    let mut done = Vec::new();

    for file in files {
        let io_error = |path: PathBuf| {
            let edit = file.name.clone();
            move |source| EditError::Io { edit, path, source }
        };
        for copy in &file.copy {
            let new = extension(&copy.from).map_err(io_error(copy.from.clone().into()))?;
            let old = match fs::read(root.join(&copy.to)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                old => Some(old.map_err(io_error(root.join(&copy.to)))?),
            };
            let same = old.as_ref() == Some(&new);
            done.push(Done {
                edit: file.name.clone(),
                file: copy.to.clone(),
                outcome: if same { Outcome::AlreadyApplied } else { Outcome::Applied },
                copied: true,
                added: new.iter().filter(|b| **b == b'\n').count(),
                removed: 0,
            });
            if !same {
                changes.push(Change { file: copy.to.clone(), old, new });
            }
        }
        for edit in &file.edit {
            if !texts.contains_key(edit.file.as_str()) {
                let path = root.join(&edit.file);
                let text = fs::read_to_string(&path).map_err(io_error(path))?;
                texts.insert(&edit.file, (text.clone(), text));
            }
            let (_, text) = texts.get_mut(edit.file.as_str()).expect("inserted above");
            let (new, outcome) = edit.apply(&file.name, text)?;
            let (added, removed) = lines_changed(text, &new);
            *text = new;
            let (edit, file) = (file.name.clone(), edit.file.clone());
            done.push(Done { edit, file, outcome, copied: false, added, removed });
        }
    }

    let changed = texts.into_iter().filter(|(_, (old, new))| old != new);
    changes.extend(changed.map(|(file, (old, new))| Change {
        file: file.into(),
        old: Some(old.into()),
        new: new.into(),
    }));
    changes.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(Plan { done, changes })
}

/// Lines of `new` that are not in `old`, and the other way round. They differ in one place.
fn lines_changed(old: &str, new: &str) -> (usize, usize) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (new.len() - same, old.len() - same)
}

/// Whether the tree at `root` is what these very edits make of some tree.
pub fn is_applied(
    root: &Path,
    files: &[EditFile],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> bool {
    let copies = files.iter().flat_map(|file| &file.copy);
    let same = |copy: &Copy| {
        let ours = extension(&copy.from);
        ours.is_ok_and(|ours| fs::read(root.join(&copy.to)).is_ok_and(|theirs| theirs == ours))
    };
    if !copies.into_iter().all(same) {
        return false;
    }
    let mut texts: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for edit in files.iter().rev().flat_map(|file| file.edit.iter().rev()) {
        let read = || fs::read_to_string(root.join(&edit.file)).ok();
        let text = texts.entry(&edit.file).or_insert_with(read);
        *text = text.take().and_then(|text| edit.undo(&text));
    }
    texts.values().all(Option::is_some)
}

impl Plan {
    /// Makes the changes, all or none: each file is written beside its place, then all are renamed. When `stop` says so
    /// or something fails, what was done is undone. Returns whether the changes are made.
    pub fn write(&self, root: &Path, stop: &dyn Fn() -> bool) -> Result<bool, EditError> {
        let mut undo = Undo::default();
        let result = self.write_all(root, stop, &mut undo);
        if matches!(result, Ok(true)) {
            return result;
        }
        let paths = undo.run();
        if paths.is_empty() {
            return result;
        }
        let why = result.err().map_or("stopped".into(), |error| error.to_string());
        Err(EditError::NotUndone { why, paths })
    }

    fn write_all(
        &self,
        root: &Path,
        stop: &dyn Fn() -> bool,
        undo: &mut Undo,
    ) -> Result<bool, EditError> {
        let io_error =
            |path: &Path, source| EditError::Io { edit: "write".into(), path: path.into(), source };
        let mut written = Vec::new();
        for change in &self.changes {
            if stop() {
                return Ok(false);
            }
            let path = root.join(&change.file);
            undo.make_folders(path.parent().unwrap_or(root)).map_err(|e| io_error(&path, e))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let part = path.with_file_name(format!(".{name}.part"));
            let mut file = fs::File::create_new(&part).map_err(|e| io_error(&part, e))?;
            undo.files.push((part.clone(), None));
            file.write_all(&change.new).map_err(|e| io_error(&part, e))?;
            if let Ok(meta) = fs::metadata(&path) {
                fs::set_permissions(&part, meta.permissions()).map_err(|e| io_error(&part, e))?;
            }
            written.push((part, path, change.old.clone()));
        }
        for (part, path, old) in written {
            if stop() {
                return Ok(false);
            }
            fs::rename(&part, &path).map_err(|e| io_error(&path, e))?;
            undo.files.push((path, old));
        }
        Ok(true)
    }
}

/// What it takes to have a tree as it was.
#[derive(Default)]
struct Undo {
    /// With what was in them; None: they were not there.
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
    folders: Vec<PathBuf>,
}

impl Undo {
    fn make_folders(&mut self, dir: &Path) -> io::Result<()> {
        let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            fs::create_dir(dir)?;
            self.folders.push(dir.into());
        }
        Ok(())
    }

    /// As far as that can be; returns what could not.
    fn run(self) -> Vec<PathBuf> {
        let mut failed = Vec::new();
        let mut check = |result: io::Result<()>, path| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => failed.push(path),
            _ => {}
        };
        for (path, old) in self.files.into_iter().rev() {
            let result = match old {
                Some(bytes) => fs::write(&path, bytes),
                // A part that has become its file is gone.
                None => fs::remove_file(&path),
            };
            check(result, path);
        }
        for dir in self.folders.into_iter().rev() {
            check(fs::remove_dir(&dir), dir);
        }
        failed
    }
}

/// Applies every file of edits to the tree at `root`, all or none.
pub fn apply_all(
    root: &Path,
    files: &[EditFile],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<Vec<Done>, EditError> {
    let plan = plan(root, files, extension)?;
    plan.write(root, &|| false)?;
    Ok(plan.done)
}
