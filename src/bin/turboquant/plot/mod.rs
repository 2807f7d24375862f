//! Plots, as SVG.

pub mod heatmap;

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::SVGBackend;
use plotters::style::WHITE;
use tempfile::NamedTempFile;

/// What is drawn on, in pixels.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Finds out whether [`write_svg`] will have a place to write to.
pub fn check_writable(path: &Path) -> Result<()> {
    beside(path).map(drop)
}

/// Draws on white and writes the file, whole or not at all.
pub fn write_svg(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    let file = beside(path)?;
    std::fs::write(file.path(), svg).with_context(|| cannot(path))?;
    file.as_file().sync_all().with_context(|| cannot(path))?;
    file.persist(path).with_context(|| cannot(path))?;
    Ok(())
}

/// A file in the same folder, which is removed unless it is kept.
fn beside(path: &Path) -> Result<NamedTempFile> {
    if path.is_dir() {
        return Err(anyhow!("it is a folder").context(cannot(path)));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".turboquant-").suffix(".svg");
    #[cfg(unix)]
    let builder = {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt;
        // As other programs make files: less the umask.
        builder.permissions(Permissions::from_mode(0o666))
    };
    builder.tempfile_in(folder.unwrap_or(Path::new("."))).with_context(|| cannot(path))
}

fn cannot(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
