//! What all pictures have in common.

use plotters::style::{BLACK, Color, IntoFont, RGBColor, TextStyle};

/// Told apart also by those who do not see all colours (Okabe & Ito 2008), and on white paper.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(128, 128, 128),
];

/// Of the series with this index.
pub fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The colours of a picture whose page may be light or dark.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub paper: RGBColor,
    pub ink: RGBColor,
    /// Of the turbo types.
    pub turbo: RGBColor,
    /// Of the other types.
    pub other: RGBColor,
}

impl Theme {
    pub const LIGHT: Self = Self {
        paper: RGBColor(255, 255, 255),
        ink: RGBColor(31, 35, 40),
        turbo: COLOURS[1],
        other: COLOURS[2],
    };

    /// The paper is that of GitHub's dark pages.
    pub const DARK: Self = Self {
        paper: RGBColor(13, 17, 23),
        ink: RGBColor(230, 237, 243),
        turbo: COLOURS[6],
        other: COLOURS[5],
    };

    /// `size`: pixels.
    pub fn text(&self, size: i32) -> TextStyle<'static> {
        // plotters divides sizes by this as it writes an SVG.
        ("sans-serif", f64::from(size) * 1.24).into_font().color(&self.ink)
    }
}

pub fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK.mix(0.85))
}

/// `12`, `0.5`, `0.02`: a number on an axis, without what it does not need.
pub fn number(x: f64) -> String {
    match x.abs() {
        a if a == 0.0 || a >= 10.0 && x.fract() == 0.0 => format!("{x:.0}"),
        a if a >= 1e-4 => {
            let text = format!("{x:.5}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{x:e}"),
    }
}
