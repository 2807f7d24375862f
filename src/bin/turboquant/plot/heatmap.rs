//! What was found by length and depth, in colours.

use std::path::Path;

use anyhow::Result;
use llama_turboquant::eval::needle::{NeedleCell, NeedlePair};
use plotters::element::{Rectangle, Text};
use plotters::style::colors::colormaps::{ColorMap, ViridisRGB};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, FontTransform, IntoFont, RGBColor, TextStyle, WHITE};

use super::{Area, write_svg};

/// Pixels of a cell.
const CELL: (i32, i32) = (66, 40);
/// Beside the cells of a panel: labels of depths, its title, labels of lengths.
const LEFT: i32 = 74;
const TOP: i32 = 30;
const BOTTOM: i32 = 52;
/// Between panels.
const GAP: i32 = 16;
/// The title, the legend.
const HEAD: i32 = 64;
const LEGEND: i32 = 110;

/// Writes a panel for each mode and pair: lengths to the right, depths downwards. The colour is the probability of a
/// right token, the number how many answers are exact.
pub fn write(path: &Path, title: &str, found: &[NeedlePair]) -> Result<()> {
    let of_pair = |pair| panels(pair).map(move |cells| (pair, cells));
    let all: Vec<(&NeedlePair, Panel<'_>)> = found.iter().flat_map(of_pair).collect();
    let Some((_, first)) = all.first() else { return Ok(()) };
    let (n_lengths, n_depths) = shape(first);
    let panel =
        (LEFT + CELL.0 * count(n_lengths).max(3) + GAP, TOP + CELL.1 * count(n_depths) + BOTTOM);
    // A row for each pair, if there are two modes.
    let n_modes = found.first().map_or(1, |pair| panels(pair).count());
    let n_columns = if n_modes > 1 { n_modes } else { all.len().min(3) };
    let n_rows = all.len().div_ceil(n_columns);
    let size = (count(n_columns) * panel.0 + LEGEND, HEAD + count(n_rows) * panel.1.max(TOP + 200));
    write_svg(path, (size.0.unsigned_abs(), size.1.unsigned_abs()), |area| {
        text(area, title, (GAP, 22), &style(18, BLACK).pos(Pos::new(HPos::Left, VPos::Center)))?;
        let what = "number: right answers, %; colour: probability of a right token";
        text(area, what, (GAP, 46), &style(13, BLACK).pos(Pos::new(HPos::Left, VPos::Center)))?;
        for (i, (pair, cells)) in all.iter().enumerate() {
            let (row, column) = (count(i / n_columns), count(i % n_columns));
            draw_panel(area, (column * panel.0, HEAD + row * panel.1), pair, cells)?;
        }
        legend(area, (size.0 - LEGEND + 10, HEAD + TOP))
    })
}

/// Cells of one mode.
type Panel<'a> = &'a [NeedleCell];

fn panels(pair: &NeedlePair) -> impl Iterator<Item = Panel<'_>> {
    pair.cells.chunk_by(|a, b| a.mode == b.mode)
}

/// Lengths, and depths of each.
fn shape(cells: Panel<'_>) -> (usize, usize) {
    let n_depths = cells.iter().take_while(|cell| cell.length == cells[0].length).count();
    (cells.len() / n_depths.max(1), n_depths)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn draw_panel(
    area: &Area<'_>,
    (x, y): (i32, i32),
    pair: &NeedlePair,
    cells: Panel<'_>,
) -> Result<()> {
    let (n_lengths, n_depths) = shape(cells);
    let title = format!("{} / {}, {}", pair.k, pair.v, cells[0].mode.name());
    let left = Pos::new(HPos::Left, VPos::Center);
    text(area, &title, (x + LEFT, y + TOP / 2), &style(15, BLACK).pos(left))?;
    let (x, y) = (x + LEFT, y + TOP);
    for (i, cell) in cells.iter().enumerate() {
        let (column, row) = (count(i / n_depths), count(i % n_depths));
        let corner = (x + column * CELL.0, y + row * CELL.1);
        let probability = cell.log_prob().exp();
        fill(area, corner, CELL, colour(probability))?;
        let middle = (corner.0 + CELL.0 / 2, corner.1 + CELL.1 / 2);
        let ink = if probability < 0.6 { WHITE } else { BLACK };
        text(area, &format!("{:.0}", 100.0 * cell.exact()), middle, &centred(14, ink))?;
        if row == 0 {
            let below = (middle.0, y + count(n_depths) * CELL.1 + 12);
            text(area, &cell.length.to_string(), below, &centred(13, BLACK))?;
        }
        if column == 0 {
            let right = style(13, BLACK).pos(Pos::new(HPos::Right, VPos::Center));
            text(area, &format!("{}%", cell.depth), (x - 6, middle.1), &right)?;
        }
    }
    let (width, height) = (count(n_lengths) * CELL.0, count(n_depths) * CELL.1);
    text(area, "tokens", (x + width / 2, y + height + 30), &centred(13, BLACK))?;
    let upwards = ("sans-serif", 13).into_font().transform(FontTransform::Rotate270);
    let upwards = TextStyle::from(upwards).pos(Pos::new(HPos::Center, VPos::Center));
    text(area, "depth", (x - LEFT + 14, y + height / 2), &upwards)
}

/// Which colour is which probability.
fn legend(area: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
    const STEPS: i32 = 50;
    const HEIGHT: i32 = 3;
    for step in 0..STEPS {
        let probability = f64::from(step) / f64::from(STEPS - 1);
        let corner = (x, y + (STEPS - 1 - step) * HEIGHT);
        fill(area, corner, (18, HEIGHT), colour(probability))?;
    }
    let left = style(13, BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for (label, part) in [("0", 0.0), ("0.25", 0.25), ("0.5", 0.5), ("0.75", 0.75), ("1", 1.0)] {
        let height = f64::from(STEPS * HEIGHT);
        text(area, label, (x + 24, y + (height * (1.0 - part)) as i32), &left)?;
    }
    let below = y + STEPS * HEIGHT;
    text(area, "probability", (x, below + 18), &left)?;
    text(area, "of a right token", (x, below + 34), &left)
}

fn colour(probability: f64) -> RGBColor {
    ViridisRGB.get_color(probability.clamp(0.0, 1.0))
}

fn fill(area: &Area<'_>, (x, y): (i32, i32), size: (i32, i32), colour: RGBColor) -> Result<()> {
    Ok(area.draw(&Rectangle::new([(x, y), (x + size.0, y + size.1)], colour.filled()))?)
}

fn style(size: i32, colour: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour)
}

fn centred(size: i32, colour: RGBColor) -> TextStyle<'static> {
    style(size, colour).pos(Pos::new(HPos::Center, VPos::Center))
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), style: &TextStyle<'_>) -> Result<()> {
    Ok(area.draw(&Text::new(text, at, style.clone()))?)
}
