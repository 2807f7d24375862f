//! Crates, by cargo itself: what the user has set for registries, mirrors, vendored crates and networks holds here, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::Result;
use super::super::env::Env;
use super::super::pin::Pin;
use super::way_out;

/// Where cargo has a crate.
#[derive(Debug)]
pub enum Found {
    /// As the registry has it, unchecked.
    Archive(PathBuf),
    /// A folder with what `cargo vendor` made of it, unchecked.
    Vendored(PathBuf),
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// `.cargo-checksum.json` of a vendored crate.
#[derive(Deserialize)]
struct Checksums {
    /// Of the archive.
    package: Option<String>,
    /// By path inside the crate.
    files: BTreeMap<String, String>,
}

/// Has cargo get the crate, as a dependency of a package that is made in the folder `work`. Nothing of it is compiled.
pub fn obtain(env: &Env, pin: &Pin, work: &Path) -> Result<Found> {
    let way_out = way_out(pin);
    let cargo = env.find(&env.cargo).ok_or_else(|| {
        format!("cargo is not on PATH, and is needed to fetch llama.cpp's source: {way_out}")
    })?;
    let manifest = work.join("Cargo.toml");
    let show = |e: std::io::Error| format!("{}: {e}", manifest.display());
    let text = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n\
         [dependencies]\n{} = {{ version = \"={}\", default-features = false }}\n",
        pin.source.package, pin.source.version
    );
    fs::write(work.join("lib.rs"), "").and_then(|()| fs::write(&manifest, text)).map_err(show)?;
    let output = Command::new(&cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        // Settings are those of the folders above.
        .current_dir(&env.root)
        .env("PATH", &env.path)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    if !output.status.success() {
        return Err(format!(
            "cannot fetch {} with cargo (no network, or a mirror or vendored crates without it?): {way_out}\ncargo said:\n{}",
            pin.requirement(),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata said what cannot be read: {e}"))?;
    let (name, version) = (&pin.source.package, &pin.source.version);
    let found = metadata.packages.iter().find(|p| p.name == *name && p.version == *version);
    let dir = found.and_then(|package| package.manifest_path.parent()).ok_or_else(|| {
        format!("cargo metadata does not say where {} is: {way_out}", pin.requirement())
    })?;
    find(dir, pin).ok_or_else(|| {
        format!(
            "{} has neither {} in cargo's cache nor the checksums of a vendored crate: {way_out}",
            dir.display(),
            pin.source.file
        )
    })
}

/// What a crate in the folder `dir` comes from: registry/src/NAME/CRATE has its archive in registry/cache/NAME, and a
/// vendored one has its checksums in it.
fn find(dir: &Path, pin: &Pin) -> Option<Found> {
    if dir.join(CHECKSUMS).is_file() {
        return Some(Found::Vendored(dir.into()));
    }
    let (registry, src) = (dir.parent()?, dir.parent()?.parent()?);
    let archive = src.parent()?.join("cache").join(registry.file_name()?).join(&pin.source.file);
    archive.is_file().then_some(Found::Archive(archive))
}

const CHECKSUMS: &str = ".cargo-checksum.json";

/// Copies the folder of llama.cpp out of a vendored crate to the new folder `to`, checking every file on the way. `to` is
/// there afterwards only if all went well.
pub fn copy(dir: &Path, pin: &Pin, to: &Path) -> Result<()> {
    let result = copy_checked(dir, pin, to);
    if result.is_err() {
        let _ = fs::remove_dir_all(to);
    }
    result
}

fn copy_checked(dir: &Path, pin: &Pin, to: &Path) -> Result<()> {
    let path = dir.join(CHECKSUMS);
    let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let sums: Checksums =
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let found = sums.package.unwrap_or_else(|| "none".into());
    if found != pin.source.sha256 {
        return Err(format!(
            "{} is vendored from a crate with SHA-256 {found}, but the pin (vendor/llama.cpp.toml) says {}: vendor {} again",
            dir.display(),
            pin.source.sha256,
            pin.requirement()
        ));
    }
    // The archive has the crate in a folder of its name.
    let folder = pin.source.folder.split_once('/').map_or("", |(_, inside)| inside);
    let mut files = 0;
    for (name, sum) in &sums.files {
        let Ok(inside) = Path::new(name).strip_prefix(folder) else { continue };
        let (from, to) = (dir.join(name), to.join(inside));
        let bytes = fs::read(&from).map_err(|e| format!("{}: {e}", from.display()))?;
        let hash = format!("{:x}", Sha256::digest(&bytes));
        if hash != *sum {
            return Err(format!(
                "{} has SHA-256 {hash}, but {CHECKSUMS} beside it says {sum}: vendor {} again",
                from.display(),
                pin.requirement()
            ));
        }
        fs::create_dir_all(to.parent().unwrap_or(dir))
            .and_then(|()| fs::write(&to, bytes))
            .map_err(|e| format!("{}: {e}", to.display()))?;
        files += 1;
    }
    if files == 0 {
        return Err(format!("{} holds no folder {folder}", dir.display()));
    }
    Ok(())
}
