//! Lloyd-Max codebooks: the scalar quantizers of least mean squared error, computed from the density.
//!
//! Two densities: the unit Gaussian, and a coordinate of a uniform point on the sphere in d
//! dimensions (a scaled Beta), which is what a rotation makes of a coordinate of any vector.
//! Both are symmetric, so the positive half of the levels is solved for and mirrored.
//!
//! At the optimum every level is the mean of its cell, and every bound lies half way between its
//! levels (Lloyd 1957/1982, Max 1960). Lloyd's own iteration, which alternates the two, takes some
//! L^2 rounds for L levels; the conditions are a tridiagonal system, so Newton's method solves
//! 256 levels to rounding in a handful of steps.

use std::f64::consts::PI;

/// Most bits of a codebook.
pub const MAX_BITS: u32 = 8;

/// Why there is no such codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LloydMaxError {
    /// Out of range, and the largest number of bits.
    #[error("{bits} bits a value: codebooks have 1 to {MAX_BITS}")]
    Bits {
        /// Bits that were asked for.
        bits: u32,
    },
    /// The sphere has too few dimensions for its coordinates to have a bounded density.
    #[error(
        "dimension {dim}: the coordinates of a sphere have a bounded density from dimension 3 on"
    )]
    Dimension {
        /// Dimension that was asked for.
        dim: usize,
    },
}

/// A symmetric density of mean 0 and variance 1 on `[-end, end]`.
trait Density {
    /// End of the support; may be infinite.
    fn end(&self) -> f64;
    /// The density at `x`.
    fn at(&self, x: f64) -> f64;
    /// Probability of `a..b`, `0 <= a < b <= end`.
    fn mass(&self, a: f64, b: f64) -> f64;
    /// Integral of x times the density over `a..b`.
    fn moment(&self, a: f64, b: f64) -> f64;

    /// Mean of the cell `a..b`.
    fn mean(&self, a: f64, b: f64) -> f64 {
        self.moment(a, b) / self.mass(a, b)
    }
}

struct Gaussian;

impl Density for Gaussian {
    fn end(&self) -> f64 {
        f64::INFINITY
    }

    fn at(&self, x: f64) -> f64 {
        (-x * x / 2.0).exp() / (2.0 * PI).sqrt()
    }

    fn mass(&self, a: f64, b: f64) -> f64 {
        upper_tail(a) - upper_tail(b)
    }

    fn moment(&self, a: f64, b: f64) -> f64 {
        self.at(a) - self.at(b)
    }
}

