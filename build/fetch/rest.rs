//! Folders that a pin takes from another one's package, and the edits that make them fit (vendor/port).

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::Result;
use super::super::edit::{self, EditFile};
use super::super::edit_file;
use super::super::env::{self, Env};
use super::super::pin::Pin;
use super::package;

const PORT: &str = "vendor/port";

/// What is to be added to the source in a package.
pub struct Parts<'a> {
    /// Names the source that comes of it, hexadecimal: a hash of all that goes into it.
    pub id: String,
    folders: &'a [String],
    /// Whose package has them.
    of: &'a Pin,
    edits: Vec<EditFile>,
}

/// The parts that the package of `pin` lacks. None: it has everything.
pub fn of<'a>(env: &Env, pin: &'a Pin) -> Result<Option<Parts<'a>>> {
    let Some(rest) = &pin.rest else { return Ok(None) };
    let edits = edit_file::read_all(&env.root.join(PORT)).map_err(|e| e.to_string())?;
    let of =
        rest.pin.as_deref().ok_or_else(|| format!("{}: no pin to take folders from", pin.name))?;
    let sums = [&pin.source.sha256, &of.source.sha256];
    let mut hash = Sha256::new();
    hash.update(format!("{sums:?} {:?} {edits:?}", rest.folders));
    for copy in edits.iter().flat_map(|file| &file.copy) {
        hash.update(read(env, &copy.from).map_err(|e| format!("{PORT}/{}: {e}", copy.from))?);
    }
    let id = format!("{:x}", hash.finalize())[..12].into();
    Ok(Some(Parts { id, folders: &rest.folders, of, edits }))
}

impl Parts<'_> {
    /// Puts the folders in place of what `tmp/source`, which is of `pin`, has there, and applies the edits.
    pub fn add(&self, env: &Env, pin: &Pin, tmp: &Path) -> Result<()> {
        let (of, folders) = (self.of, self.folders.join(", "));
        // As a file, it lies beside that of the other package.
        let file = env.llama_sdist.as_ref().map(|file| file.with_file_name(&of.source.file));
        if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
            return Err(format!(
                "there is no {}, of which {} takes {folders}: put {} of {} there, beside {}, or set {}=<a checkout of llama.cpp at {}>",
                file.display(),
                pin.describe(),
                of.source.file,
                of.requirement(),
                env::LLAMA_SDIST,
                env::LLAMA_SRC,
                pin.commit
            ));
        }
        let (source, rest) = (tmp.join("source"), tmp.join("rest"));
        package(&Env { llama_sdist: file, ..env.clone() }, of, &rest)?;
        for folder in self.folders {
            let (from, to) = (rest.join("source").join(folder), source.join(folder));
            let replace = || {
                if to.is_dir() {
                    fs::remove_dir_all(&to)?;
                }
                fs::create_dir_all(to.parent().unwrap_or(&source))?;
                fs::rename(&from, &to)
            };
            replace().map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))?;
        }
        let done = edit::apply_all(&source, &self.edits, &pin.order(), &|from| read(env, from));
        done.map(|_| ()).map_err(|e| {
            format!("{folders} of {} do not fit {}: {PORT}: {e}", of.describe(), pin.describe())
        })
    }
}

/// A file that an edit copies.
fn read(env: &Env, from: &str) -> io::Result<Vec<u8>> {
    fs::read(env.root.join(PORT).join(from))
}
