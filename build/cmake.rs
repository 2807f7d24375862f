//! Configures and builds the edited llama.cpp: static libraries, always Release.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cache;
use super::driver::{self, Build, Compiler, Compilers, Flags, Task};
use super::env::{self, Env};
use super::pin::Pin;
use super::{Result, gpu};

/// What is built: with it, all libraries that it is linked with. The tq_* symbols stay undefined.
const LIBRARIES: &str = "turboquant-main";

/// The options that decide what is built; part of the cache's key. None: no compilers were found.
pub fn options(env: &Env, compilers: Option<&Compilers>) -> Vec<String> {
    let on = |b| if b { "ON" } else { "OFF" };
    // With a toolchain file the compiler is CMake's to find, and so are the headers.
    let known = env.toolchain().is_none();
    let openssl = !known || compilers.is_some_and(|found| has_openssl(env, &found.cxx));
    let mut options = vec![
        "CMAKE_BUILD_TYPE=Release".to_string(),
        "BUILD_SHARED_LIBS=OFF".into(),
        format!("GGML_NATIVE={}", on(env.is_native())),
        "GGML_CCACHE=OFF".into(), // launched by us, see `launcher`
        "LLAMA_BUILD_TESTS=OFF".into(),
        "LLAMA_BUILD_EXAMPLES=OFF".into(),
        "LLAMA_BUILD_APP=OFF".into(),
        // The Rust core is in the crate that the archives are linked into.
        "TURBOQUANT_LIB:STRING=OFF".into(),
        // The server's web page would be built by npm or downloaded.
        "LLAMA_BUILD_UI=OFF".into(),
        "LLAMA_USE_PREBUILT_UI=OFF".into(),
        format!("LLAMA_OPENSSL={}", on(openssl)),
        // Where the compiler sees it and CMake does not, that is an error and not a tool without HTTPS.
        format!("CMAKE_REQUIRE_FIND_PACKAGE_OpenSSL={}", on(known && openssl)),
        // Relative includes in generated sources (CMake 4): ccache then hits across trees.
        "CMAKE_UNITY_BUILD_RELOCATABLE=ON".into(),
    ];
    options.extend(gpu::options(env));
    options.extend(env.cmake_args.iter().cloned());
    options
}

/// Whether the compiler finds the headers of OpenSSL 3: without them the tools are built without HTTPS.
fn has_openssl(env: &Env, compiler: &Compiler) -> bool {
    const PROBE: &str =
        "#include <openssl/ssl.h>\n#if OPENSSL_VERSION_NUMBER < 0x30000000L\n#error\n#endif\n";
    probe(env, compiler, &["-E", "-x", "c++", "-"], PROBE)
}

/// Whether the C++ compiler takes `text` with these arguments.
pub fn probe(env: &Env, compiler: &Compiler, args: &[impl AsRef<OsStr>], text: &str) -> bool {
    let Some(path) = env.find(&compiler.path) else { return false };
    let probe = env
        .command(path)
        .args(&compiler.args)
        .args(args)
        .envs(compiler.env.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut probe) = probe else { return false };
    // A compiler that ends without reading it has said what it has to say.
    let _ = probe.stdin.take().map(|mut input| input.write_all(text.as_bytes()));
    probe.wait().is_ok_and(|status| status.success())
}

/// Configures `src` with these [`options`] and builds it, in the folder `build` of the tree.
///
/// `lock` is open in what runs, as its input: if this process is killed and compilers go on, so does the lock.
pub fn build(
    env: &Env,
    pin: &Pin,
    cmake: &Cmake,
    options: Vec<String>,
    src: &Path,
    tree: &Path,
    lock: &File,
) -> Result<()> {
    let mut defines = Vec::new();
    let mut define = |name: &str, value: &dyn Display| defines.push(format!("{name}={value}"));
    let chosen = env.of_target("CMAKE_GENERATOR").is_some() || env.target.env == "msvc";
    let ninja = cmake.ninja.as_ref().filter(|_| !chosen);
    if let Some(ninja) = ninja {
        define("CMAKE_MAKE_PROGRAM", &ninja.display());
    }
    let server = src.join("tools/server/server-context.cpp").is_file();
    define("LLAMA_BUILD_SERVER", &if server { "ON" } else { "OFF" });
    // The copy has no history to ask for these.
    define("LLAMA_BUILD_COMMIT", &pin.commit);
    define("LLAMA_BUILD_NUMBER", &0);
    // Also if there is none: a build that goes on with a tree may find ccache gone.
    let ccache = env.find("ccache").unwrap_or_default();
    let cuda = env.gpu.backends.contains(&gpu::Backend::Cuda).then_some("CUDA");
    for language in ["C", "CXX"].into_iter().chain(cuda) {
        define(&format!("CMAKE_{language}_COMPILER_LAUNCHER"), &ccache.display());
    }
    defines.extend(options); // the user's are the last ones
    let task = Task::Build(Build {
        src: src.into(),
        dir: tree.into(),
        target: LIBRARIES.into(),
        options: defines.iter().filter_map(|define| named(define)).collect(),
        generator: ninja.map(|_| "Ninja".into()),
        flags: Flags::of(env),
    });

    let mut command = driver::command(env, &task)?;
    command.env(format!("CMAKE_{}", env.target.triple), &cmake.cmake);
    // Trees differ only in the name of their folder: without it ccache hits across them.
    command.env("CCACHE_BASEDIR", tree).env("CCACHE_NOHASHDIR", "1");
    let what = match env.gpu.backends.as_slice() {
        [] => "building llama.cpp (minutes, once)".to_string(),
        gpus => {
            let names: Vec<_> = gpus.iter().map(|b| b.feature()).collect();
            format!("building llama.cpp with {} (long, once)", names.join(" and "))
        }
    };
    run(command, &tree.join("build.log"), &what, lock)
}

