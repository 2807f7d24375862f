//! What the build script says when something is missing or wrong: one message, with the way out.
#[allow(dead_code, unused_imports)]
#[path = "../build/mod.rs"]
mod build;
#[path = "build_script/cache.rs"]
mod cached;
#[path = "build_script/compilers.rs"]
mod compilers;
#[path = "build_script/overlay.rs"]
mod overlaid;
#[path = "build_script/pins.rs"]
mod pinned;
#[path = "build_script/scripts.rs"]
mod scripts;
#[path = "build_script/upstream.rs"]
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use build::cache::{self, Cache};
use build::env::Env;
use build::gpu::{Backend, Settings};
use build::pin::{Package, Pin, Pins, Registry};
use build::target::Target;
use build::{cmake, driver, edit_file, env, fetch, gpu, link, tree};
use sha2::{Digest, Sha256};

/// An environment of its own: an empty cache, nothing on PATH.
struct Bench {
    dir: tempfile::TempDir,
    env: Env,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let env = Env {
            root: env!("CARGO_MANIFEST_DIR").into(),
            llama_src: None,
            llama_pin: None,
            llama_sdist: None,
            cache: Cache::new(dir.path().join("cache")),
            cache_limit: cache::DEFAULT_LIMIT,
            cmake: None,
            native: true,
            target: this_machine(),
            driver: vec![
                std::env::current_exe().unwrap().into(),
                "performs_a_task".into(),
                "--exact".into(),
                "--nocapture".into(),
            ],
            cargo: "cargo".into(),
            path: bin.into(),
            jobs: "1".into(),
            cmake_args: Vec::new(),
            gpu: Settings::default(),
            reaching: BTreeMap::new(),
        };
        Self { dir, env }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its environment with these variables set.
    fn with<'a>(&self, vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Env {
        self.with_target(self.env.target.clone(), vars)
    }

    /// The same, to build for this target.
    fn with_target<'a>(
        &self,
        target: Target,
        vars: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Env {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        Env { reaching: env::reaching(vars, &target), target, ..self.env.clone() }
    }

    /// Puts a program on PATH that prints `text` and exits with `code`.
    #[cfg(unix)]
    fn program(&self, name: &str, text: &str, code: i32) {
        self.script(name, &format!("echo '{text}' >&2\nexit {code}"));
    }

    /// Puts a shell script on PATH.
    #[cfg(unix)]
    fn script(&self, name: &str, text: &str) {
        // By a process of its own: a file that is open for writing cannot be run, and any child of another test's
        // thread has our open files until it is what it runs.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", write])
            .arg(self.path("bin").join(name))
            .arg(text)
            .status();
        assert!(status.unwrap().success());
    }
}

/// The options of CMake with the compilers that are on PATH, if they are.
fn options(env: &Env) -> Vec<String> {
    cmake::options(env, driver::compilers(env).ok().as_ref())
}

/// A target that is the host.
fn this_machine() -> Target {
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let rest = if os == "macos" { "apple-darwin" } else { "unknown-linux-gnu" };
    let triple = format!("{arch}-{rest}");
    Target {
        host: triple.clone(),
        triple,
        os: os.into(),
        arch: arch.into(),
        env: if os == "macos" { "" } else { "gnu" }.into(),
        unix: cfg!(unix),
    }
}

/// What the build script's program does when it is run again: this program, with the name of this test.
#[test]
fn performs_a_task() {
    if let Some(task) = env::task() {
        build::driver::perform(&task);
    }
}

fn pins() -> Pins {
    Pins::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/llama.cpp.toml")).unwrap()
}

/// The one from PyPI.
fn pin() -> Pin {
    pins().get("0.25.3").unwrap().clone()
}

/// A .tar.gz with the given files, and its SHA-256.
fn archive(path: &Path, files: &[(&str, &str)]) -> String {
    let gz =
        flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    format!("{:x}", Sha256::digest(fs::read(path).unwrap()))
}

fn small_pin(sha256: String) -> Pin {
    let source = Package {
        registry: Registry::Pypi,
        package: "p".into(),
        version: "1".into(),
        file: "p-1.tar.gz".into(),
        sha256,
        folder: "p-1/vendor/x".into(),
    };
    Pin { source, ..pin() }
}

