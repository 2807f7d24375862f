//! Options that several verbs have.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

/// Finds what llama.cpp would have a less helpful message for.
pub fn check_model(path: &Path) -> Result<()> {
    let cannot = || format!("cannot load the model {}", path.display());
    let error = |reason: &'static str| anyhow!(reason).context(cannot());
    if path.is_dir() {
        return Err(error("it is a folder"));
    }
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => Err(e).with_context(cannot),
        _ => Err(error("it is not a GGUF file")),
    }
}

/// A text, which has to be UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))
}
