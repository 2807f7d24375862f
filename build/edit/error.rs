//! Why a tree cannot be edited.

use std::io;
use std::path::PathBuf;

use super::{Misfits, THEN_LINES};

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
    #[error("{edit}: {file}: No such file, for {} of its edits", count)]
    MissingFile { edit: String, file: String, count: usize },
    #[error("{0}")]
    Misfits(Misfits),
    #[error("{edit}: {}: {source}", path.display())]
    Io { edit: String, path: PathBuf, source: io::Error },
    #[error("{why}; what was done could not be undone: see {paths:?}")]
    NotUndone { why: String, paths: Vec<PathBuf> },
}
