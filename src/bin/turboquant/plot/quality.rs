//! What cache types cost in quality, by their size: a panel for each model, all with the same axes.

use std::path::Path;

use anyhow::{Result, bail};
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor};

use super::labels::{self, Box2, Pixel};
use super::style::{Theme, number};
use super::{Area, write_svg_on};

/// A pair of types.
pub struct Point {
    pub k: String,
    pub v: String,
    pub bits_per_value: f64,
    /// Mean KL divergence from f16, nats, above 0.
    pub kld: f64,
    /// What `kld` may be off by.
    pub error: f64,
}

impl Point {
    /// One type where K and V have the same, as `--pairs` takes it.
    pub fn name(&self) -> String {
        if self.same() { self.k.clone() } else { format!("{} / {}", self.k, self.v) }
    }

    fn same(&self) -> bool {
        self.k == self.v
    }

    fn is_turbo(&self) -> bool {
        self.k.starts_with("turbo") || self.v.starts_with("turbo")
    }
}

/// A model.
pub struct Panel {
    pub title: String,
    /// Those without divergence have no place on a logarithmic axis and are left out.
    pub points: Vec<Point>,
}

/// Pixels: as wide as a column of text on GitHub, where a picture of this size is not made smaller.
const WIDTH: u32 = 830;
const HEAD: u32 = 56;
/// Of a panel among others, and of one alone.
const HEIGHT: u32 = 236;
const HEIGHT_ALONE: u32 = 470;

/// Ranges of the axes.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

/// Draws panels, two beside each other. Errors: there is no point, or the file cannot be written.
pub fn draw(path: &Path, theme: &Theme, title: &str, panels: &[Panel]) -> Result<()> {
    let panels: Vec<Panel> = panels.iter().map(drawable).filter(|p| !p.points.is_empty()).collect();
    if panels.is_empty() {
        bail!("there is nothing to draw in {}", path.display());
    }
    let axes = axes(&panels);
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns);
    let height = if panels.len() == 1 { HEIGHT_ALONE } else { HEIGHT };
    let size = (WIDTH, HEAD + height * rows as u32 + 8);
    write_svg_on(path, size, theme.paper, |area| {
        let (head, body) = area.split_vertically(HEAD);
        let left = Pos::new(HPos::Left, VPos::Center);
        head.draw(&Text::new(title, (16, 17), theme.text(15).pos(left)))?;
        legend(&head, theme)?;
        let cells = body.split_evenly((rows, columns));
        for (area, panel) in cells.iter().zip(&panels) {
            draw_panel(area, theme, &axes, panel)?;
        }
        Ok(())
    })
}

fn drawable(panel: &Panel) -> Panel {
    let points = panel.points.iter().filter(|p| p.kld > 0.0 && p.kld.is_finite());
    let copy = |p: &Point| Point { k: p.k.clone(), v: p.v.clone(), ..*p };
    Panel { title: panel.title.clone(), points: points.map(copy).collect() }
}

fn axes(panels: &[Panel]) -> Axes {
    let points = || panels.iter().flat_map(|panel| &panel.points);
    let low = |of: &dyn Fn(&Point) -> f64| points().map(of).fold(f64::MAX, f64::min);
    let high = |of: &dyn Fn(&Point) -> f64| points().map(of).fold(f64::MIN, f64::max);
    Axes {
        x: ((low(&|p| p.bits_per_value) - 0.8).max(0.0), high(&|p| p.bits_per_value) + 0.8),
        // Whole decades, and a little more, so that their lines are within.
        y: (
            0.99 * 10f64.powf(low(&|p| p.kld).log10().floor()),
            1.01 * 10f64.powf(high(&|p| p.kld + p.error).log10().ceil()),
        ),
    }
}

/// Which mark is what.
fn legend(head: &Area<'_>, theme: &Theme) -> Result<()> {
    const Y: i32 = 41;
    let beside = theme.text(13).pos(Pos::new(HPos::Left, VPos::Center));
    mark(head, (22, Y), theme, true)?;
    head.draw(&Text::new("turbo types", (32, Y), beside.clone()))?;
    mark(head, (130, Y), theme, false)?;
    head.draw(&Text::new("types of llama.cpp", (140, Y), beside))?;
    Ok(())
}

