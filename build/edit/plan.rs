//! What all edits would do to a tree.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Copy, Edit, EditError, EditFile, Misfit, Misfits, Outcome};

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

/// What every file of edits would do to the tree at `root`, which is of the first of `pins`, or between it and the
/// others. `extension(from)` gives the bytes of a file that is copied whole. Errors: edits do not fit.
pub fn plan(
    root: &Path,
    files: &[EditFile],
    pins: &[&str],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<Plan, EditError> {
    let mut texts = Texts { root, all: BTreeMap::new() };
    let (mut changes, mut done) = (Vec::new(), Vec::new());
    let mut misfits = Misfits { list: Vec::new(), of: 0 };
    // By file: the texts of edits that do not fit, and their names.
    let mut lost: Vec<(&str, &Edit, String)> = Vec::new();

    for file in files.iter().filter(|file| file.is_for(root)) {
        for copy in &file.copy {
            let (change, what) = plan_copy(root, &file.name, copy, extension)?;
            changes.extend(change);
            done.push(what);
        }
        for edit in &file.edit {
            let forms = edit.forms(pins);
            let Some(first) = forms.first() else { continue };
            misfits.of += 1;
            let Some(text) = texts.get(&file.name, &edit.file)? else {
                misfits.no_file(&file.name, &edit.file);
                continue;
            };
            let found = forms.iter().find_map(|form| form.apply(&file.name, text).ok());
            let Some((new, outcome)) = found else {
                let error = first.apply(&file.name, text).expect_err("no form fits");
                let mut misfit = Misfit::new(error, text);
                let from = |(at, other, _): &&(&str, &Edit, String)| {
                    *at == edit.file && other.text().contains(&first.anchor)
                };
                misfit.because = lost.iter().find(from).map(|(.., name)| name.clone());
                misfits.list.push(misfit);
                let name = format!("{}: anchor {:?}", file.name, first.anchor);
                lost.extend(forms.iter().map(|form| (edit.file.as_str(), *form, name.clone())));
                continue;
            };
            let (added, removed) = lines_changed(text, &new);
            *text = new;
            let (edit, file) = (file.name.clone(), edit.file.clone());
            done.push(Done { edit, file, outcome, copied: false, added, removed });
        }
    }
    if !misfits.list.is_empty() {
        return Err(EditError::Misfits(misfits));
    }
    changes.extend(texts.changes());
    changes.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(Plan { done, changes })
}

/// `pins` by how many edits do not fit the tree at `root` as it is in each, the fewest first, with that number. Errors:
/// files that cannot be read.
pub fn fit<'a>(
    root: &Path,
    files: &[EditFile],
    pins: &[&'a str],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<Vec<(&'a str, usize)>, EditError> {
    let count = |pin| match plan(root, files, &[pin], extension) {
        Ok(_) => Ok((pin, 0)),
        Err(EditError::Misfits(misfits)) => Ok((pin, misfits.count())),
        Err(error) => Err(error),
    };
    let mut found = pins.iter().map(|pin| count(*pin)).collect::<Result<Vec<_>, _>>()?;
    found.sort_by_key(|(_, misfits)| *misfits);
    Ok(found)
}

impl EditFile {
    /// Whether the tree at `root` has what these edits are about.
    fn is_for(&self, root: &Path) -> bool {
        self.needs.as_ref().is_none_or(|folder| root.join(folder).is_dir())
    }
}

impl Misfits {
    /// Counts an edit of a file that is not there.
    fn no_file(&mut self, name: &str, path: &str) {
        for misfit in &mut self.list {
            if let EditError::MissingFile { edit, file, count } = &mut misfit.error
                && edit == name
                && file == path
            {
                *count += 1;
                return;
            }
        }
        let error = EditError::MissingFile { edit: name.into(), file: path.into(), count: 1 };
        self.list.push(Misfit { error, nearest: None, because: None });
    }
}

fn plan_copy(
    root: &Path,
    edit: &str,
    copy: &Copy,
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> Result<(Option<Change>, Done), EditError> {
    let io_error = |path: PathBuf| move |source| EditError::Io { edit: edit.into(), path, source };
    let new = extension(&copy.from).map_err(io_error(copy.from.clone().into()))?;
    let old = match fs::read(root.join(&copy.to)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        old => Some(old.map_err(io_error(root.join(&copy.to)))?),
    };
    let same = old.as_ref() == Some(&new);
    let done = Done {
        edit: edit.into(),
        file: copy.to.clone(),
        outcome: if same { Outcome::AlreadyApplied } else { Outcome::Applied },
        copied: true,
        added: new.iter().filter(|b| **b == b'\n').count(),
        removed: 0,
    };
    Ok(((!same).then(|| Change { file: copy.to.clone(), old, new }), done))
}

/// The texts of a tree's files, as they are and as they become.
struct Texts<'a> {
    root: &'a Path,
    /// None: there is no such file.
    all: BTreeMap<String, Option<(String, String)>>,
}

impl Texts<'_> {
    fn get(&mut self, edit: &str, file: &str) -> Result<Option<&mut String>, EditError> {
        if !self.all.contains_key(file) {
            let path = self.root.join(file);
            let text = match fs::read_to_string(&path) {
                Ok(text) => Some((text.clone(), text)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(EditError::Io { edit: edit.into(), path, source }),
            };
            self.all.insert(file.into(), text);
        }
        let text = self.all.get_mut(file).expect("inserted above");
        Ok(text.as_mut().map(|(_, new)| new))
    }

    fn changes(self) -> impl Iterator<Item = Change> {
        self.all.into_iter().filter_map(|(file, text)| {
            let (old, new) = text.filter(|(old, new)| old != new)?;
            Some(Change { file, old: Some(old.into()), new: new.into() })
        })
    }
}

/// Lines of `new` that are not in `old`, and the other way round. They differ in one place.
fn lines_changed(old: &str, new: &str) -> (usize, usize) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (new.len() - same, old.len() - same)
}

/// Whether the tree at `root` is what these very edits make of some tree that is of one of `pins`, or between them.
pub fn is_applied(
    root: &Path,
    files: &[EditFile],
    pins: &[&str],
    extension: &dyn Fn(&str) -> io::Result<Vec<u8>>,
) -> bool {
    let files: Vec<&EditFile> = files.iter().filter(|file| file.is_for(root)).collect();
    let copies = files.iter().flat_map(|file| &file.copy);
    let same = |copy: &Copy| {
        let ours = extension(&copy.from);
        ours.is_ok_and(|ours| fs::read(root.join(&copy.to)).is_ok_and(|theirs| theirs == ours))
    };
    if !copies.into_iter().all(same) {
        return false;
    }
    (0..pins.len()).any(|first| {
        let mut pins = pins.to_vec();
        pins.swap(0, first);
        can_be_undone(root, &files, &pins)
    })
}

/// Whether all edits can be taken back.
fn can_be_undone(root: &Path, files: &[&EditFile], pins: &[&str]) -> bool {
    let mut texts: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for edit in files.iter().rev().flat_map(|file| file.edit.iter().rev()) {
        let forms = edit.forms(pins);
        if forms.is_empty() {
            continue;
        }
        let read = || fs::read_to_string(root.join(&edit.file)).ok();
        let text = texts.entry(&edit.file).or_insert_with(read);
        *text = text.take().and_then(|text| forms.iter().find_map(|form| form.undo(&text)));
    }
    texts.values().all(Option::is_some)
}
