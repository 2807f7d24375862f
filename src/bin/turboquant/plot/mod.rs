//! Pictures, as SVG files.

pub mod bars;
pub mod heatmap;
mod labels;
pub mod lines;
pub mod quality;
pub mod results;
pub mod style;

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::SVGBackend;
use plotters::style::{RGBColor, WHITE};

/// Where to draw.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Finds out before a long run whether a file can be written. Nothing is left of it.
pub fn check_writable(path: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    if path.is_dir() {
        return Err(anyhow!("it is a folder").context(cannot()));
    }
    // It would be replaced, not written to.
    if path.symlink_metadata().is_ok_and(|file| !file.is_file()) {
        return Err(anyhow!("it is no plain file").context(cannot()));
    }
    if path.metadata().is_ok_and(|file| file.permissions().readonly()) {
        return Err(anyhow!("it is read-only").context(cannot()));
    }
    beside(path).map(drop).with_context(cannot)
}

/// Draws a picture of `size` pixels on white into a file, which appears whole or not at all.
pub fn write_svg(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<()> {
    write_svg_on(path, size, WHITE, draw)
}

/// The same on paper of another colour.
pub fn write_svg_on(
    path: &Path,
    size: (u32, u32),
    paper: RGBColor,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&paper)?;
        draw(&area)?;
        area.present().map_err(|e| anyhow!("cannot draw {}: {e}", path.display()))?;
    }
    let write = || -> Result<()> {
        let mut file = beside(path)?;
        file.write_all(svg.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A new file in the same folder.
fn beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".turboquant-").suffix(".svg");
    // What a new file has, not what a secret one has.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}
