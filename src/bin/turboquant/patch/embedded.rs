//! The edits and the files that they add, as they were when this program was built (build/embed.rs).

use std::io;

use super::edit::{Copy, Edit, EditFile};

/// A llama.cpp that the edits are for.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    pub name: &'static str,
    /// Abbreviated.
    pub commit: &'static str,
    pub ggml: &'static str,
}

impl Pin {
    pub fn describe(&self) -> String {
        let Self { name, commit, ggml } = self;
        format!("{name} (commit {commit}, ggml {ggml})")
    }

    /// Whether it is this commit, abbreviated or not.
    pub fn is_at(&self, commit: &str) -> bool {
        self.commit.starts_with(commit) || commit.starts_with(self.commit)
    }
}

include!(concat!(env!("OUT_DIR"), "/edits.rs"));

fn owned(text: Option<&str>) -> Option<String> {
    text.map(String::from)
}

/// The bytes of a file that an edit adds.
pub fn file(from: &str) -> io::Result<Vec<u8>> {
    let found = FILES.iter().find(|(name, _)| *name == from);
    found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
}