/// Name and value of an option. CMake takes a type after the name; the crate `cmake` does not know the name by it.
fn named(option: &str) -> Option<(String, String)> {
    let (name, value) = option.split_once('=')?;
    let known = name.split_once(':').filter(|(name, _)| name.starts_with("CMAKE_"));
    Some((known.map_or(name, |(name, _)| name).into(), value.into()))
}

/// A cmake that works, and ninja if there is one.
#[derive(Debug)]
pub struct Cmake {
    pub cmake: PathBuf,
    pub ninja: Option<PathBuf>,
    /// What `--version` prints.
    pub version: Vec<u8>,
    /// Keeps that of the cache from being removed or replaced.
    _lock: Option<File>,
}

/// Finds cmake: TQ_CMAKE, PATH, or PyPI's in a folder of the cache, installed there if need be.
pub fn find(env: &Env) -> Result<Cmake> {
    let own = match &env.cmake {
        Some(cmake) => Some(
            env.find(cmake)
                .ok_or_else(|| format!("{}={} does not exist", env::CMAKE, cmake.display()))?,
        ),
        None => env.find("cmake"),
    };
    if let Some(cmake) = own {
        let version = version(env, &cmake).map_err(|why| {
            format!(
                "{} does not work: {why}\nRepair it, or set {}=<path of another>",
                cmake.display(),
                env::CMAKE
            )
        })?;
        return Ok(Cmake { cmake, ninja: env.find("ninja"), version, _lock: None });
    }
    let venv = env.cache.cmake();
    let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let exe = |name: &str| bin.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let ready = venv.join(cache::READY);
    // One that stopped working, such as with a Python that is gone, is made anew.
    let works = || ready.is_file() && version(env, &exe("cmake")).is_ok();
    let lock = env.cache.obtain("cmake", works, || install(env, &venv, &exe("cmake")))?;
    let version = version(env, &exe("cmake"))?;
    let ninja = Some(exe("ninja")).filter(|ninja| ninja.is_file());
    Ok(Cmake { cmake: exe("cmake"), ninja, version, _lock: Some(lock) })
}

/// What `cmake --version` prints. Errors: why it does not run.
fn version(env: &Env, cmake: &Path) -> Result<Vec<u8>> {
    let output = Command::new(cmake).arg("--version").env("PATH", &env.path).output();
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(format!(
            "--version ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(e) => Err(e.to_string()),
    }
}

/// Installs cmake and ninja from PyPI into a new virtual environment, which is complete once it has the file
/// [`cache::READY`]: programs of an environment know its path, so it cannot be made elsewhere and renamed.
fn install(env: &Env, venv: &Path, cmake: &Path) -> Result<()> {
    let way_out = format!("install cmake 3.14 or newer, or set {}=<path of cmake>", env::CMAKE);
    let python = env.find("python3").or_else(|| env.find("python")).ok_or_else(|| {
        format!("cmake is not on PATH, and there is no python3 to get it with: {way_out}")
    })?;
    eprintln!("cmake is not on PATH: installing it into {}", venv.display());
    let failed = |why: String| {
        let _ = fs::remove_dir_all(venv);
        Err(format!(
            "cmake is not on PATH, and installing it with pip failed (no network?): {way_out}\n{why}"
        ))
    };
    // Nobody else is at it: what is there is incomplete, or does not work.
    if let Err(e) = fs::remove_dir_all(venv)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return failed(format!("{}: {e}", venv.display()));
    }
    let bin = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let mut create = Command::new(&python);
    create.args(["-m", "venv"]).arg(venv);
    let mut install = Command::new(bin.join("python"));
    install.args(["-m", "pip", "install", "--quiet", "cmake", "ninja"]);
    for mut command in [create, install] {
        match command.env("PATH", &env.path).output() {
            Err(e) => return failed(e.to_string()),
            Ok(o) if !o.status.success() => {
                return failed(String::from_utf8_lossy(&o.stderr).trim().to_string());
            }
            Ok(_) => {}
        }
    }
    if let Err(why) = version(env, cmake) {
        return failed(why);
    }
    let ready = venv.join(cache::READY);
    fs::write(&ready, "").map_err(|e| format!("{}: {e}", ready.display()))
}

/// Runs a command with its output in a log, whose end is shown when it fails.
fn run(mut command: Command, log: &Path, what: &str, lock: &File) -> Result<()> {
    eprintln!("{what}");
    let show = |e: std::io::Error| format!("{}: {e}", log.display());
    let file = File::create(log).map_err(show)?;
    command.stderr(file.try_clone().map_err(show)?).stdout(file);
    command.stdin(lock.try_clone().map_err(show)?); // an empty file
    let status =
        command.status().map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).map_err(show)?;
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    Err(format!("{what} failed ({status}). The end of {}:\n{end}", log.display()))
}
