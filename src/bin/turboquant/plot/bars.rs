//! Groups of bars with their spread, one panel beside the other, each with a scale of its own.

use std::path::Path;

use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color};

use super::style::{colour, number, text};
use super::{Area, write_svg};

pub struct Bar {
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

pub struct Group {
    pub name: String,
    /// One for each name of the picture.
    pub bars: Vec<Bar>,
}

pub struct Panel {
    pub title: String,
    pub y: String,
    pub groups: Vec<Group>,
}

const WIDTH: u32 = 360;
const HEIGHT: u32 = 340;
const LEGEND: u32 = 18;

/// Draws panels, and below them which bar is which.
pub fn draw(path: &Path, title: &str, names: &[&str], panels: &[Panel]) -> Result<()> {
    let size = (WIDTH * panels.len().max(1) as u32, HEIGHT + 36 + LEGEND * names.len() as u32);
    write_svg(path, size, |area| {
        let area = area.titled(title, text(17))?;
        let (top, legend) = area.split_vertically(HEIGHT);
        for (area, panel) in top.split_evenly((1, panels.len())).iter().zip(panels) {
            draw_panel(area, panel, names.len())?;
        }
        for (i, name) in names.iter().enumerate() {
            let y = (LEGEND * i as u32).cast_signed();
            legend.draw(&Rectangle::new([(62, y + 3), (74, y + 15)], colour(i).filled()))?;
            legend.draw(&Text::new(*name, (82, y + 2), text(13)))?;
        }
        Ok(())
    })
}

fn draw_panel(area: &Area<'_>, panel: &Panel, n_bars: usize) -> Result<()> {
    let bars = || panel.groups.iter().flat_map(|group| &group.bars);
    let top = 1.08 * bars().fold(f64::MIN_POSITIVE, |top, bar| top.max(bar.high));
    let n = panel.groups.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..n, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(plotters::style::TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(text(12))
        .axis_desc_style(text(13))
        .x_labels(0)
        .y_labels(6)
        .y_desc(&panel.y)
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    let width = 0.8 / n_bars.max(1) as f64;
    for (x, group) in panel.groups.iter().enumerate() {
        let x = x as f64;
        let place = |i: usize| x + 0.1 + width * i as f64;
        let each = || group.bars.iter().enumerate();
        chart.draw_series(each().map(|(i, bar)| {
            Rectangle::new([(place(i), 0.0), (place(i) + 0.92 * width, bar.y)], colour(i).filled())
        }))?;
        chart.draw_series(each().map(|(i, bar)| {
            let middle = place(i) + 0.46 * width;
            PathElement::new(
                [(middle, bar.low), (middle, bar.high)],
                BLACK.mix(0.7).stroke_width(1),
            )
        }))?;
        let below = text(12).pos(Pos::new(HPos::Center, VPos::Top));
        let (px, py) = chart.backend_coord(&(x + 0.5, 0.0));
        let (ox, oy) = area.get_pixel_range();
        area.draw(&Text::new(group.name.clone(), (px - ox.start, py - oy.start + 6), below))?;
    }
    Ok(())
}
