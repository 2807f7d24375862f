//! The environment that steers the build. Every name is here, and nowhere else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{self, Cache, Limit};
use super::target::Target;
use super::{Result, gpu};

/// A llama.cpp checkout to build instead of the pin. It is copied, never changed.
pub const LLAMA_SRC: &str = "TQ_LLAMA_SRC";
/// Which of the known llama.cpp is built (vendor/llama.cpp.toml). Default: the one that the file says; of a checkout,
/// that whose edits fit it best.
pub const LLAMA_PIN: &str = "TQ_LLAMA_PIN";
/// The pin's package as a file, for machines without network.
pub const LLAMA_SDIST: &str = "TQ_LLAMA_SDIST";
/// Where sources and builds are kept. Default: the user's cache folder.
pub const CACHE_DIR: &str = cache::DIR;
/// How much builds may take there, such as 10GB; or none.
pub const CACHE_LIMIT: &str = cache::LIMIT;
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

/// What a build script that was started by another one is to do (driver.rs). Not the user's.
pub const TASK: &str = "TQ_BUILD_TASK";

/// A change of any of these runs the build script again.
pub const ALL: [&str; 13] = [
    LLAMA_SRC,
    LLAMA_PIN,
    LLAMA_SDIST,
    CACHE_DIR,
    CACHE_LIMIT,
    CMAKE,
    NATIVE,
    CMAKE_ARGS,
    CUDA_ARCHITECTURES,
    CUDA_PATH,
    CUDACXX,
    CUDAHOSTCXX,
    VULKAN_SDK,
];

/// What CMake, compilers, linkers and archivers, and the crates that call them, read by themselves. The cache's key has
/// those that are set, and a change of any runs the build script again.
pub const REACHING: [&str; 64] = [
    // the crate cc
    "CC_FORCE_DISABLE",
    "CC_KNOWN_WRAPPER_CUSTOM",
    "CC_PREFER_CLANG_CL_OVER_MSVC",
    "CC_SHELL_ESCAPED_FLAGS",
    "CRATE_CC_NO_DEFAULTS",
    "CROSS_COMPILE",
    // GCC, Clang
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "OBJC_INCLUDE_PATH",
    "LIBRARY_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "LD_RUN_PATH",
    "CCC_OVERRIDE_OPTIONS",
    "SOURCE_DATE_EPOCH",
    "ZERO_AR_DATE",
    "SDKROOT",
    "DEVELOPER_DIR",
    "MACOSX_DEPLOYMENT_TARGET",
    // MSVC
    "CL",
    "_CL_",
    "LINK",
    "_LINK_",
    "INCLUDE",
    "LIB",
    "LIBPATH",
    // nvcc
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
    "NVCC_CCBIN",
    // CMake
    "LDFLAGS",
    "ASM",
    "ASMFLAGS",
    "OBJC",
    "OBJCFLAGS",
    "OBJCXX",
    "OBJCXXFLAGS",
    "CUDAARCHS",
    "CUDAFLAGS",
    "CMAKE_APPBUNDLE_PATH",
    "CMAKE_FRAMEWORK_PATH",
    "CMAKE_GENERATOR",
    "CMAKE_GENERATOR_INSTANCE",
    "CMAKE_GENERATOR_PLATFORM",
    "CMAKE_GENERATOR_TOOLSET",
    "CMAKE_INCLUDE_PATH",
    "CMAKE_LIBRARY_PATH",
    "CMAKE_OSX_ARCHITECTURES",
    "CMAKE_POLICY_VERSION_MINIMUM",
    "CMAKE_PREFIX_PATH",
    "CMAKE_PROGRAM_PATH",
    "CMAKE_TOOLCHAIN_FILE",
    // what CMake finds packages with
    "PKG_CONFIG",
    "PKG_CONFIG_LIBDIR",
    "PKG_CONFIG_PATH",
    "PKG_CONFIG_SYSROOT_DIR",
    "OPENSSL_ROOT",
    "OPENSSL_ROOT_DIR",
    "OpenSSL_ROOT",
    "OpenMP_ROOT",
    "CUDA_HOME",
    "CUDAToolkit_ROOT",
    "NCCL_ROOT",
    "Vulkan_ROOT",
];

/// How the names of more such variables begin: other than [`REACHING`], they are noticed when the build script runs.
pub const REACHING_PREFIXES: [&str; 2] = ["CMAKE_", "NIX_"];

/// What the crates `cc` and `cmake` read under the names of [`Target::names`]. The same holds for these.
pub const REACHING_OF_TARGET: [&str; 8] = [
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "CMAKE_GENERATOR",
    "CMAKE_PREFIX_PATH",
    "CMAKE_TOOLCHAIN_FILE",
    "EMCMAKE",
];

