//! GPU back ends: what the features `cuda`, `metal` and `vulkan` need, whether it is there, and what CMake is told.
//!
//! Whatever is missing is said before anything is built, in one message.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::env::{self, Env};
use super::{Result, cmake, driver};

/// A back end of ggml beside the CPU's. Each has a feature of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Cuda,
    Metal,
    Vulkan,
}

impl Backend {
    pub const ALL: [Self; 3] = [Self::Cuda, Self::Metal, Self::Vulkan];

    pub fn feature(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
        }
    }

    /// Its static library.
    pub fn library(self) -> &'static str {
        match self {
            Self::Cuda => "ggml-cuda",
            Self::Metal => "ggml-metal",
            Self::Vulkan => "ggml-vulkan",
        }
    }
}

/// What the environment says about GPUs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The features that are on.
    pub backends: Vec<Backend>,
    pub cudacxx: Option<PathBuf>,
    pub cuda_path: Option<PathBuf>,
    /// Where a CUDA toolkit is looked for that nothing names.
    pub cuda_default: PathBuf,
    pub cuda_host: Option<PathBuf>,
    pub cuda_architectures: Option<String>,
    pub vulkan_sdk: Option<PathBuf>,
}

impl Settings {
    pub fn read(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| var(name).map(PathBuf::from);
        let on =
            |b: &Backend| var(&format!("CARGO_FEATURE_{}", b.feature().to_uppercase())).is_some();
        Self {
            backends: Backend::ALL.into_iter().filter(on).collect(),
            cudacxx: path(env::CUDACXX),
            cuda_path: path(env::CUDA_PATH),
            cuda_default: "/usr/local/cuda".into(),
            cuda_host: path(env::CUDAHOSTCXX),
            cuda_architectures: var(env::CUDA_ARCHITECTURES)
                .map(|v| v.to_string_lossy().into_owned()),
            vulkan_sdk: path(env::VULKAN_SDK),
        }
    }

    fn has(&self, backend: Backend) -> bool {
        self.backends.contains(&backend)
    }

    /// Whether CUDA is built for the GPUs of this machine.
    fn native(&self, env: &Env) -> bool {
        self.cuda_architectures.as_ref().map_or(env.is_native(), |a| a.contains("native"))
    }
}

/// CMake's options. A build without GPUs has none, but on macOS, where Metal and BLAS are on by default.
pub fn options(env: &Env) -> Vec<String> {
    let gpu = &env.gpu;
    let mut options = Vec::new();
    if gpu.has(Backend::Cuda) {
        options.push("GGML_CUDA=ON".to_string());
        let nvcc = find_nvcc(env).unwrap_or_default(); // it is an error elsewhere if there is none
        options.push(format!("CMAKE_CUDA_COMPILER={}", nvcc.display()));
        if let Some(host) = &gpu.cuda_host {
            options.push(format!("CMAKE_CUDA_HOST_COMPILER={}", host.display()));
        }
        if let Some(architectures) = &gpu.cuda_architectures {
            options.push(format!("CMAKE_CUDA_ARCHITECTURES={architectures}"));
        }
        if env.target.unix {
            options.push("CMAKE_CUDA_FLAGS=-Xcompiler=-fPIE".into());
        }
    }
    if gpu.has(Backend::Vulkan) {
        options.push("GGML_VULKAN=ON".into());
    }
    if env.target.is_macos() {
        options.push("GGML_BLAS=OFF".into());
        if gpu.has(Backend::Metal) {
            options.extend(["GGML_METAL=ON".into(), "GGML_METAL_EMBED_LIBRARY=ON".into()]);
        } else {
            options.push("GGML_METAL=OFF".into());
        }
    }
    options
}

/// Checks that everything is there. Returns what tells one toolkit from another, for the cache's key.
pub fn check(env: &Env) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut key = Vec::new();
    for backend in &env.gpu.backends {
        match backend {
            Backend::Cuda => key.extend(check_cuda(env)?),
            Backend::Metal => check_metal(env)?,
            Backend::Vulkan => key.extend(check_vulkan(env)?),
        }
    }
    Ok(key)
}

/// One message: what is missing, how to get it, and that there is a way without.
fn missing(backend: Backend, what: &str, way_out: &str) -> String {
    let feature = backend.feature();
    format!(
        "the feature {feature} cannot be built: {what}.\n{way_out}.\nWithout the feature {feature} everything builds \
         and runs on the CPU"
    )
}

