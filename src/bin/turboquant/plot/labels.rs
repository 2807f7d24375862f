//! Where the names of points go: beside their points, and not over other points, names or lines.

use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Height of a name, pixels.
pub const SIZE: i32 = 12;
/// Of a character, at most: those of wide fonts, for a font of the system draws it.
const WIDTH: f64 = 0.62 * SIZE as f64;
/// Half of the side of a point's mark, with a margin.
const MARK: i32 = 6;

pub type Pixel = (i32, i32);

/// A rectangle: its left upper corner and its right lower one.
#[derive(Debug, Clone, Copy)]
pub struct Box2 {
    pub from: Pixel,
    pub to: Pixel,
}

impl Box2 {
    fn around((x, y): Pixel, half: i32) -> Self {
        Self { from: (x - half, y - half), to: (x + half, y + half) }
    }

    /// Pixels that both have.
    fn shared(&self, other: &Self) -> i32 {
        let along = |from: i32, to: i32, other_from: i32, other_to: i32| {
            (to.min(other_to) - from.max(other_from)).max(0)
        };
        along(self.from.0, self.to.0, other.from.0, other.to.0)
            * along(self.from.1, self.to.1, other.from.1, other.to.1)
    }

    fn area(&self) -> i32 {
        (self.to.0 - self.from.0) * (self.to.1 - self.from.1)
    }

    fn has(&self, (x, y): Pixel) -> bool {
        (self.from.0..=self.to.0).contains(&x) && (self.from.1..=self.to.1).contains(&y)
    }
}

/// A name that has its place.
#[derive(Clone, Copy)]
pub struct Label {
    pub at: Pixel,
    pub pos: Pos,
    /// So far from its point that a line has to lead there.
    pub leader: bool,
    of: Box2,
}

impl Label {
    /// `name` in a direction (-1, 0 or 1 along each axis) from its point.
    fn new(name: &str, (x, y): Pixel, (dx, dy): Pixel, distance: i32) -> Self {
        let width = (WIDTH * name.chars().count() as f64).ceil() as i32;
        let step = if dx != 0 && dy != 0 { distance * 7 / 10 } else { distance };
        let at = (x + dx * step, y + dy * step + dy * SIZE / 2);
        let (h, left) = match dx {
            -1 => (HPos::Right, at.0 - width),
            0 => (HPos::Center, at.0 - width / 2),
            _ => (HPos::Left, at.0),
        };
        let of =
            Box2 { from: (left, at.1 - SIZE / 2 - 1), to: (left + width, at.1 + SIZE / 2 + 1) };
        Self { at, pos: Pos::new(h, VPos::Center), leader: distance > NEAR, of }
    }

    /// Pixels, more or less, that it covers of the line to another's point.
    fn over_leader(&self, other: &Self, point: Pixel) -> i32 {
        let line = other.leader.then(|| along(point, other.at)).into_iter().flatten();
        line.map(|p| i32::from(self.of.has(p))).sum()
    }
}

const NEAR: i32 = 8;
/// Directions, those that read best first, at each of the distances.
const DIRECTIONS: [Pixel; 8] =
    [(1, 0), (-1, 0), (1, -1), (-1, 1), (1, 1), (-1, -1), (0, -1), (0, 1)];
const DISTANCES: [i32; 4] = [NEAR, 18, 30, 44];

/// Places for the names of points within `area`. `lines`: what is drawn between points.
pub fn place(
    area: &Box2,
    names: &[&str],
    points: &[Pixel],
    lines: &[(Pixel, Pixel)],
) -> Vec<Label> {
    let on_lines: Vec<Pixel> = lines.iter().flat_map(|&(a, b)| along(a, b)).collect();
    let marks: Vec<Box2> = points.iter().map(|&p| Box2::around(p, MARK)).collect();
    let choices = |i: usize| {
        let of = move |distance| DIRECTIONS.map(|to| Label::new(names[i], points[i], to, distance));
        DISTANCES.into_iter().flat_map(of)
    };
    // What a place costs without the other names: in pixels that are covered, more or less.
    let alone = |i: usize, label: &Label, rank: usize| {
        let outside = label.of.area() - label.of.shared(area);
        let covered: i32 = marks.iter().map(|mark| label.of.shared(mark)).sum();
        let crossed = on_lines.iter().filter(|&&p| label.of.has(p)).count();
        let crossed = i32::try_from(crossed).unwrap_or(i32::MAX / 100);
        let led_over: i32 = marks
            .iter()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(_, mark)| {
                let line = label.leader.then(|| along(points[i], label.at)).into_iter().flatten();
                line.map(|p| i32::from(mark.has(p))).sum::<i32>()
            })
            .sum();
        let rank = i32::try_from(rank).unwrap_or(0);
        20 * outside + 6 * covered + 4 * crossed + 4 * led_over + rank
    };
    let costs: Vec<Vec<(Label, i32)>> = (0..points.len())
        .map(|i| {
            choices(i)
                .enumerate()
                .map(|(rank, label)| (label, alone(i, &label, 2 * rank)))
                .collect()
        })
        .collect();
    let mut placed: Vec<Label> = Vec::new();
    for choices in &costs {
        placed.extend(choices.iter().min_by_key(|(_, cost)| *cost).map(|(label, _)| *label));
    }
    // Each in turn moves out of the way of the others, until none has a better place.
    for _ in 0..ROUNDS {
        for i in 0..placed.len() {
            let others = |label: &Label| -> i32 {
                let each = placed.iter().zip(points).enumerate().filter(|(j, _)| *j != i);
                each.map(|(_, (other, &point))| {
                    10 * label.of.shared(&other.of)
                        + 4 * label.over_leader(other, point)
                        + 4 * other.over_leader(label, points[i])
                })
                .sum()
            };
            let best = costs[i].iter().min_by_key(|(label, cost)| cost + others(label));
            if let Some((label, _)) = best {
                placed[i] = *label;
            }
        }
    }
    placed
}

const ROUNDS: usize = 8;

/// Pixels of a line, every third.
fn along(a: Pixel, b: Pixel) -> impl Iterator<Item = Pixel> {
    let n = ((b.0 - a.0).abs().max((b.1 - a.1).abs()) / 3).max(1);
    (0..=n).map(move |i| (a.0 + (b.0 - a.0) * i / n, a.1 + (b.1 - a.1) * i / n))
}
