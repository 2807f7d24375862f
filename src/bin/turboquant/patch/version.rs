//! Which of the llama.cpp that the edits are for a checkout is, or is nearest to.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::edit::{self, EditFile};
use super::embedded::{self, PINS, Pin};
use super::tree;

/// The pin that a checkout is nearest to.
pub struct Version {
    pub pin: &'static Pin,
    /// It is that commit, says git.
    exact: bool,
}

/// Of all pins.
pub fn names() -> Vec<&'static str> {
    PINS.iter().map(|pin| pin.name).collect()
}

/// By the commit that is checked out, else by how many edits fit. Errors: files that cannot be read.
pub fn find(dir: &Path, edits: &[EditFile]) -> Result<Version> {
    let commit = tree::commit(dir);
    let at = commit.and_then(|commit| PINS.iter().find(|pin| pin.is_at(&commit)));
    if let Some(pin) = at {
        return Ok(Version { pin, exact: true });
    }
    let fit = edit::fit(dir, edits, &names(), &embedded::file)?;
    let nearest = fit.first().and_then(|(name, _)| PINS.iter().find(|pin| pin.name == *name));
    Ok(Version { pin: nearest.context("there are no pins")?, exact: false })
}

impl Version {
    /// In which order the forms of an edit are tried. What is exactly of a pin takes those of that pin alone.
    pub fn order(&self) -> Vec<&'static str> {
        let rest = PINS.iter().filter(|pin| !self.exact && pin.name != self.pin.name);
        [self.pin].into_iter().chain(rest).map(|pin| pin.name).collect()
    }

    /// What to know before the checkout is changed: that there is no way back, or that it is of another commit.
    pub fn note(&self, dir: &Path) -> Option<String> {
        if !tree::is_git(dir) {
            return Some(format!(
                "{} is not in git, which would tell edits from changes of yours and undo them: keep a copy",
                dir.display()
            ));
        }
        let at = tree::commit(dir).filter(|_| !self.exact)?;
        Some(format!(
            "{} is at commit {at}, and nearest to {}: each edit fits",
            dir.display(),
            self.pin.describe()
        ))
    }

    pub fn does_not_fit(&self, dir: &Path) -> String {
        let at = tree::commit(dir)
            .map_or(String::new(), |commit| format!(", which is at commit {commit},"));
        let known: Vec<_> = PINS.iter().map(Pin::describe).collect();
        let commit = self.pin.commit;
        format!(
            "the edits do not fit {}{at} and nothing was changed; they are for llama.cpp {}. The nearest to yours is {}: \
             check it out (git checkout {commit}), or use a version of turboquant for yours",
            dir.display(),
            known.join(" and "),
            self.pin.name
        )
    }
}
