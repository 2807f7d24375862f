//! Tells Cargo how to link the built libraries.

use std::fs;
use std::path::{Path, PathBuf};

use super::Result;
use super::gpu::Backend;
use super::target::Target;

/// Every library, users before what they use. The tq_* symbols that ggml-cpu and ggml-base need are
/// in this crate's rlib; rustc keeps exported symbols of rlibs when it links an executable.
/// GPU back ends are used by ggml, and use ggml-base.
const LIBRARIES: [&str; 15] = [
    "turboquant-main",
    "llama-bench-impl",
    "llama-completion-impl",
    "llama-perplexity-impl",
    "llama-cli-impl",
    "llama-server-impl",
    "server-context",
    "mtmd",
    "vendor-hash",
    "llama-ui",
    "llama-common",
    "cpp-httplib",
    "llama-common-base",
    "llama",
    "ggml",
];
/// Those that are there only with the source of the server.
const SERVER: [&str; 6] =
    ["llama-cli-impl", "llama-server-impl", "server-context", "mtmd", "vendor-hash", "llama-ui"];
const BELOW: [&str; 2] = ["ggml-cpu", "ggml-base"];

/// The names that a library's archive may have.
fn names(library: &str) -> [String; 2] {
    [format!("lib{library}.a"), format!("{library}.lib")]
}

/// All that is linked of llama.cpp, in order. `cache` is CMake's.
fn libraries(cache: &str, gpus: &[Backend]) -> impl Iterator<Item = &'static str> {
    let server = !cache.lines().any(|l| {
        l.split_once('=')
            .is_some_and(|(name, value)| name.starts_with("LLAMA_BUILD_SERVER:") && value == "OFF")
    });
    LIBRARIES
        .into_iter()
        .filter(move |library| server || !SERVER.contains(library))
        .chain(gpus.iter().map(|gpu| gpu.library()))
        .chain(BELOW)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Makes `to` a folder with what [`lines`] needs of the build folder `out`: archives, and CMake's cache. It belongs to
/// Cargo's build, so that links do not break when the tree is removed from the cache. Archives are hard links, which take
/// no room, where both folders are on one file system, and copies where they are not.
pub fn adopt(out: &Path, to: &Path, gpus: &[Backend]) -> Result<()> {
    if let Err(e) = fs::remove_dir_all(to)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("{}: {e}", to.display()));
    }
    fs::create_dir_all(to).map_err(|e| format!("{}: {e}", to.display()))?;
    let found = archives(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let cache = read(&out.join("CMakeCache.txt"))?;
    for library in libraries(&cache, gpus) {
        let Some(archive) = find(&found, library) else {
            return Err(format!(
                "{} was built without {}: delete that folder and build again",
                out.parent().unwrap_or(out).display(),
                names(library)[0]
            ));
        };
        let new = to.join(archive.file_name().unwrap_or_default());
        if fs::hard_link(archive, &new).is_err() {
            copy(archive, &new)?;
        }
    }
    // A copy: CMake writes it again when somebody goes on with the tree.
    copy(&out.join("CMakeCache.txt"), &to.join("CMakeCache.txt"))
}

fn find<'a>(found: &'a [PathBuf], library: &str) -> Option<&'a PathBuf> {
    let names = names(library);
    found.iter().find(|p| names.iter().any(|n| p.file_name().is_some_and(|f| f == n.as_str())))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("copying {} to {}: {e}", from.display(), to.display())),
    }
}

/// Prints the link instructions for the folder `out`.
pub fn emit(out: &Path, target: &Target, gpus: &[Backend]) -> Result<()> {
    for line in lines(out, target, gpus)? {
        println!("cargo::{line}");
    }
    Ok(())
}

/// What Cargo is told, in order.
pub fn lines(out: &Path, target: &Target, gpus: &[Backend]) -> Result<Vec<String>> {
    let found = archives(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let cache = read(&out.join("CMakeCache.txt"))?;
    let mut lines = Lines { target, cache: cache.clone(), lines: Vec::new() };
    for library in libraries(&cache, gpus) {
        let Some(dir) = find(&found, library).and_then(|archive| archive.parent()) else {
            return Err(format!("{} is without {}", out.display(), names(library)[0]));
        };
        lines.search(dir);
        // Not bundled: a copy in the rlib would cost 50 MB per profile.
        lines.library(&format!("static:-bundle={library}"));
    }
    for gpu in gpus {
        match gpu {
            Backend::Cuda => lines.cuda()?,
            Backend::Metal => {
                for framework in ["Metal", "MetalKit"] {
                    lines.library(&format!("framework={framework}"));
                }
            }
            Backend::Vulkan => lines.found("Vulkan_LIBRARY", "dylib")?,
        }
    }
    lines.system()?;
    Ok(lines.lines)
}

/// Instructions, and the CMake cache that knows where libraries are.
struct Lines<'a> {
    target: &'a Target,
    cache: String,
    lines: Vec<String>,
}

