//! The environment that steers the build. Every name is here, and nowhere else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Result;

/// A llama.cpp checkout to build instead of the pin. It is copied, never changed.
pub const LLAMA_SRC: &str = "TQ_LLAMA_SRC";
/// The pin's source distribution as a file, for machines without network.
pub const LLAMA_SDIST: &str = "TQ_LLAMA_SDIST";
/// Where sources and builds are kept. Default: the user's cache folder.
pub const CACHE_DIR: &str = "TQ_CACHE_DIR";
/// The cmake to use. Default: the one on PATH, else one that pip installs into the cache folder.
pub const CMAKE: &str = "TQ_CMAKE";
/// `0`: do not build for the CPU of this machine (GGML_NATIVE).
pub const NATIVE: &str = "TQ_NATIVE";

/// A change of any of these runs the build script again.
pub const ALL: [&str; 7] = [LLAMA_SRC, LLAMA_SDIST, CACHE_DIR, CMAKE, NATIVE, "CC", "CXX"];

/// The environment, read once.
#[derive(Debug, Clone)]
pub struct Env {
    /// The package's root folder.
    pub root: PathBuf,
    pub llama_src: Option<PathBuf>,
    pub llama_sdist: Option<PathBuf>,
    pub cache_dir: PathBuf,
    pub cmake: Option<PathBuf>,
    pub native: bool,
    pub cc: OsString,
    pub cxx: OsString,
    /// PATH, searched for cmake, ninja, compilers, python and ccache.
    pub path: OsString,
    /// How many compilers run at once.
    pub jobs: String,
}

impl Env {
    /// Reads the process's environment. Errors: no folder to keep the build in.
    pub fn from_process() -> Result<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let root = var("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let cache_dir = match var(CACHE_DIR) {
            Some(dir) => dir.into(),
            None => user_cache()
                .ok_or_else(|| format!("no user cache folder found: set {CACHE_DIR} to a folder for llama.cpp's source and build"))?
                .join("llama-turboquant"),
        };
        Ok(Self {
            llama_src: var(LLAMA_SRC).map(PathBuf::from),
            llama_sdist: var(LLAMA_SDIST).map(PathBuf::from),
            cache_dir: root.join(cache_dir), // a relative one is relative to the package
            cmake: var(CMAKE).map(PathBuf::from),
            native: var(NATIVE).is_none_or(|v| v != "0"),
            cc: var("CC").unwrap_or_else(|| "cc".into()),
            cxx: var("CXX").unwrap_or_else(|| "c++".into()),
            path: var("PATH").unwrap_or_default(),
            jobs: std::env::var("NUM_JOBS").unwrap_or_else(|_| "2".into()),
            root,
        })
    }

    /// The full path of a program on PATH, or None. A name with a folder in it is taken as it is.
    pub fn find(&self, program: impl AsRef<Path>) -> Option<PathBuf> {
        let program = program.as_ref();
        if program.components().count() > 1 {
            return program.is_file().then(|| program.into());
        }
        std::env::split_paths(&self.path)
            .map(|dir| dir.join(program))
            .flat_map(|p| [p.with_extension(std::env::consts::EXE_EXTENSION), p])
            .find(|p| p.is_file())
    }
}

fn user_cache() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if cfg!(windows) {
        return var("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return var("HOME").map(|h| h.join("Library/Caches"));
    }
    var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|h| h.join(".cache")))
}
