//! libturboquant.a, which a patched checkout is linked with.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// A symbol of the archive.
const SYMBOL: &[u8] = b"tq_flash_attn";

/// The archive that was asked for, or the one that is installed with this program, if any.
pub fn find(asked: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(path) = asked else {
        let program = std::env::current_exe().and_then(|path| path.canonicalize());
        let prefix = program.ok().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
        return Ok(prefix.map(|dir| dir.join("lib/libturboquant.a")).filter(|lib| lib.is_file()));
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !bytes.starts_with(b"!<arch>") {
        bail!("{} is not a static library", path.display());
    }
    if !bytes.windows(SYMBOL.len()).any(|window| window == SYMBOL) {
        bail!(
            "{} is without the C interface: it is built by cargo build --release --no-default-features --features capi",
            path.display()
        );
    }
    Ok(Some(path.canonicalize()?))
}