/// Probability that a unit Gaussian exceeds `x >= 0`: erfc(x / sqrt 2) / 2, to some 1e-14 of itself.
fn upper_tail(x: f64) -> f64 {
    let density = Gaussian.at(x);
    if x < 3.0 {
        // Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ..), all terms positive (Marsaglia 2004).
        let (mut sum, mut term, mut n) = (x, x, 1.0);
        while term > sum * 1e-17 {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        0.5 - density * sum
    } else if density > 0.0 {
        // Laplace's continued fraction phi(x) / (x + 1/(x + 2/(x + ..))), from its 60th level up.
        density / (1..=60).rev().fold(x, |tail, k| x + f64::from(k) / tail)
    } else {
        0.0
    }
}

/// sqrt(d) times a coordinate of a uniform point on the unit sphere in `d` dimensions.
struct Sphere {
    /// Dimension `d`, as a float.
    dim: f64,
    /// Factor that makes the density's integral 1.
    norm: f64,
}

impl Sphere {
    fn new(dim: usize) -> Self {
        let mut sphere = Self { dim: dim as f64, norm: 1.0 };
        sphere.norm = 0.5 / sphere.mass(0.0, sphere.end());
        sphere
    }

    /// cos(t)^power where sin(t)^2 is `sine2`, with no loss of digits where `power` is large and `t` small.
    fn cos_power(sine2: f64, power: f64) -> f64 {
        (0.5 * power * (-sine2.min(1.0)).ln_1p()).exp()
    }
}

impl Density for Sphere {
    fn end(&self) -> f64 {
        self.dim.sqrt()
    }

    fn at(&self, x: f64) -> f64 {
        self.norm * (1.0 - x * x / self.dim).powf((self.dim - 3.0) / 2.0)
    }

    fn mass(&self, a: f64, b: f64) -> f64 {
        // With x = sqrt(d) sin(t) the density (1 - x^2/d)^((d-3)/2) dx becomes
        // sqrt(d) cos(t)^(d-2) dt: smooth up to the end of the support.
        let angle = |x: f64| (x / self.end()).min(1.0).asin();
        // Past 12 standard deviations from the cell's start there is nothing left that f64 could see.
        let (a, b) = (angle(a), angle(b.min(a + 12.0)));
        let density = |t: f64| Self::cos_power(t.sin().powi(2), self.dim - 2.0);
        self.norm * self.end() * integral(a, b, density)
    }

    fn moment(&self, a: f64, b: f64) -> f64 {
        let power = |x: f64| Self::cos_power(x * x / self.dim, self.dim - 1.0);
        self.norm * self.dim / (self.dim - 1.0) * (power(a) - power(b))
    }
}

/// Integral of `f` over `a..b`: 16 panels of five-point Gauss-Legendre.
fn integral(a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PANELS: usize = 16;
    let (root, half) = ((10.0f64 / 7.0).sqrt(), (b - a) / (2 * PANELS) as f64);
    let (near, far) = ((5.0 - 2.0 * root).sqrt() / 3.0, (5.0 + 2.0 * root).sqrt() / 3.0);
    let (w_near, w_far) =
        ((322.0 + 13.0 * 70f64.sqrt()) / 900.0, (322.0 - 13.0 * 70f64.sqrt()) / 900.0);
    let panel = |i: usize| {
        let mid = a + (2 * i + 1) as f64 * half;
        let pair = |x: f64| f(mid - x * half) + f(mid + x * half);
        half * (128.0 / 225.0 * f(mid) + w_near * pair(near) + w_far * pair(far))
    };
    (0..PANELS).map(panel).sum()
}

/// A symmetric scalar quantizer for values of mean 0 and variance 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// `2^bits` levels, ascending.
    levels: Vec<f64>,
    /// `2^bits - 1` bounds between the levels' cells, ascending.
    bounds: Vec<f64>,
    /// Expected squared error of a value.
    mse: f64,
}

impl Codebook {
    /// For unit Gaussians. `bits`: 1 to 8. Errors: [`LloydMaxError::Bits`].
    pub fn gaussian(bits: u32) -> Result<Self, LloydMaxError> {
        check_bits(bits)?;
        Ok(Self::solve(&Gaussian, bits))
    }

    /// For the coordinates of a uniform point on the sphere of radius sqrt(`dim`) in `dim` dimensions.
    ///
    /// `dim`: at least 3. Errors: [`LloydMaxError`].
    pub fn sphere(bits: u32, dim: usize) -> Result<Self, LloydMaxError> {
        check_sphere(bits, dim)?;
        Ok(Self::solve(&Sphere::new(dim), bits))
    }

    /// The levels, ascending and antisymmetric.
    pub fn levels(&self) -> &[f64] {
        &self.levels
    }

    /// The bounds between neighbouring levels' cells.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Expected squared error of a value from the density that the codebook was made for.
    pub fn mse(&self) -> f64 {
        self.mse
    }

    /// Index of the level nearest to `x`; NaN gets index 0.
    pub fn nearest(&self, x: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < x)
    }

    fn solve(density: &impl Density, bits: u32) -> Self {
        let half = 1usize << (bits - 1);
        let mut positive = start(half, density.end());
        // Lloyd's rounds bring any start into Newton's reach, Newton does the rest.
        for _ in 0..4 {
            positive = cells(density, &positive).map(|(a, b)| density.mean(a, b)).collect();
        }
        for _ in 0..50 {
            if newton_step(density, &mut positive) < 1e-13 {
                break;
            }
        }
        // With every level the mean of its cell, E (x - c)^2 = E x^2 - E c^2.
        let energy = |((a, b), c): ((f64, f64), &f64)| c * c * density.mass(a, b);
        let mse = 1.0 - 2.0 * cells(density, &positive).zip(&positive).map(energy).sum::<f64>();
        let levels: Vec<f64> =
            positive.iter().rev().map(|c| -c).chain(positive.iter().copied()).collect();
        let bounds = levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        Self { levels, bounds, mse }
    }
}

