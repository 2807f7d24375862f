//! Which llama.cpp is built: vendor/llama.cpp.toml.

use std::path::Path;

use serde::Deserialize;

use super::Result;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Commit of ggml-org/llama.cpp.
    pub commit: String,
    /// Version of ggml in it.
    pub ggml: String,
    pub sdist: Sdist,
}

/// The PyPI source distribution that carries the source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sdist {
    pub package: String,
    pub version: String,
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Folder of llama.cpp inside the archive.
    pub folder: String,
}

impl Pin {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// `name==version`, as pip takes it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.sdist.package, self.sdist.version)
    }
}
