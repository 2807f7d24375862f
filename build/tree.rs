//! An edited llama.cpp and its build, in a folder of the cache that is named by its key.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::edit::{self, EditFile};
use super::env::{self, Env};
use super::pin::Pin;
use super::{Result, cmake, fetch, key, overlay};

/// `<cache>/build/<key>/{src,build}`.
pub struct Tree {
    pub dir: PathBuf,
    /// The edited source.
    pub src: PathBuf,
    /// CMake's build folder.
    pub out: PathBuf,
    /// There as long as the tree is.
    pub built: PathBuf,
    /// Keeps the tree from being removed.
    _in_use: File,
}

impl Tree {
    /// The tree for this environment, built if it is not there yet. A tree that is there is not
    /// touched. Cargo processes that want the same tree wait for each other. After a build, trees that were not used
    /// for long are removed, as far as the limit wants it.
    pub fn build(env: &Env, pin: &Pin) -> Result<Self> {
        let found = key::of(env, pin)?;
        let (key, options, cache) = (found.key, found.options, &env.cache);
        let dir = cache.tree(&key);
        let tree = Self {
            src: dir.join("src"),
            out: dir.join("build"),
            built: cache.built(&key),
            _in_use: cache.share(&Cache::use_lock(&key))?,
            dir,
        };
        let show = |e| {
            let dir = tree.dir.display();
            format!("{dir}: {e}: set {} to a folder that can be written", env::CACHE_DIR)
        };
        fs::create_dir_all(&tree.dir).map_err(show)?;
        cache.touch(&key)?;
        if tree.built.is_file() {
            return Ok(tree);
        }

        let lock = cache.lock(&Cache::build_lock(&key))?;
        if tree.built.is_file() {
            return Ok(tree);
        }
        if !tree.src.is_dir() {
            let edits = overlay::read(&env.root)?;
            let from = make_source(env, pin, &edits, &tree.src)?;
            // For tests that compare the two.
            fs::write(tree.dir.join("source"), from.as_os_str().as_encoded_bytes())
                .map_err(show)?;
        }
        cmake::build(env, pin, &found.cmake, options, &tree.src, &tree.dir, &lock)?;
        cache.set_built(&key)?;
        drop(lock);
        cache.touch(&key)?;
        for gone in cache.trim(env.cache_limit)? {
            let (name, mb) = (gone.name, gone.bytes / 1_000_000);
            eprintln!(
                "removed {name} from the cache ({mb} MB, {} says how much it may hold)",
                env::CACHE_LIMIT
            );
        }
        Ok(tree)
    }
}

/// Copies the source to `src` and applies the edits. `src` appears whole or not at all. Returns what it is a copy of.
pub fn make_source(env: &Env, pin: &Pin, edits: &[EditFile], src: &Path) -> Result<PathBuf> {
    let source = fetch::source(env, pin)?;
    let tmp = src.with_extension("tmp");
    let _ = fs::remove_dir_all(&tmp);
    copy_tree(&source.dir, &tmp).map_err(|e| format!("copying {}: {e}", source.dir.display()))?;
    let ext = env.root.join(overlay::FOLDER);
    edit::apply_all(&tmp, edits, &pin.order(), &|from| fs::read(ext.join(from))).map_err(|e| {
        let (found, else_) = match &env.llama_src {
            Some(dir) => (format!("{} ({})", dir.display(), env::LLAMA_SRC), ", which is the nearest to it"),
            None => (format!("the pin, {}", pin.describe()), ""),
        };
        format!(
            "llama.cpp cannot be edited: vendor/edits: {e}\n\
             The edits are those for {}{else_}, and were applied to {found}. If upstream moved the code, \
             move the anchor or give the edit a variant (vendor/README.md); otherwise unset {}.",
            pin.describe(),
            env::LLAMA_SRC
        )
    })?;
    fs::rename(&tmp, src).map_err(|e| format!("{}: {e}", src.display()))?;
    Ok(source.dir)
}

/// Copies the files of a folder, without .git.
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