fn check_bits(bits: u32) -> Result<(), LloydMaxError> {
    if (1..=MAX_BITS).contains(&bits) { Ok(()) } else { Err(LloydMaxError::Bits { bits }) }
}

/// Whether [`Codebook::sphere`] has such a codebook.
pub(super) fn check_sphere(bits: u32, dim: usize) -> Result<(), LloydMaxError> {
    check_bits(bits)?;
    if dim < 3 { Err(LloydMaxError::Dimension { dim }) } else { Ok(()) }
}

/// Positive levels near the optimum. Their density goes with the cube root of the source's
/// (Panter & Dite 1951): for a Gaussian, the quantiles of one that is sqrt(3) wider.
fn start(half: usize, end: f64) -> Vec<f64> {
    let quantile = |tail: f64| {
        let (mut low, mut high) = (0.0, 40.0);
        for _ in 0..60 {
            let mid = (low + high) / 2.0;
            *(if upper_tail(mid) > tail { &mut low } else { &mut high }) = mid;
        }
        low
    };
    let wide =
        (0..half).map(|i| 3f64.sqrt() * quantile(0.5 - (i as f64 + 0.5) / (2 * half) as f64));
    // A narrow support (few dimensions) must hold them all.
    let wide: Vec<f64> = wide.collect();
    let shrink = (0.99 * end / wide[half - 1]).min(1.0);
    wide.iter().map(|c| c * shrink).collect()
}

/// The cells `a..b` of the positive levels.
fn cells(density: &impl Density, levels: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    let bound = |i: usize| (levels[i - 1] + levels[i]) / 2.0;
    let (n, end) = (levels.len(), density.end());
    (0..n).map(move |i| {
        (if i == 0 { 0.0 } else { bound(i) }, if i + 1 == n { end } else { bound(i + 1) })
    })
}

/// One Newton step on c_i - mean(cell i) = 0; returns its largest component.
///
/// The mean of a..b moves with its ends by p(a) (mean - a) / mass and p(b) (b - mean) / mass, and an
/// inner end moves by half of each neighbour's move.
fn newton_step(density: &impl Density, levels: &mut [f64]) -> f64 {
    let n = levels.len();
    let (mut below, mut diagonal) = (vec![0.0; n], vec![0.0; n]);
    let (mut above, mut residual) = (vec![0.0; n], vec![0.0; n]);
    for (i, (a, b)) in cells(density, levels).enumerate() {
        let (mass, mean) = (density.mass(a, b), density.mean(a, b));
        let slope = |end: f64| density.at(end) * (mean - end).abs() / mass / 2.0;
        below[i] = if i == 0 { 0.0 } else { slope(a) };
        above[i] = if i + 1 == n { 0.0 } else { slope(b) };
        diagonal[i] = 1.0 - below[i] - above[i];
        residual[i] = levels[i] - mean;
    }
    // Thomas's algorithm on (-below, diagonal, -above).
    for i in 1..n {
        let factor = below[i] / diagonal[i - 1];
        diagonal[i] -= factor * above[i - 1];
        residual[i] += factor * residual[i - 1];
    }
    let (mut step, mut largest) = (0.0, 0.0f64);
    for i in (0..n).rev() {
        step = (residual[i] + above[i] * step) / diagonal[i];
        levels[i] -= step;
        largest = largest.max(step.abs());
    }
    largest
}

#[cfg(test)]
#[path = "lloyd_max_tests.rs"]
mod tests;