fn colour(theme: &Theme, turbo: bool) -> RGBColor {
    if turbo { theme.turbo } else { theme.other }
}

/// A disc for a turbo type, an empty square for another: told apart without colours, too.
fn mark(area: &Area<'_>, (x, y): Pixel, theme: &Theme, turbo: bool) -> Result<()> {
    let colour = colour(theme, turbo);
    if turbo {
        area.draw(&Circle::new((x, y), 5, colour.filled()))?;
    } else {
        let corners = [(x - 4, y - 4), (x + 4, y + 4)];
        area.draw(&Rectangle::new(corners, theme.paper.filled()))?;
        // A rectangle's own outline has one pixel, whatever it is given.
        let outline = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)];
        let outline = outline.map(|(dx, dy)| (x + 4 * dx, y + 4 * dy));
        area.draw(&PathElement::new(outline, colour.stroke_width(2)))?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, theme: &Theme, axes: &Axes, panel: &Panel) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, theme.text(14))
        .margin(6)
        .margin_right(14)
        .x_label_area_size(38)
        .y_label_area_size(58)
        .build_cartesian_2d(axes.x.0..axes.x.1, (axes.y.0..axes.y.1).log_scale())?;
    chart
        .configure_mesh()
        .axis_style(theme.ink.mix(0.5))
        .light_line_style(plotters::style::TRANSPARENT)
        .bold_line_style(theme.ink.mix(0.14))
        .label_style(theme.text(12))
        .axis_desc_style(theme.text(12))
        .x_labels(8)
        .y_labels(5)
        .x_desc("bits per value")
        .y_desc("mean KLD, nats")
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()?;

    let (xs, ys) = chart.plotting_area().get_pixel_range();
    let corner = {
        let (xs, ys) = area.get_pixel_range();
        (xs.start, ys.start)
    };
    let within = |(x, y): Pixel| (x - corner.0, y - corner.1);
    let at = |x: f64, y: f64| within(chart.backend_coord(&(x, y)));
    let places: Vec<Pixel> = panel.points.iter().map(|p| at(p.bits_per_value, p.kld)).collect();

    let lines = lines(panel);
    for &(a, b, turbo) in &lines {
        let style = colour(theme, turbo).mix(0.6).stroke_width(if turbo { 2 } else { 1 });
        area.draw(&PathElement::new([places[a], places[b]], style))?;
    }
    for (point, &place) in panel.points.iter().zip(&places) {
        let low = at(point.bits_per_value, (point.kld - point.error).max(axes.y.0));
        let high = at(point.bits_per_value, point.kld + point.error);
        let style = colour(theme, point.is_turbo()).stroke_width(1);
        area.draw(&PathElement::new([low, high], style))?;
        mark(area, place, theme, point.is_turbo())?;
    }

    let plot = Box2 { from: within((xs.start, ys.start)), to: within((xs.end, ys.end)) };
    let names: Vec<String> = panel.points.iter().map(Point::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let segments: Vec<_> = lines.iter().map(|&(a, b, _)| (places[a], places[b])).collect();
    let labels = labels::place(&plot, &names, &places, &segments);
    for ((name, label), &place) in names.iter().zip(&labels).zip(&places) {
        if label.leader {
            area.draw(&PathElement::new([place, label.at], theme.ink.mix(0.4).stroke_width(1)))?;
        }
        let style = theme.text(labels::SIZE).pos(label.pos);
        area.draw(&Text::new(*name, label.at, style))?;
    }
    Ok(())
}

/// Pairs of neighbours by size, within the turbo types and within the others, as far as K and V have the same type; and
/// whether they are turbo types.
fn lines(panel: &Panel) -> Vec<(usize, usize, bool)> {
    let mut all = Vec::new();
    for turbo in [false, true] {
        let of = |(_, p): &(usize, &Point)| p.same() && p.is_turbo() == turbo;
        let mut along: Vec<(usize, &Point)> = panel.points.iter().enumerate().filter(of).collect();
        along.sort_by(|(_, a), (_, b)| {
            a.bits_per_value.total_cmp(&b.bits_per_value).then(b.kld.total_cmp(&a.kld))
        });
        all.extend(along.windows(2).map(|pair| (pair[0].0, pair[1].0, turbo)));
    }
    all
}
