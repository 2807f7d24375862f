//! What names a tree in the cache: a hash of everything that decides what is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::cmake::{self, Cmake};
use super::driver::{self, Compiler};
use super::env::{self, Env};
use super::pin::Pin;
use super::{Result, gpu};

/// The key of an environment, and what was found on the way.
pub struct Key {
    /// Hexadecimal.
    pub key: String,
    /// Of [`cmake::options`].
    pub options: Vec<String>,
    pub cmake: Cmake,
}

/// Hash of all that the build depends on: pin, edits, our files, options, variables that compilers read, compilers,
/// cmake, GPU toolkits, CPU, and the user's own checkout if there is one.
pub fn of(env: &Env, pin: &Pin) -> Result<Key> {
    let mut hash = Sha256::new();
    let mut add = |what: &str, bytes: &[u8]| {
        hash.update((what.len() as u64).to_le_bytes());
        hash.update(what);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add("pin", format!("{pin:?}").as_bytes());
    for dir in ["vendor/edits", "vendor/port", "ggml-ext"] {
        let path = env.root.join(dir);
        for file in files(&path).map_err(|e| format!("{}: {e}", path.display()))? {
            let bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            add(&file.strip_prefix(&env.root).unwrap_or(&file).to_string_lossy(), &bytes);
        }
    }
    if let Some(dir) = &env.llama_src {
        for file in files(dir).map_err(|e| format!("{}={}: {e}", env::LLAMA_SRC, dir.display()))? {
            let meta = fs::metadata(&file).ok();
            let seen = meta.map(|m| (m.len(), m.modified().ok()));
            add(&file.to_string_lossy(), format!("{seen:?}").as_bytes());
        }
        println!("cargo::rerun-if-changed={}", dir.display());
    }
    let found = driver::compilers(env)?;
    let options = cmake::options(env, Some(&found));
    add("options", options.join("\n").as_bytes());
    for (name, value) in &env.reaching {
        add(&format!("env {name}"), value.as_encoded_bytes());
    }
    let target = &env.target;
    add("target", format!("{target:?}").as_bytes());
    let toolchain = env.toolchain();
    if let Some(file) = &toolchain {
        // Relative paths are CMake's business, and so is one that is not there.
        add("toolchain", &fs::read(file).unwrap_or_default());
        if file.is_file() {
            println!("cargo::rerun-if-changed={}", file.display());
        }
    }
    for compiler in [&found.c, &found.cxx] {
        add("compiler", format!("{compiler:?}").as_bytes());
        let Some(path) = env.find(&compiler.path) else {
            if toolchain.is_some() {
                continue; // it names others
            }
            return Err(no_compiler(env, compiler));
        };
        let output = env.command(&path).arg("--version").output();
        let version =
            output.map(|o| o.stdout).map_err(|e| format!("cannot run {}: {e}", path.display()))?;
        add(&path.to_string_lossy(), &version);
        // An update may leave the version as it was.
        add("program", program(&path).as_bytes());
    }
    for (what, bytes) in gpu::check(env)? {
        add(what, &bytes);
    }
    if env.is_native() {
        add("cpu", cpu().as_bytes());
    }
    // Last: it may have to be fetched, which is no use if something else is missing. A tree goes on with the cmake and
    // the generator that configured it.
    let cmake = cmake::find(env)?;
    add(&cmake.cmake.to_string_lossy(), &cmake.version);
    add("ninja", cmake.ninja.as_ref().map_or(b"no" as &[u8], |_| b"yes"));
    Ok(Key { key: format!("{:x}", hash.finalize())[..16].into(), options, cmake })
}

fn no_compiler(env: &Env, compiler: &Compiler) -> String {
    let target = &env.target;
    let name = compiler.path.display();
    let (what, way_out) = if target.is_cross() {
        let [_, cc, ..] = target.names("CC");
        let [_, cxx, ..] = target.names("CXX");
        let [_, file, ..] = target.names("CMAKE_TOOLCHAIN_FILE");
        (
            format!("no C++ compiler for {}", target.triple),
            format!("Install a gcc or clang for that target, or set {cc} and {cxx}, or {file}"),
        )
    } else {
        ("no C++ compiler".into(), "Install gcc or clang, or set CC and CXX".to_string())
    };
    format!(
        "{what}: \"{name}\" is not on PATH. {way_out}; the codec alone builds without one (--no-default-features)"
    )
}

/// Size and time of the file that is run.
fn program(path: &Path) -> String {
    let meta = path.canonicalize().and_then(fs::metadata).ok();
    format!("{:?}", meta.map(|m| (m.len(), m.modified().ok())))
}

/// What a compiler sees of this machine's CPU (-march=native).
fn cpu() -> String {
    if let Ok(text) = fs::read_to_string("/proc/cpuinfo") {
        let wanted = |l: &&str| {
            ["model name", "flags", "Features", "CPU part"].iter().any(|n| l.starts_with(n))
        };
        // One core stands for all of them.
        return text
            .split("\n\n")
            .next()
            .unwrap_or("")
            .lines()
            .filter(wanted)
            .collect::<Vec<_>>()
            .join("\n");
    }
    let output = Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// Every file at or below `path` but `.git`, sorted.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() != ".git" {
            found.extend(files(&entry.path())?);
        }
    }
    found.sort();
    Ok(found)
}