/// What no process of the build sees. These are for all that Cargo compiles, on the host or for the target; flags for
/// llama.cpp are in CFLAGS_<target> and its like, or in [`CMAKE_ARGS`].
pub const KEPT_OUT: [&str; 3] = ["CFLAGS", "CXXFLAGS", "MAKEFLAGS"];

/// The environment, read once.
#[derive(Debug, Clone)]
pub struct Env {
    /// The package's root folder.
    pub root: PathBuf,
    pub llama_src: Option<PathBuf>,
    pub llama_pin: Option<String>,
    pub llama_sdist: Option<PathBuf>,
    pub cache: Cache,
    pub cache_limit: Limit,
    pub cmake: Option<PathBuf>,
    pub native: bool,
    pub cmake_args: Vec<String>,
    pub target: Target,
    /// The build script's program, and what it is given to perform a task.
    pub driver: Vec<OsString>,
    /// The cargo that runs this, or another's name.
    pub cargo: OsString,
    /// PATH, searched for cmake, ninja, compilers, cargo, python and ccache.
    pub path: OsString,
    /// How many compilers run at once.
    pub jobs: String,
    pub gpu: gpu::Settings,
    /// The variables that are set of those that reach compilers, by name.
    pub reaching: BTreeMap<String, OsString>,
}

impl Env {
    /// Reads the process's environment. Errors: no folder to keep the build in.
    pub fn from_process() -> Result<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let root = var("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let dir = Cache::dir_of(&root, var).ok_or_else(|| {
            format!("no user cache folder found: set {CACHE_DIR} to a folder for llama.cpp's source and build")
        })?;
        let target = Target::read(var);
        let cache_limit = match var(CACHE_LIMIT) {
            Some(limit) => limit.to_string_lossy().parse()?,
            None => cache::DEFAULT_LIMIT,
        };
        Ok(Self {
            llama_src: var(LLAMA_SRC).map(PathBuf::from),
            llama_pin: var(LLAMA_PIN).map(|name| name.to_string_lossy().into_owned()),
            llama_sdist: var(LLAMA_SDIST).map(PathBuf::from),
            cache: Cache::new(dir),
            cache_limit,
            cmake: var(CMAKE).map(PathBuf::from),
            native: var(NATIVE).is_none_or(|v| v != "0"),
            driver: std::env::current_exe().map(OsString::from).into_iter().collect(),
            cargo: var("CARGO").unwrap_or_else(|| "cargo".into()),
            path: var("PATH").unwrap_or_default(),
            jobs: std::env::var("NUM_JOBS").unwrap_or_else(|_| "2".into()),
            cmake_args: match std::env::var(CMAKE_ARGS) {
                Ok(text) => cmake_args(&text)?,
                Err(std::env::VarError::NotPresent) => Vec::new(),
                Err(e) => return Err(format!("{CMAKE_ARGS}: {e}")),
            },
            gpu: gpu::Settings::read(var),
            reaching: reaching(std::env::vars_os(), &target),
            target,
            root,
        })
    }

    /// A process of the build. Of the variables that reach compilers it has those that the key has, and no other.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| {
                KEPT_OUT.contains(&name)
                    || reaches(name, &self.target) && !self.reaching.contains_key(name)
            }) {
                command.env_remove(name);
            }
        }
        command.envs(&self.reaching).envs(self.target.variables());
        command.env("PATH", &self.path).env("NUM_JOBS", &self.jobs);
        command
    }

    /// Whether llama.cpp is built for the CPU of this machine.
    pub fn is_native(&self) -> bool {
        self.native && !self.target.is_cross()
    }

    /// The variable of this name, or of one for the target, that counts.
    pub fn of_target(&self, variable: &str) -> Option<&OsString> {
        self.target.names(variable).iter().find_map(|name| self.reaching.get(name))
    }

    /// CMake's toolchain file, which says what the compilers are.
    pub fn toolchain(&self) -> Option<PathBuf> {
        let option = self.cmake_args.iter().rev().find_map(|arg| {
            let (name, value) = arg.split_once('=')?;
            (name.split(':').next() == Some("CMAKE_TOOLCHAIN_FILE")).then(|| value.into())
        });
        option.or_else(|| self.of_target("CMAKE_TOOLCHAIN_FILE").map(PathBuf::from))
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

/// The task of this process, if it is one that was started for a task.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// Those of the variables that reach compilers.
pub fn reaching(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    target: &Target,
) -> BTreeMap<String, OsString> {
    vars.into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| !value.is_empty() && reaches(name, target))
        .collect()
}

fn reaches(name: &str, target: &Target) -> bool {
    let begins = || REACHING_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    REACHING.contains(&name) || begins() || of_target(target).any(|of_target| of_target == name)
}

/// Every name of [`REACHING_OF_TARGET`].
pub fn of_target(target: &Target) -> impl Iterator<Item = String> {
    let names = REACHING_OF_TARGET.iter().flat_map(|variable| target.names(variable));
    names.filter(|name| !KEPT_OUT.contains(&name.as_str()))
}