impl Lines<'_> {
    /// A variable of CMake's cache, if it has a value and is not what CMake calls not found.
    fn value(&self, name: &str) -> Option<String> {
        let line = self.cache.lines().find(|l| l.starts_with(&format!("{name}:")))?;
        let (_, value) = line.split_once('=')?;
        (!value.is_empty() && !value.ends_with("-NOTFOUND")).then(|| value.to_string())
    }

    fn search(&mut self, dir: &Path) {
        let line = format!("rustc-link-search=native={}", dir.display());
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    fn library(&mut self, library: &str) {
        self.lines.push(format!("rustc-link-lib={library}"));
    }

    /// Links the library whose path CMake has in this variable.
    fn found(&mut self, variable: &str, kind: &str) -> Result<()> {
        let path = self.value(variable).map(PathBuf::from);
        let parts = path.as_ref().and_then(|p| Some((p.parent()?, name(p)?)));
        let Some((dir, name)) = parts else {
            return Err(format!(
                "CMake did not find the library that is to be in its variable {variable}: install it, or name it: \
                 {}=-D{variable}=<its path>",
                super::env::CMAKE_ARGS
            ));
        };
        self.search(dir);
        self.library(&format!("{kind}={name}"));
        Ok(())
    }

    /// The runtime is linked statically; cuBLAS (hundreds of MB) and the driver are shared libraries.
    fn cuda(&mut self) -> Result<()> {
        for variable in ["CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY"] {
            self.found(variable, "dylib")?;
        }
        // Programs find cuBLAS where it was at build time, as CMake's own do, wherever the system does not know it.
        let dir = self.value("CUDA_cublas_LIBRARY").map(PathBuf::from);
        if let Some(dir) = dir.as_deref().and_then(Path::parent)
            && self.target.is_elf()
        {
            self.lines.push(format!("rustc-link-arg=-Wl,-rpath,{}", dir.display()));
        }
        if self.value("GGML_CUDA_NCCL").is_some_and(|v| v == "ON")
            && self.value("NCCL_LIBRARY").is_some()
            && self.value("NCCL_INCLUDE_DIR").is_some()
        {
            self.found("NCCL_LIBRARY", "dylib")?;
        }
        // Virtual memory is the driver's. Where there is no driver, the toolkit has a stub to link with.
        if self.value("GGML_CUDA_NO_VMM").is_none_or(|v| v != "ON") {
            self.found("CUDA_cuda_driver_LIBRARY", "dylib")?;
        }
        if self.target.os == "windows" {
            return self.found("CUDA_cudart_static_LIBRARY", "dylib"); // an import library by any name
        }
        self.found("CUDA_cudart_static_LIBRARY", "static:-bundle")?;
        if !self.target.is_macos() {
            self.library("rt");
        }
        Ok(())
    }

    /// Libraries of the system, OpenMP's if CMake found it, and OpenSSL's if it was asked for.
    fn system(&mut self) -> Result<()> {
        if self.value("GGML_OPENMP_ENABLED").is_some_and(|v| v == "ON") {
            let names = self.value("OpenMP_C_LIB_NAMES").unwrap_or_default();
            for name in names.split(';').filter(|n| !n.is_empty() && *n != "pthread") {
                let path = self.value(&format!("OpenMP_{name}_LIBRARY")).map(PathBuf::from);
                if let Some(dir) = path.as_deref().and_then(Path::parent) {
                    self.search(dir);
                }
                self.library(name);
            }
        }
        let ssl = self.value("OPENSSL_SSL_LIBRARY").map(PathBuf::from);
        if let Some(ssl) = ssl
            && self.value("OPENSSL_INCLUDE_DIR").is_some()
            && self.value("LLAMA_OPENSSL").is_some_and(|v| v == "ON")
        {
            if let Some(dir) = ssl.parent() {
                self.search(dir);
            }
            self.library("ssl");
            self.library("crypto");
        } else {
            self.lines.push(
                "warning=no headers of OpenSSL 3 (Debian: libssl-dev): the tools are without HTTPS, -hf and https: \
                 URLs will fail"
                    .into(),
            );
        }
        let target = self.target;
        let system: &[&str] = match target.os.as_str() {
            "macos" => &["c++", "framework=Accelerate", "framework=Foundation"],
            "android" => &["c++_shared", "dl", "m"],
            "freebsd" | "openbsd" => &["c++", "pthread", "m"],
            _ if target.unix => &["stdc++", "pthread", "dl", "m"],
            "windows" if target.env == "gnu" => &["stdc++"],
            _ => &[], // with MSVC, archives name what they need
        };
        for library in system {
            self.library(library);
        }
        Ok(())
    }
}

/// What `-l` calls a library: `libcublas.so` is cublas, `vulkan-1.lib` is vulkan-1.
fn name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    if let Some(name) = file.strip_suffix(".lib") {
        return Some(name.into());
    }
    let stem = file.strip_prefix("lib")?;
    let end = [".so", ".a", ".dylib", ".tbd"].iter().filter_map(|e| stem.find(e)).min()?;
    Some(stem[..end].into())
}

fn archives(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(archives(&path)?);
        } else if path.extension().is_some_and(|e| e == "a" || e == "lib") {
            found.push(path);
        }
    }
    Ok(found)
}
