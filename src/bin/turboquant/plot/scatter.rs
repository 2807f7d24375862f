//! Points with their names; the vertical axis is logarithmic.

use std::path::Path;

use anyhow::{Result, bail};
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::element::{Circle, PathElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color};

use super::style::{colour, number, text};
use super::write_svg;

pub struct Point {
    pub name: String,
    pub x: f64,
    /// Above 0.
    pub y: f64,
    /// What `y` may be off by.
    pub error: f64,
}

const SIZE: (u32, u32) = (860, 560);

/// Draws points. Errors: there is none.
pub fn draw(path: &Path, title: &str, x: &str, y: &str, points: &[Point]) -> Result<()> {
    let range = |of: &dyn Fn(&Point) -> f64| {
        let each = || points.iter().map(of);
        (each().fold(f64::MAX, f64::min), each().fold(f64::MIN, f64::max))
    };
    let ((x0, x1), (y0, y1)) = (range(&|p| p.x), range(&|p| p.y));
    let y1 = range(&|p| p.y + p.error).1.max(y1);
    if points.is_empty() || !(y0 > 0.0 && y1.is_finite()) {
        bail!("there is nothing to draw in {}", path.display());
    }
    let (x0, x1) = ((x0 - 0.5).max(0.0), x1 + 1.5);
    let (y0, y1) = (y0 / 1.6, y1 * 1.6);
    write_svg(path, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, text(17))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(x0..x1, (y0..y1).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.05))
            .bold_line_style(BLACK.mix(0.12))
            .label_style(text(12))
            .axis_desc_style(text(14))
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&|x| number(*x))
            .y_label_formatter(&|y| number(*y))
            .draw()?;
        let style = colour(1);
        let error = |p: &Point| {
            let low = (p.y - p.error).max(y0);
            PathElement::new([(p.x, low), (p.x, p.y + p.error)], style.mix(0.5).stroke_width(1))
        };
        chart.draw_series(points.iter().map(error))?;
        chart.draw_series(points.iter().map(|p| Circle::new((p.x, p.y), 4, style.filled())))?;
        let at = |p: &Point| chart.backend_coord(&(p.x, p.y));
        let beside = text(12).pos(Pos::new(HPos::Left, VPos::Center));
        for (point, y) in points.iter().zip(apart(&points.iter().map(at).collect::<Vec<_>>())) {
            area.draw(&Text::new(point.name.clone(), (at(point).0 + 8, y), beside.clone()))?;
        }
        Ok(())
    })
}

/// Heights of labels beside points, moved so that none covers another.
fn apart(points: &[(i32, i32)]) -> Vec<i32> {
    const LINE: i32 = 14;
    const WIDTH: i32 = 130;
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|&i| points[i].1);
    let mut placed: Vec<(i32, i32)> = Vec::new();
    let mut heights = vec![0; points.len()];
    for i in order {
        let (x, mut y) = points[i];
        while let Some(other) =
            placed.iter().find(|p| (p.0 - x).abs() < WIDTH && (p.1 - y).abs() < LINE)
        {
            y = other.1 + LINE;
        }
        placed.push((x, y));
        heights[i] = y;
    }
    heights
}
