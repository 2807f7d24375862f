//! An edited llama.cpp and its build, in a cache folder that is keyed by everything that matters.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::edit::{self, EditFile};
use super::env::{self, Env};
use super::pin::Pin;
use super::{Result, cmake, edit_file, fetch, gpu};

/// `<cache>/build/<key>/{src,out}`.
pub struct Tree {
    pub dir: PathBuf,
    /// The edited source.
    pub src: PathBuf,
    /// CMake's build folder.
    pub out: PathBuf,
}

impl Tree {
    /// The tree for this environment, built if it is not there yet. A tree that is there is not
    /// touched. Cargo processes that want the same tree wait for each other.
    pub fn build(env: &Env, pin: &Pin) -> Result<Self> {
        let edits =
            edit_file::read_all(&env.root.join("vendor/edits")).map_err(|e| e.to_string())?;
        let key = key(env)?;
        let dir = env.cache_dir.join("build").join(&key);
        let tree = Self { src: dir.join("src"), out: dir.join("out"), dir };
        let stamp = tree.dir.join("built");
        if stamp.is_file() {
            return Ok(tree);
        }

        fs::create_dir_all(&tree.dir).map_err(|e| {
            format!(
                "{}: {e}: set {} to a folder that can be written",
                tree.dir.display(),
                env::CACHE_DIR
            )
        })?;
        let show = |e| format!("{}: {e}", tree.dir.display());
        let lock = File::create(tree.dir.join("lock")).map_err(show)?;
        lock.lock().map_err(show)?; // let go when the file closes
        if stamp.is_file() {
            return Ok(tree);
        }
        if !tree.src.is_dir() {
            make_source(env, pin, &edits, &tree.src)?;
        }
        cmake::build(env, pin, &tree.src, &tree.out)?;
        fs::write(&stamp, "").map_err(show)?;
        Ok(tree)
    }
}

/// Copies the source to `src` and applies the edits. `src` appears whole or not at all.
pub fn make_source(env: &Env, pin: &Pin, edits: &[EditFile], src: &Path) -> Result<()> {
    let source = fetch::source(env, pin)?;
    let tmp = src.with_extension("tmp");
    let _ = fs::remove_dir_all(&tmp);
    copy_tree(&source, &tmp).map_err(|e| format!("copying {}: {e}", source.display()))?;
    let ext = env.root.join("ggml-ext");
    edit::apply_all(&tmp, edits, &|from| fs::read(ext.join(from))).map_err(|e| {
        let found = match &env.llama_src {
            Some(dir) => format!("{} ({})", dir.display(), env::LLAMA_SRC),
            None => format!("the pin, {}", pin.commit),
        };
        format!(
            "llama.cpp cannot be edited: vendor/edits/{e}\n\
             The edits are written for commit {}, and were applied to {found}. If upstream moved the code, \
             move the anchor; otherwise unset {}.",
            pin.commit,
            env::LLAMA_SRC
        )
    })?;
    fs::rename(&tmp, src).map_err(|e| format!("{}: {e}", src.display()))
}

/// Hash of all that the build depends on: pin, edits, our files, options, compilers, GPU toolkits, CPU, and the
/// user's own checkout if there is one.
fn key(env: &Env) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |what: &str, bytes: &[u8]| {
        hash.update((what.len() as u64).to_le_bytes());
        hash.update(what);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for dir in ["vendor/llama.cpp.toml", "vendor/edits", "ggml-ext"] {
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
    add("options", cmake::options(env).join("\n").as_bytes());
    for compiler in [&env.cc, &env.cxx] {
        let path = env.find(compiler).ok_or_else(|| {
            format!(
                "no C++ compiler: {:?} is not on PATH. Install gcc or clang, or set CC and CXX; \
                 the codec alone builds without one (--no-default-features)",
                compiler
            )
        })?;
        let output = Command::new(&path).arg("--version").output();
        let version =
            output.map(|o| o.stdout).map_err(|e| format!("cannot run {}: {e}", path.display()))?;
        add(&path.to_string_lossy(), &version);
    }
    for (what, bytes) in gpu::check(env)? {
        add(what, &bytes);
    }
    if env.native {
        add("cpu", cpu().as_bytes());
    }
    Ok(format!("{:x}", hash.finalize())[..16].into())
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

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if name == ".git" {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
