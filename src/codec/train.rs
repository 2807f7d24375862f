//! The trainer of the level tables: generalized Lloyd iteration with the whole encoder in the loop.
//!
//! Alternates between encoding Gaussian blocks (tail-biting search, scale search and all) and moving
//! each level to the centroid of the values that it coded, `sum(s x) / sum(s^2)` over its values `x`
//! at their blocks' scales `s`. Levels are rounded to int8 before every pass, so what is trained is
//! the grid that decodes. Scales are those of least squares: centroids are, too, and the error as a whole is
//! least with both. Deterministic: same seed, same tables.

use super::block::QK;
use super::encode::{Fit, SCALES, Tables, encode_to_fit, search};
use super::rng::SplitMix64;
use super::trellis;

/// What training gives: a type's levels and the scales to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// `2^(K+1)` levels, ascending, antisymmetric, the outermost at 127.
    pub levels: Vec<i8>,
    /// Scales for the encoder, as multiples of a block's extent.
    pub scales: [f32; SCALES],
    /// Mean relative squared error over blocks that training did not see, with scales of least squares.
    pub distortion: f64,
}

/// How much to train on. The shipped tables are [`Effort::FULL`] from seed 1.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Blocks in each pass.
    pub blocks: usize,
    /// Rounds of training the levels, then centring the scales.
    pub rounds: usize,
    /// Passes over the blocks in a round.
    pub passes: usize,
}

impl Effort {
    /// About fifteen seconds per type.
    pub const FULL: Self = Self { blocks: 4000, rounds: 4, passes: 5 };
}

/// Half the range of the scales tried, as a logarithm. Wider ranges lose at the middle what they
/// gain at the ends: 0.10 to 0.16 differ by 1%.
const RANGE: f64 = 0.13;

/// Costs of branches while levels are trained, for K = 2, 3, 4: finer than the encoder's
/// ([`super::encode::cost_unit`]), whose costs may change where the levels, which are format, may not.
const COST_UNITS: [i32; 3] = [84, 18, 4];
const MAX_COST: i32 = 60;

/// Trains the tables of turbo`K`.
pub fn train<const K: usize>(seed: u64, effort: Effort) -> Trained {
    let mut rng = SplitMix64::new(seed);
    let mut state = State::companded(K);
    for _ in 0..effort.rounds {
        let blocks = gaussian_blocks(&mut rng, effort.blocks);
        for _ in 0..effort.passes {
            state.pass::<K>(&blocks);
        }
        state.centre_scales::<K>(&gaussian_blocks(&mut rng, effort.blocks / 2));
    }
    Trained {
        levels: state.rounded(),
        scales: state.scales(),
        distortion: distortion::<K>(&state.tables(K), &gaussian_blocks(&mut rng, effort.blocks)),
    }
}

/// Mean relative squared error of `blocks` under `tables`, with scales of least squares in half precision.
pub fn distortion<const K: usize>(tables: &Tables, blocks: &[[f32; QK]]) -> f64 {
    let total: f64 = blocks
        .iter()
        .map(|x| {
            let (scale, levels) = code::<K>(tables, x);
            let error =
                |(x, level): (&f32, &i8)| (f64::from(*x) - scale * f64::from(*level)).powi(2);
            x.iter().zip(&levels).map(error).sum::<f64>() / energy(x)
        })
        .sum();
    total / blocks.len() as f64
}

/// Blocks of unit Gaussians.
pub fn gaussian_blocks(rng: &mut SplitMix64, blocks: usize) -> Vec<[f32; QK]> {
    (0..blocks).map(|_| std::array::from_fn(|_| rng.gaussian() as f32)).collect()
}

struct State {
    /// Levels before rounding.
    levels: Vec<f64>,
    /// Middle of the scales tried.
    centre: f64,
}

impl State {
    /// Quantiles of a wider Gaussian, the optimal density at high rate (Panter & Dite 1951), cut
    /// back a little where few levels are left to spend on tails.
    fn companded(k: usize) -> Self {
        let count = 2 << k;
        let quantile = |i: usize| gaussian_quantile((i as f64 + 0.5) / count as f64);
        let outermost = quantile(count - 1);
        let shrink = [0.85, 0.93, 0.97][k - 2];
        Self {
            levels: (0..count).map(|i| quantile(i) / outermost * 127.0).collect(),
            centre: shrink * 3f64.sqrt() * outermost / 127.0,
        }
    }