fn check_metal(env: &Env) -> Result<()> {
    if env.target.is_macos() {
        return Ok(());
    }
    let what = format!("Metal is a part of macOS, and this is {}", env.target.os);
    Err(missing(
        Backend::Metal,
        &what,
        "Build on a Mac, or with --features cuda or vulkan for this machine's GPU",
    ))
}

/// nvcc: CUDACXX, else CUDA_PATH's, else the one on PATH, else the default folder's.
fn find_nvcc(env: &Env) -> Result<PathBuf> {
    let fail = |what: String| {
        let way_out = format!(
            "Install NVIDIA's CUDA toolkit (Debian and Ubuntu: nvidia-cuda-toolkit), or say where it is: {}=<its \
             folder> or {}=<path of nvcc>",
            env::CUDA_PATH,
            env::CUDACXX
        );
        Err(missing(Backend::Cuda, &what, &way_out))
    };
    // CMake wants full paths.
    let find = |nvcc: &Path| env.find(nvcc).map(|nvcc| std::path::absolute(&nvcc).unwrap_or(nvcc));
    let below = |dir: &Path| find(&dir.join("bin/nvcc"));
    if let Some(nvcc) = &env.gpu.cudacxx {
        return match find(nvcc) {
            Some(nvcc) => Ok(nvcc),
            None => fail(format!("{}={} is not there", env::CUDACXX, nvcc.display())),
        };
    }
    if let Some(dir) = &env.gpu.cuda_path {
        return match below(dir) {
            Some(nvcc) => Ok(nvcc),
            None => fail(format!("{}={} has no bin/nvcc", env::CUDA_PATH, dir.display())),
        };
    }
    match find("nvcc".as_ref()).or_else(|| below(&env.gpu.cuda_default)) {
        Some(nvcc) => Ok(nvcc),
        None => fail(format!(
            "there is no nvcc on PATH and none in {}; {} and {} are not set",
            env.gpu.cuda_default.join("bin").display(),
            env::CUDA_PATH,
            env::CUDACXX
        )),
    }
}

