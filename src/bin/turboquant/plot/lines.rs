//! Lines with their spread, one panel beside the other.

use std::path::Path;

use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{Circle, PathElement, Text};
use plotters::style::{BLACK, Color};

use super::style::{colour, number, text};
use super::{Area, write_svg};

pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Where the lowest and the highest tenth of the samples begin.
    pub low: f64,
    pub high: f64,
}

pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

/// All panels of a picture have the same lines.
pub struct Panel {
    pub title: String,
    pub x: String,
    pub y: String,
    pub lines: Vec<Line>,
}

const WIDTH: u32 = 520;
const HEIGHT: u32 = 380;
/// Of a line of the legend.
const LEGEND: u32 = 18;

/// Draws panels, and below them which line is which.
pub fn draw(path: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    let n_lines = panels.first().map_or(0, |panel| panel.lines.len()) as u32;
    let size = (WIDTH * panels.len().max(1) as u32, HEIGHT + 36 + LEGEND * n_lines);
    write_svg(path, size, |area| {
        let area = area.titled(title, text(17))?;
        let (top, legend) = area.split_vertically(HEIGHT);
        for (area, panel) in top.split_evenly((1, panels.len())).iter().zip(panels) {
            draw_panel(area, panel)?;
        }
        for (i, line) in
            panels.iter().flat_map(|panel| &panel.lines).take(n_lines as usize).enumerate()
        {
            let y = (LEGEND * i as u32 + LEGEND / 2).cast_signed();
            let style = colour(i).stroke_width(2);
            legend.draw(&PathElement::new([(60, y), (84, y)], style))?;
            legend.draw(&Circle::new((72, y), 3, colour(i).filled()))?;
            legend.draw(&Text::new(line.name.clone(), (92, y - 7), text(13)))?;
        }
        Ok(())
    })
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<()> {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let (mut from, mut to) =
        points().fold((f64::MAX, f64::MIN), |(a, b), p| (a.min(p.x), b.max(p.x)));
    if from >= to {
        (from, to) = (from.min(0.0), to.max(0.0) + 1.0);
    }
    let margin = 0.03 * (to - from);
    let top = points().fold(0.0, |top: f64, p| top.max(p.high));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(14))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(from - margin..to + margin, 0.0..(1.08 * top).max(f64::MIN_POSITIVE))?;
    chart
        .configure_mesh()
        .light_line_style(plotters::style::TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(text(12))
        .axis_desc_style(text(13))
        .x_labels(6)
        .y_labels(8)
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    for (i, line) in panel.lines.iter().enumerate() {
        let along = line.points.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>();
        chart.draw_series([PathElement::new(along, colour(i).stroke_width(2))])?;
        let spread = |p: &Point| {
            PathElement::new([(p.x, p.low), (p.x, p.high)], colour(i).mix(0.5).stroke_width(1))
        };
        chart.draw_series(line.points.iter().map(spread))?;
        chart.draw_series(
            line.points.iter().map(|p| Circle::new((p.x, p.y), 3, colour(i).filled())),
        )?;
    }
    Ok(())
}