#[test]
fn the_pins_are_complete() {
    for pin in pins().all() {
        assert_eq!(pin.source.sha256.len(), 64);
    }
    let of = |name| pins().get(name).unwrap().requirement();
    assert_eq!(of("0.25.3"), "llama-cpp-python==0.3.36");
    assert_eq!(of("b12032"), "llama-cpp-sys-4@0.11.0");
}

#[test]
fn only_the_folder_is_extracted_and_the_hash_is_checked() {
    let bench = Bench::new();
    let file = bench.path("p-1.tar.gz");
    let hash = archive(&file, &[("p-1/vendor/x/a/b.c", "int b;"), ("p-1/other", "-")]);

    let good = small_pin(hash.clone());
    fetch::extract(&file, &good, &bench.path("good")).unwrap();
    assert_eq!(fs::read_to_string(bench.path("good/a/b.c")).unwrap(), "int b;");
    assert_eq!(fs::read_dir(bench.path("good")).unwrap().count(), 1);

    let wrong = "0".repeat(64);
    let error = fetch::extract(&file, &small_pin(wrong.clone()), &bench.path("bad")).unwrap_err();
    for part in [&hash, &wrong, "vendor/llama.cpp.toml", "fetch it again"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    let left: Vec<_> =
        fs::read_dir(bench.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with("bad")), "{left:?}");
}

