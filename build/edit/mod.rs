//! Anchored edits: small, visible changes to a source tree that we do not own.
//!
//! An edit names a file, an *anchor* (a short string that occurs exactly once in it), and the
//! lines to put before or after the anchor's line, or the text to put in the anchor's place.
//! Where one string is not enough to name a place (a `case` that many switches share), `then` is
//! looked for behind the anchor and takes its role. Nothing is guessed: an anchor that is missing
//! or ambiguous is an error, and a tree either takes every edit or stays as it was.
//!
//! The edits are for several known versions of the tree, the *pins*. Where they differ, an edit has a variant for the
//! pin that is not as the others are (`variant.rs`).
//!
//! This module knows nothing of Cargo, build scripts or TOML: `turboquant patch` has it, too.

mod apply;
mod error;
mod misfit;
mod plan;
mod variant;
mod write;

pub use apply::Outcome;
pub use error::EditError;
pub use misfit::{Misfit, Misfits};
pub use plan::{Done, Plan, fit, is_applied, plan};

/// How many lines behind the anchor `then` may be.
const THEN_LINES: usize = 40;

/// One file of edits: those of an area of upstream, `AREA.toml`.
#[derive(Debug, Clone)]
pub struct EditFile {
    /// File name, for reports.
    pub name: String,
    /// Why these edits exist, one sentence.
    pub why: String,
    /// If set: a folder of the tree without which there is nothing to edit. Packages of the source may lack it.
    pub needs: Option<String>,
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
    /// The pins that this edit is for. None: all.
    pub pins: Option<Vec<String>>,
    /// What the edit is instead for a pin, by its name. Variants have none themselves.
    pub variant: Vec<(String, Edit)>,
}

/// Applies every file of edits to the tree at `root`, which is of the first of `pins`, all or none.
pub fn apply_all(
    root: &std::path::Path,
    files: &[EditFile],
    pins: &[&str],
    extension: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
) -> Result<Vec<Done>, EditError> {
    let plan = plan(root, files, pins, extension)?;
    plan.write(root, &|| false)?;
    Ok(plan.done)
}