    fn rounded(&self) -> Vec<i8> {
        self.levels.iter().map(|l| l.round().clamp(-127.0, 127.0) as i8).collect()
    }

    fn scales(&self) -> [f32; SCALES] {
        let position = |i: usize| 2.0 * i as f64 / (SCALES - 1) as f64 - 1.0;
        std::array::from_fn(|i| (self.centre * (RANGE * position(i)).exp()) as f32)
    }

    fn tables(&self, k: usize) -> Tables {
        Tables::with_costs(&self.rounded(), self.scales(), COST_UNITS[k - 2], MAX_COST)
    }

    /// Moves every level by how far its centroid lies from where it was used.
    fn pass<const K: usize>(&mut self, blocks: &[[f32; QK]]) {
        let (tables, used) = (self.tables(K), self.rounded());
        let mut sums = vec![(0.0, 0.0); used.len()];
        for x in blocks {
            let (scale, levels) = code::<K>(&tables, x);
            let weight = QK as f64 / energy(x);
            for (x, level) in x.iter().zip(levels) {
                let (sx, ss) = &mut sums[used.partition_point(|&l| l < level)];
                *sx += weight * scale * f64::from(*x);
                *ss += weight * scale * scale;
            }
        }
        for ((level, used), (sx, ss)) in self.levels.iter_mut().zip(used).zip(sums) {
            if ss > 0.0 {
                *level += sx / ss - f64::from(used);
            }
        }
        self.normalize();
    }

    /// Makes the table antisymmetric, and its outermost level 127.
    fn normalize(&mut self) {
        let count = self.levels.len();
        for i in 0..count / 2 {
            let level = (self.levels[count - 1 - i] - self.levels[i]) / 2.0;
            self.levels[i] = -level;
            self.levels[count - 1 - i] = level;
        }
        let factor = 127.0 / self.levels[count - 1];
        self.levels.iter_mut().for_each(|level| *level *= factor);
        self.centre /= factor;
    }

    /// Moves the scales to the best of a few places nearby.
    fn centre_scales<const K: usize>(&mut self, blocks: &[[f32; QK]]) {
        let centre = self.centre;
        let distortion = |factor: &f64| {
            let moved = Self { levels: self.levels.clone(), centre: centre * factor };
            distortion::<K>(&moved.tables(K), blocks)
        };
        let factors = [0.94, 0.97, 1.0, 1.03, 1.06].map(|f| (f, distortion(&f)));
        let best = factors.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        self.centre *= best.map_or(1.0, |(factor, _)| *factor);
    }
}

/// A block's scale of least squares, in half precision, and its levels.
fn code<const K: usize>(tables: &Tables, x: &[f32; QK]) -> (f64, [i8; QK]) {
    let block = encode_to_fit::<K>(x, tables, search::paths, Fit::LeastSquares).block;
    let table = &tables.levels[..2 << K];
    (f64::from(block.scale()), trellis::decode_with(&block, table))
}

fn energy(x: &[f32; QK]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum()
}

/// Inverse of the unit Gaussian's distribution function, by bisection of [`gaussian_cdf`].
fn gaussian_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if gaussian_cdf(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Marsaglia's series (2004), exact to rounding where a start value for training needs it.
fn gaussian_cdf(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    while sum + term != sum {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode::cost_unit;

    #[test]
    fn quantiles_invert_the_distribution() {
        for p in [0.01, 0.25, 0.5, 0.9, 0.999] {
            assert!((gaussian_cdf(gaussian_quantile(p)) - p).abs() < 1e-12);
        }
    }

    #[test]
    fn training_improves_on_its_start() {
        let blocks = gaussian_blocks(&mut SplitMix64::new(2), 200);
        let start = distortion::<3>(&State::companded(3).tables(3), &blocks);
        let trained = train::<3>(1, Effort { blocks: 200, rounds: 1, passes: 4 });
        let tables = Tables::new(&trained.levels, trained.scales, cost_unit(3));
        assert!(distortion::<3>(&tables, &blocks) < start);
    }
}