fn check_cuda(env: &Env) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let nvcc = find_nvcc(env)?;
    if let Some(list) = &env.gpu.cuda_architectures {
        check_architectures(list)?;
    }

    // Preprocessing shows three things at once: nvcc runs and takes the host compiler, the headers are there, and
    // which GPUs "native" means.
    let native = env.gpu.native(env);
    let file = env.cache.dir.join(format!("probe-{}.cu", std::process::id()));
    let show = |e: std::io::Error| {
        format!("{}: {e}: set {} to a folder that can be written", file.display(), env::CACHE_DIR)
    };
    fs::create_dir_all(&env.cache.dir).map_err(show)?;
    fs::write(
        &file,
        "#include <cuda_runtime.h>\n#include <cublas_v2.h>\ntq_architectures __CUDA_ARCH_LIST__\n",
    )
    .map_err(show)?;
    let mut probe = Command::new(&nvcc);
    probe.env("PATH", &env.path).arg("-E").arg(&file);
    if native {
        probe.arg("-arch=native");
    }
    if let Some(host) = &env.gpu.cuda_host {
        probe.arg("-ccbin").arg(host);
    }
    let output = probe.output();
    let _ = fs::remove_file(&file);
    let output = output.map_err(|e| {
        missing(
            Backend::Cuda,
            &format!("{} does not run: {e}", nvcc.display()),
            &format!(
                "Repair the CUDA toolkit, or name another: {}=<its folder> or {}=<path of nvcc>",
                env::CUDA_PATH,
                env::CUDACXX
            ),
        )
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    if !output.status.success() {
        let what = format!(
            "{} cannot preprocess a file that includes cuda_runtime.h and cublas_v2.h; it says:\n{said}",
            nvcc.display()
        );
        let way_out = format!(
            "If a header is missing, install the whole CUDA toolkit with cuBLAS, or name another: {}=<its folder>. \
             If the host compiler is refused, name one that nvcc takes: {}=<g++ or clang++>. If \"native\" is \
             refused, say what to build for: {}=<90, for example>",
            env::CUDA_PATH,
            env::CUDAHOSTCXX,
            env::CUDA_ARCHITECTURES
        );
        return Err(missing(Backend::Cuda, &what, &way_out));
    }
    if native && said.contains("Cannot find valid GPU") {
        let what = format!("it is to be for this machine's GPU, and {} finds none", nvcc.display());
        let way_out = format!(
            "Say which GPUs to build for: {}=<90, or a list such as \"80;89;90\">, or {}=0 for all usual ones",
            env::CUDA_ARCHITECTURES,
            env::NATIVE
        );
        return Err(missing(Backend::Cuda, &what, &way_out));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let architectures = text.lines().find(|l| l.starts_with("tq_architectures")).unwrap_or("");
    let version = Command::new(&nvcc).arg("--version").env("PATH", &env.path).output();
    let version = version.map(|o| o.stdout).unwrap_or_default();
    let mut key = vec![("nvcc", version)];
    if native {
        key.push(("architectures", architectures.as_bytes().to_vec()));
    }
    Ok(key)
}

/// As CMAKE_CUDA_ARCHITECTURES takes them.
fn check_architectures(list: &str) -> Result<()> {
    let good = |item: &str| {
        if ["native", "all", "all-major"].contains(&item) {
            return true;
        }
        let item = item.strip_suffix("-real").or(item.strip_suffix("-virtual")).unwrap_or(item);
        let number = item.strip_suffix(['a', 'f']).unwrap_or(item);
        (2..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit())
    };
    match list.split(';').find(|item| !good(item)) {
        None => Ok(()),
        Some(item) => Err(format!(
            "{}={list:?}: {item:?} is no architecture. It is native, all, all-major, or a list with \";\" between of \
             numbers such as 86, 90, 90a-real or 80-virtual",
            env::CUDA_ARCHITECTURES
        )),
    }
}

/// What of the headers ggml-vulkan.cpp cannot do without is from this version on (VK_EXT_layer_settings).
const VULKAN_HEADERS: u32 = 272;

fn check_vulkan(env: &Env) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut gone = Vec::new();
    let compiler = driver::compilers(env)?.cxx;
    let sdk = env.gpu.vulkan_sdk.as_deref();
    let mut include = Vec::new();
    if let Some(sdk) = sdk {
        include.push(format!("-I{}", sdk.join("include").display()));
    }
    let finds = |text: &str| {
        let mut args = vec!["-E".to_string()];
        args.extend(include.iter().cloned());
        args.extend(["-x", "c++", "-"].map(String::from));
        cmake::probe(env, &compiler, &args, text)
    };
    // It goes on from 1.3 to 1.4; the version with both has casts, which no condition takes.
    let headers = format!(
        "#include <vulkan/vulkan.hpp>\n#if VK_HEADER_VERSION < {VULKAN_HEADERS}\n#error\n#endif\n"
    );
    if !finds("#include <vulkan/vulkan.hpp>\n") {
        gone.push("the headers of Vulkan (vulkan/vulkan.hpp)".to_string());
    } else if !finds(&headers) {
        gone.push(format!(
            "headers of Vulkan 1.3.{VULKAN_HEADERS} or newer (those there are older)"
        ));
    }
    if !finds("#include <spirv/unified1/spirv.hpp>\n") {
        gone.push("the headers of SPIR-V (spirv/unified1/spirv.hpp)".into());
    }

    let mut args: Vec<String> = ["-x", "c++", "-", "-o"].map(String::from).into();
    let program = env.cache.dir.join(format!("probe-{}", std::process::id()));
    let _ = fs::create_dir_all(&env.cache.dir);
    args.push(program.display().to_string());
    if let Some(sdk) = sdk {
        args.push(format!("-L{}", sdk.join("lib").display()));
    }
    args.push("-lvulkan".into());
    if !cmake::probe(env, &compiler, &args, "int main() { return 0; }\n") {
        gone.push("the loader's library (-lvulkan)".into());
    }
    let _ = fs::remove_file(program);

    let glslc = sdk.and_then(|sdk| env.find(sdk.join("bin/glslc"))).or_else(|| env.find("glslc"));
    if glslc.is_none() {
        gone.push("the shader compiler glslc".into());
    }
    let Some(glslc) = glslc.filter(|_| gone.is_empty()) else {
        let sdk = match sdk {
            Some(sdk) => format!("in {}={}", env::VULKAN_SDK, sdk.display()),
            None => format!("without {}, which is not set", env::VULKAN_SDK),
        };
        let what = format!(
            "missing: {}. It was looked for {sdk}, with {}, and on PATH",
            gone.join("; "),
            compiler.path.display()
        );
        let way_out = format!(
            "Install what is missing (Debian 13, Ubuntu 24.04 and newer: libvulkan-dev glslc spirv-headers), or \
             LunarG's Vulkan SDK and set {}=<its folder for this architecture>",
            env::VULKAN_SDK
        );
        return Err(missing(Backend::Vulkan, &what, &way_out));
    };
    let version = Command::new(&glslc).arg("--version").env("PATH", &env.path).output();
    Ok(vec![("glslc", version.map(|o| o.stdout).unwrap_or_default())])
}
