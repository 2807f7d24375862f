//! The environment that steers the build. Every name is here, and nowhere else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Result, gpu};

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

/// More options for CMake, `-DNAME=VALUE` with spaces between. They come last, so they win.
pub const CMAKE_ARGS: &str = "TQ_CMAKE_ARGS";
/// Feature `cuda`: what to build for, as CMAKE_CUDA_ARCHITECTURES. Default: the GPUs of this machine; without
/// [`NATIVE`] those that ggml names.
pub const CUDA_ARCHITECTURES: &str = "TQ_CUDA_ARCHITECTURES";
/// Feature `cuda`: the toolkit's folder. Default: that of the nvcc on PATH, else /usr/local/cuda.
pub const CUDA_PATH: &str = "CUDA_PATH";
/// Feature `cuda`: nvcc, if not that of the toolkit's folder.
pub const CUDACXX: &str = "CUDACXX";
/// Feature `cuda`: the C++ compiler that nvcc calls.
pub const CUDAHOSTCXX: &str = "CUDAHOSTCXX";
/// Feature `vulkan`: the SDK's folder, if Vulkan is not in the system's.
pub const VULKAN_SDK: &str = "VULKAN_SDK";

/// A change of any of these runs the build script again.
pub const ALL: [&str; 13] = [
    LLAMA_SRC,
    LLAMA_SDIST,
    CACHE_DIR,
    CMAKE,
    NATIVE,
    CMAKE_ARGS,
    CUDA_ARCHITECTURES,
    CUDA_PATH,
    CUDACXX,
    CUDAHOSTCXX,
    VULKAN_SDK,
    "CC",
    "CXX",
];

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
    pub cmake_args: Vec<String>,
    pub cc: OsString,
    pub cxx: OsString,
    /// PATH, searched for cmake, ninja, compilers, python and ccache.
    pub path: OsString,
    /// How many compilers run at once.
    pub jobs: String,
    pub gpu: gpu::Settings,
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
            cmake_args: match std::env::var(CMAKE_ARGS) {
                Ok(text) => cmake_args(&text)?,
                Err(std::env::VarError::NotPresent) => Vec::new(),
                Err(e) => return Err(format!("{CMAKE_ARGS}: {e}")),
            },
            gpu: gpu::Settings::read(var),
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

/// Errors: what is not `-DNAME=VALUE`.
pub fn cmake_args(text: &str) -> Result<Vec<String>> {
    let check = |arg: &str| match arg.strip_prefix("-D").and_then(|a| a.split_once('=')) {
        Some((name, _)) if !name.is_empty() => Ok(arg[2..].to_string()),
        _ => Err(format!("{CMAKE_ARGS}: {arg:?} is not of the form -DNAME=VALUE")),
    };
    text.split_whitespace().map(check).collect()
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
