//! Makes a plan's changes, all or none.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{EditError, Plan};

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