#[test]
fn a_truncated_archive_is_a_wrong_hash() {
    let bench = Bench::new();
    let file = bench.path("p-1.tar.gz");
    let hash = archive(&file, &[("p-1/vendor/x/a", &"text ".repeat(1000))]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = fetch::extract(&file, &small_pin(hash), &bench.path("to")).unwrap_err();
    assert!(error.contains("SHA-256"), "{error}");
}

#[test]
fn missing_python_names_three_ways_out() {
    let bench = Bench::new();
    let error = fetch::source(&bench.env, &pin()).unwrap_err();
    for part in ["python3", "TQ_LLAMA_SDIST", "TQ_LLAMA_SRC", "llama-cpp-python"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
#[cfg(unix)]
fn missing_network_shows_what_pip_said() {
    let bench = Bench::new();
    bench.program("python3", "no route to host", 1);
    let error = fetch::source(&bench.env, &pin()).unwrap_err();
    for part in ["no route to host", "TQ_LLAMA_SDIST"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_folder_that_is_not_llama_cpp_is_refused() {
    let bench = Bench::new();
    let env = Env { llama_src: Some(bench.path("bin")), ..bench.env.clone() };
    let error = fetch::source(&env, &pin()).unwrap_err();
    assert!(
        error.contains("TQ_LLAMA_SRC") && error.contains("not a llama.cpp checkout"),
        "{error}"
    );
}

#[test]
fn missing_cmake_and_python() {
    let bench = Bench::new();
    let error = cmake::find(&bench.env).unwrap_err();
    assert!(error.contains("cmake is not on PATH") && error.contains("TQ_CMAKE"), "{error}");
    let env = Env { cmake: Some(bench.path("nowhere/cmake")), ..bench.env.clone() };
    let error = cmake::find(&env).unwrap_err();
    assert!(error.contains("TQ_CMAKE") && error.contains("does not exist"), "{error}");
}

#[test]
#[cfg(unix)]
fn missing_cmake_and_network() {
    let bench = Bench::new();
    bench.program("python3", "no route to host", 1);
    let error = cmake::find(&bench.env).unwrap_err();
    assert!(error.contains("no route to host") && error.contains("install cmake 3.14"), "{error}");
}

#[test]
#[cfg(unix)]
fn openssl_is_what_the_compiler_says() {
    let bench = Bench::new();
    let option =
        |env: &Env| options(env).into_iter().find(|o| o.starts_with("LLAMA_OPENSSL=")).unwrap();
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=OFF", "no compiler");
    bench.program("c++", "no such header", 1);
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=OFF", "no header");
    bench.program("c++", "", 0);
    assert_eq!(option(&bench.env), "LLAMA_OPENSSL=ON");
}

#[test]
fn missing_compiler() {
    let bench = Bench::new();
    let error = tree::Tree::build(&bench.env, &pin()).err().unwrap();
    for part in ["no C++ compiler", "CXX", "--no-default-features"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// With this feature on, and no toolkit where one is looked for by default.
fn with_gpu(bench: &Bench, backend: Backend) -> Env {
    let gpu = Settings {
        backends: vec![backend],
        cuda_default: bench.path("usr-local-cuda"),
        ..Settings::default()
    };
    Env { gpu, ..bench.env.clone() }
}

/// One message, with the feature in it, these parts, and that it works without.
#[track_caller]
fn assert_missing(error: &str, backend: Backend, parts: &[&str]) {
    let feature = backend.feature();
    let frame = [
        format!("the feature {feature} cannot be built: "),
        format!("Without the feature {feature} everything builds and runs on the CPU"),
    ];
    for part in parts.iter().copied().chain(frame.iter().map(String::as_str)) {
        assert_eq!(error.matches(part).count(), 1, "{part:?} is not in, once: {error:?}");
    }
}

#[test]
fn features_are_read_from_cargo() {
    let read = |vars: &[(&str, &str)]| {
        Settings::read(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    };
    assert_eq!(read(&[("CARGO_FEATURE_LLAMA", "1")]).backends, []);
    let gpu = read(&[
        ("CARGO_FEATURE_CUDA", "1"),
        ("CARGO_FEATURE_VULKAN", "1"),
        ("TQ_CUDA_ARCHITECTURES", "86;90"),
    ]);
    assert_eq!(gpu.backends, [Backend::Cuda, Backend::Vulkan]);
    assert_eq!(gpu.cuda_architectures.as_deref(), Some("86;90"));
}

#[test]
fn missing_nvcc_says_where_it_was_looked_for() {
    let bench = Bench::new();
    let env = with_gpu(&bench, Backend::Cuda);
    let default = bench.path("usr-local-cuda/bin").display().to_string();
    let error = gpu::check(&env).unwrap_err();
    let ways = ["CUDA_PATH=<", "CUDACXX=<"];
    assert_missing(&error, Backend::Cuda, &[&["no nvcc on PATH", &default], &ways[..]].concat());

    for (name, value) in [("CUDACXX", "nowhere/nvcc"), ("CUDA_PATH", "nowhere")] {
        let value = bench.path(value);
        let mut env = env.clone();
        let field = if name == "CUDACXX" { &mut env.gpu.cudacxx } else { &mut env.gpu.cuda_path };
        *field = Some(value.clone());
        let error = gpu::check(&env).unwrap_err();
        let named = format!("{name}={}", value.display());
        assert_missing(&error, Backend::Cuda, &[&[named.as_str()], &ways[..]].concat());
    }
}

#[test]
#[cfg(unix)]
fn nothing_is_built_or_fetched_where_nvcc_is_missing() {
    let bench = Bench::new();
    for name in ["cc", "c++"] {
        bench.program(name, "", 0);
    }
    let error = tree::Tree::build(&with_gpu(&bench, Backend::Cuda), &pin()).err().unwrap();
    assert_missing(&error, Backend::Cuda, &["no nvcc on PATH"]);
    assert!(!bench.path("cache").exists());
}

#[test]
#[cfg(unix)]
fn nvcc_that_fails_shows_what_it_said() {
    let bench = Bench::new();
    bench.program("nvcc", "cublas_v2.h: No such file", 1);
    let error = gpu::check(&with_gpu(&bench, Backend::Cuda)).unwrap_err();
    assert_missing(
        &error,
        Backend::Cuda,
        &["cublas_v2.h: No such file", "CUDAHOSTCXX=<", "TQ_CUDA_ARCHITECTURES=<"],
    );
    assert_eq!(fs::read_dir(bench.path("cache")).unwrap().count(), 0, "the probe is removed");
}

#[test]
#[cfg(unix)]
fn no_gpu_to_build_for() {
    let bench = Bench::new();
    bench.program(
        "nvcc",
        "Cannot find valid GPU for '\''-arch=native'\'', default arch is used",
        0,
    );
    let mut env = with_gpu(&bench, Backend::Cuda);
    let error = gpu::check(&env).unwrap_err();
    assert_missing(
        &error,
        Backend::Cuda,
        &["finds none", "TQ_CUDA_ARCHITECTURES=<", "TQ_NATIVE=0"],
    );

    env.gpu.cuda_architectures = Some("80-virtual;90a".into());
    gpu::check(&env).unwrap();
    let options = options(&env);
    for option in ["GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=80-virtual;90a"] {
        assert!(options.iter().any(|o| o == option), "{option} is not in {options:?}");
    }
    let nvcc = format!("CMAKE_CUDA_COMPILER={}", bench.path("bin/nvcc").display());
    assert!(options.contains(&nvcc), "{nvcc} is not in {options:?}");

    env.gpu.cuda_architectures = Some("sm_90".into());
    let error = gpu::check(&env).unwrap_err();
    assert!(
        error.contains("TQ_CUDA_ARCHITECTURES=\"sm_90\"") && error.contains("80-virtual"),
        "{error}"
    );
}

#[test]
#[cfg(unix)]
fn missing_parts_of_vulkan_are_named_together() {
    let bench = Bench::new();
    bench.program("c++", "no such file", 1);
    let mut env = with_gpu(&bench, Backend::Vulkan);
    let parts =
        ["vulkan/vulkan.hpp", "spirv/unified1/spirv.hpp", "-lvulkan", "shader compiler glslc"];
    let error = gpu::check(&env).unwrap_err();
    assert_missing(
        &error,
        Backend::Vulkan,
        &[&parts[..], &["VULKAN_SDK, which is not set"]].concat(),
    );

    bench.program("c++", "", 0);
    let error = gpu::check(&env).unwrap_err();
    assert_missing(&error, Backend::Vulkan, &["missing: the shader compiler glslc."]);
    fs::create_dir_all(bench.path("sdk/bin")).unwrap();
    env.gpu.vulkan_sdk = Some(bench.path("sdk"));
    let error = gpu::check(&env).unwrap_err();
    let sdk = format!("in VULKAN_SDK={}", bench.path("sdk").display());
    assert_missing(&error, Backend::Vulkan, &[&sdk]);

    bench.program("glslc", "", 0);
    gpu::check(&env).unwrap();
    assert!(options(&env).iter().any(|o| o == "GGML_VULKAN=ON"));
}

#[test]
fn metal_is_for_macos() {
    let bench = Bench::new();
    let result = gpu::check(&with_gpu(&bench, Backend::Metal));
    if cfg!(target_os = "macos") {
        result.unwrap();
    } else {
        let this = format!("this is {}", std::env::consts::OS);
        assert_missing(&result.unwrap_err(), Backend::Metal, &["a part of macOS", &this]);
    }
}

#[test]
fn options_of_the_user_come_last() {
    assert_eq!(env::cmake_args(" -DA=1  -DB:STRING=x=y ").unwrap(), ["A=1", "B:STRING=x=y"]);
    for bad in ["A=1", "-DA", "-D=1", "-G Ninja"] {
        let error = env::cmake_args(bad).unwrap_err();
        assert!(error.contains("TQ_CMAKE_ARGS") && error.contains("-DNAME=VALUE"), "{error}");
    }
    let bench = Bench::new();
    let env = Env { cmake_args: vec!["GGML_NATIVE=OFF".into()], ..bench.env.clone() };
    assert_eq!(options(&env).last().unwrap(), "GGML_NATIVE=OFF");
}

/// A folder with empty archives and this CMake cache.
fn built(bench: &Bench, gpu: &str, cache: &str) -> PathBuf {
    let out = bench.path("out");
    fs::create_dir_all(&out).unwrap();
    let names = "turboquant-main llama-bench-impl llama-completion-impl llama-perplexity-impl llama-cli-impl \
                 llama-server-impl server-context mtmd vendor-hash llama-ui llama-common cpp-httplib \
                 llama-common-base llama ggml ggml-cpu ggml-base";
    for name in names.split_whitespace().chain([gpu]) {
        fs::write(out.join(format!("lib{name}.a")), "").unwrap();
    }
    fs::write(out.join("CMakeCache.txt"), cache).unwrap();
    out
}

#[test]
#[cfg(target_os = "linux")]
fn cuda_links_what_cmake_found() {
    let bench = Bench::new();
    let cache = "CUDA_cublas_LIBRARY:FILEPATH=/t/lib64/libcublas.so\n\
                 CUDA_cublasLt_LIBRARY:FILEPATH=/t/lib64/libcublasLt.so.13\n\
                 CUDA_cudart_static_LIBRARY:FILEPATH=/t/lib64/libcudart_static.a\n\
                 CUDA_cuda_driver_LIBRARY:FILEPATH=/t/lib64/stubs/libcuda.so\n\
                 NCCL_LIBRARY:FILEPATH=NCCL_LIBRARY-NOTFOUND\nGGML_CUDA_NCCL:BOOL=ON\n";
    let out = built(&bench, "ggml-cuda", cache);
    let lines = link::lines(&out, &bench.env.target, &[Backend::Cuda]).unwrap();
    let libraries: Vec<_> =
        lines.iter().filter_map(|l| l.strip_prefix("rustc-link-lib=")).collect();
    let order = [
        "static:-bundle=ggml",
        "static:-bundle=ggml-cuda",
        "static:-bundle=ggml-cpu",
        "static:-bundle=ggml-base",
        "dylib=cublas",
        "dylib=cublasLt",
        "dylib=cuda",
        "static:-bundle=cudart_static",
        "rt",
        "stdc++",
        "pthread",
        "dl",
        "m",
    ];
    assert_eq!(&libraries[libraries.len() - order.len()..], order);
    for line in ["rustc-link-search=native=/t/lib64/stubs", "rustc-link-arg=-Wl,-rpath,/t/lib64"] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in {lines:?}");
    }

    let cpu = link::lines(&out, &bench.env.target, &[]).unwrap();
    assert!(!cpu.iter().any(|l| l.contains("cu")), "{cpu:?}");

    let without = cache.replace("/t/lib64/stubs/libcuda.so", "CUDA_cuda_driver_LIBRARY-NOTFOUND");
    built(&bench, "ggml-cuda", &without);
    let error = link::lines(&out, &bench.env.target, &[Backend::Cuda]).unwrap_err();
    assert!(
        error.contains("CUDA_cuda_driver_LIBRARY") && error.contains("TQ_CMAKE_ARGS"),
        "{error}"
    );
    built(&bench, "ggml-cuda", &(without + "GGML_CUDA_NO_VMM:BOOL=ON\n"));
    let lines = link::lines(&out, &bench.env.target, &[Backend::Cuda]).unwrap();
    assert!(!lines.iter().any(|l| l.ends_with("=cuda")), "{lines:?}");
}

#[test]
fn vulkan_links_what_cmake_found() {
    let bench = Bench::new();
    let out = built(&bench, "ggml-vulkan", "Vulkan_LIBRARY:FILEPATH=/v/libvulkan.so\n");
    let lines = link::lines(&out, &bench.env.target, &[Backend::Vulkan]).unwrap();
    for line in [
        "rustc-link-lib=static:-bundle=ggml-vulkan",
        "rustc-link-search=native=/v",
        "rustc-link-lib=dylib=vulkan",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in {lines:?}");
    }
    let error = link::lines(&out, &bench.env.target, &[Backend::Cuda]).unwrap_err();
    assert!(error.contains("without libggml-cuda.a"), "{error}");

    // The source of the server is not in every package.
    fs::remove_file(out.join("libllama-server-impl.a")).unwrap();
    let error = link::lines(&out, &bench.env.target, &[]).unwrap_err();
    assert!(error.contains("without libllama-server-impl.a"), "{error}");
    let cache = fs::read_to_string(out.join("CMakeCache.txt")).unwrap();
    fs::write(out.join("CMakeCache.txt"), cache + "LLAMA_BUILD_SERVER:BOOL=OFF\n").unwrap();
    let lines = link::lines(&out, &bench.env.target, &[]).unwrap();
    assert!(!lines.iter().any(|l| l.contains("server") || l.contains("llama-cli")), "{lines:?}");
}

#[test]
#[cfg(unix)]
fn a_missing_anchor_names_the_edit_the_source_and_the_pin() {
    let bench = Bench::new();
    for name in ["cc", "c++", "cmake"] {
        bench.program(name, "", 0);
    }
    let src = bench.path("src");
    fs::create_dir_all(src.join("ggml/include")).unwrap();
    fs::write(src.join("ggml/include/ggml.h"), "enum ggml_type { NOTHING };\n").unwrap();
    let env = Env { llama_src: Some(src.clone()), ..bench.env.clone() };
    let error = tree::Tree::build(&env, &pin()).err().unwrap();
    for part in ["ggml.toml", "ggml/include/ggml.h", "is missing", "TQ_LLAMA_SRC", "0c1e57098"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(fs::read_dir(&src).unwrap().count(), 1, "the user's checkout stays as it was");
}

#[test]
fn every_edit_is_listed_in_the_index() {
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor");
    let index = fs::read_to_string(vendor.join("README.md")).unwrap();
    let edits = edit_file::read_all(&vendor.join("edits")).unwrap();
    assert!(edits.len() >= 7);
    for file in &edits {
        assert!(index.contains(&file.name), "{} is not in vendor/README.md", file.name);
        assert!(file.copy.is_empty(), "{}: files to copy are in ggml-ext", file.name);
    }
}
