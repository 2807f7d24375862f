//! What is put into llama.cpp's source: the edits of vendor/edits, and the files of ggml-ext, whose folders are those of
//! the tree that they go to.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::Result;
use super::edit::{Copy, EditFile};
use super::edit_file;

/// Of a package, its files of ours.
pub const FOLDER: &str = "ggml-ext";

/// In [`FOLDER`]: which of the files are needed a second time.
const TWICE: &str = "twice.toml";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TwiceText {
    #[serde(default)]
    twice: Vec<Twice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Twice {
    file: String,
    /// Other folders of the tree that get it, too.
    also: Vec<String>,
}

/// All edits, then all files, those of each folder of the tree under a name of their own.
pub fn read(root: &Path) -> Result<Vec<EditFile>> {
    let mut all = edit_file::read_all(&root.join("vendor/edits")).map_err(|e| e.to_string())?;
    all.extend(files(&root.join(FOLDER))?);
    Ok(all)
}

/// The files, by the folder of the tree that they go to. A tree without it does without them, as without the edits that
/// are for it.
fn files(dir: &Path) -> Result<Vec<EditFile>> {
    let show = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
    let list = dir.join(TWICE);
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(show(&list, e)),
    };
    let TwiceText { mut twice } =
        toml::from_str(&text).map_err(|e| format!("{}: {e}", list.display()))?;
    let mut all = Vec::new();
    for folder in names(dir).map_err(|e| show(dir, e))? {
        let path = dir.join(&folder);
        if !path.is_dir() {
            if folder == TWICE {
                continue;
            }
            return Err(format!(
                "{} is in no folder of llama.cpp's, such as {}/src",
                path.display(),
                dir.display()
            ));
        }
        let mut found = Vec::new();
        walk(&path, &folder, &mut found).map_err(|e| show(&path, e))?;
        let mut copy = Vec::new();
        for from in found {
            let name = from.rsplit('/').next().unwrap_or(&from).to_owned();
            copy.push(Copy { from: from.clone(), to: from.clone() });
            for other in twice.extract_if(.., |other| other.file == from) {
                let to = other.also.iter().map(|folder| format!("{folder}/{name}"));
                copy.extend(to.map(|to| Copy { from: from.clone(), to }));
            }
        }
        all.push(EditFile {
            name: format!("{FOLDER}/{folder}"),
            why: format!("Files of ours in {folder}."),
            needs: Some(folder),
            copy,
            edit: Vec::new(),
        });
    }
    match twice.first() {
        Some(lost) => Err(format!("{}: there is no {}", list.display(), lost.file)),
        None => Ok(all),
    }
}

/// Every file at or below `dir`, which is called `name`, sorted.
fn walk(dir: &Path, name: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in names(dir)? {
        let (path, name) = (dir.join(&entry), format!("{name}/{entry}"));
        if path.is_dir() {
            walk(&path, &name, found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}

/// What is in a folder, sorted, but what is hidden.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
