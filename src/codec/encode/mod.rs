//! The encoder: a block of 64 values to the scale and the tail-biting path that fit it best.
//!
//! For each of a few scales around the best guess, a Viterbi search finds a good path through the
//! trellis; the winner is the path whose levels point most nearly in the block's direction. The search
//! is cheap because it runs on bytes: what a branch costs comes from a table (`metric`), path
//! costs are saturating `u8`, 64 states fill one vector register, and the scales run side by side.
//!
//! The stored scale is not that of least squares, `<y, c> / <c, c>` for levels `c` of a block `y`: with it
//! the decoded block is too short, by the share of the error, and so is every product with it. With
//! `<y, y> / <y, c>` its projection on the block is the block.
//!
//! Everything except the Viterbi search itself is portable code shared by every ISA, in a fixed
//! order of floating-point operations, so that codes are the same bit for bit everywhere.

mod metric;
pub mod search;

use super::block::{Block, QK};
use super::trellis::subsets;
use half::f16;
pub use metric::{Branch, MAX_COST, MAX_INDEX, SCALES, STEPS_PER_UNIT, Tables, cost_unit};

/// The branches of one block's values at one scale.
pub type Branches = [Branch; QK];

/// The Viterbi search: a block's branches at every scale to a tail-biting path each.
pub trait Search: Fn(&[Branches; SCALES]) -> [u64; SCALES] {}
impl<F: Fn(&[Branches; SCALES]) -> [u64; SCALES]> Search for F {}

/// A block and what could not be coded in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<const K: usize> {
    /// The code.
    pub block: Block<K>,
    /// NaNs and infinities in the input; they were coded as if they were 0.
    pub nonfinite: u32,
}

/// Encodes a block with the portable search: the specification of every kernel's encoder.
pub fn encode<const K: usize>(x: &[f32; QK]) -> Encoded<K> {
    encode_with(x, Tables::of::<K>(), search::paths)
}

/// Encodes a block with a given Viterbi search.
///
/// Inlined into each ISA's entry point, so that the loops below are compiled for that ISA.
#[inline(always)]
pub fn encode_with<const K: usize>(
    x: &[f32; QK],
    tables: &Tables,
    search: impl Search,
) -> Encoded<K> {
    encode_to_fit(x, tables, search, Fit::Unbiased)
}

/// How a block's scale follows from its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec) enum Fit {
    /// `<y, y> / <y, c>`, up to [`SCALE_LIMIT`]: what is stored. Products with decoded blocks are right on average,
    /// and a decoded block that is encoded again stays as it is.
    Unbiased,
    /// `<y, c> / <c, c>`: the least squared error, for the trainer and to compare with other codes. It makes
    /// every product smaller by the share of the error, which no average over keys or values takes away.
    LeastSquares,
}

/// An unbiased scale is at most so many times that of least squares.
///
/// Twice is where the error is as large as the block, as if zeros were stored. Gaussian blocks need 1.17 at most
/// (of 20,000; turbo2), those with a few values far out 1.8. Only a block that is made for it gets here: with a large
/// value where the path of all others has no level for it.
pub const SCALE_LIMIT: f32 = 2.0;

/// [`encode_with`], with either scale.
#[inline(always)]
pub(in crate::codec) fn encode_to_fit<const K: usize>(
    x: &[f32; QK],
    tables: &Tables,
    search: impl Search,
    fit: Fit,
) -> Encoded<K> {
    let Normalized { y, peak, exponent, nonfinite } = normalize(x);
    if peak == 0.0 {
        return Encoded { block: Block::ZERO, nonfinite };
    }
    let energy = dot(&y, &y);
    let extent = extent(energy, peak);

    let mut best = Candidate::NONE;
    let mut branches = [[tables.branches[0]; QK]; SCALES];
    for (branches, scale) in branches.iter_mut().zip(tables.scales) {
        look_up(&y, STEPS_PER_UNIT as f32 / (extent * scale), tables, branches);
    }
    for (branches, path) in branches.iter().zip(search(&branches)) {
        best.improve(&y, branches, path);
    }
    let scale = match fit {
        Fit::Unbiased => best.unbiased(energy),
        Fit::LeastSquares => best.scale,
    };
    Encoded { block: best.block(scale, tables, exponent), nonfinite }
}

/// A block at a magnitude at which no intermediate overflows: `x = y * 2^exponent`.
struct Normalized {
    y: [f32; QK],
    /// `max |y|`: in 1..4, or 0 where nothing but zeros can be coded.
    peak: f32,
    exponent: i32,
    /// Values that were not finite; they are 0 in `y`.
    nonfinite: u32,
}

#[inline(always)]
fn normalize(x: &[f32; QK]) -> Normalized {
    // Finite numbers have an exponent field below 255; comparing bits vectorises and needs no branch.
    const INFINITY: u32 = 0x7f80_0000;
    let mut nonfinite = 0;
    let mut y = *x;
    let mut peak = 0;
    for y in &mut y {
        let magnitude = y.to_bits() & 0x7fff_ffff;
        let finite = magnitude < INFINITY;
        nonfinite += u32::from(!finite);
        *y = if finite { *y } else { 0.0 };
        peak = peak.max(if finite { magnitude } else { 0 });
    }
    // Below f16's smallest scale times the largest level nothing but zeros can be coded.
    const SMALLEST: f32 = 1e-9;
    if f32::from_bits(peak) < SMALLEST {
        return Normalized { y, peak: 0.0, exponent: 0, nonfinite };
    }
    // 2^-127 would be subnormal, so the largest values keep a factor of two.
    let exponent = ((peak >> 23) as i32 - 127).min(126);
    let factor = f32::from_bits(((127 - exponent) as u32) << 23);
    for y in &mut y {
        *y *= factor;
    }
    Normalized { y, peak: f32::from_bits(peak) * factor, exponent, nonfinite }
}

/// What a block's extent, which its scale is proportional to, takes of its RMS.
pub const EXTENT_RMS: f32 = 0.35;
/// And of its peak.
pub const EXTENT_PEAK: f32 = 0.26;

/// What the best scale is proportional to: the RMS of a block whose peak is 2.5 times that (as is
/// usual for Gaussians), more where there are outliers to reach, less where there are none.
///
/// Fitted to the best scales of Gaussian blocks and of real keys and values with peaks of 1.5 to 4.5
/// times their RMS; the same line serves all three types. Against the RMS alone it saves 3% of the
/// error on Gaussians and more than half of it on blocks with outliers.
#[inline(always)]
fn extent(energy: f32, peak: f32) -> f32 {
    let rms = (energy / QK as f32).sqrt();
    EXTENT_RMS * rms + EXTENT_PEAK * peak
}

/// The branches of every value, scaled by `factor` to grid steps and rounded, ties to even.
#[inline(always)]
fn look_up(y: &[f32; QK], factor: f32, tables: &Tables, branches: &mut Branches) {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits.
    const MAGIC: f32 = 12_582_912.0;
    const LIMIT: f32 = (MAX_INDEX / 2) as f32;
    let mut indices = [0; QK];
    for (index, y) in indices.iter_mut().zip(y) {
        *index = ((y * factor).clamp(-LIMIT, LIMIT) + (LIMIT + MAGIC)).to_bits() & 0xffff;
    }
    for (branch, index) in branches.iter_mut().zip(indices) {
        *branch = tables.branches[index as usize];
    }
}

/// `sum of a[e] * b[e]` over a block, as eight running sums folded in halves: one order of
/// additions on every ISA.
#[inline(always)]
fn dot(a: &[f32; QK], b: &[f32; QK]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for half in [4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// The best path so far, with its levels and its least-squares fit.
struct Candidate {
    path: u64,
    levels: [f32; QK],
    /// `<y, c>`: above 0, if there is a path.
    product: f32,
    /// The least-squares scale `<y, c> / <c, c>`.
    scale: f32,
    /// Energy of the block that the code explains, `<y, c>^2 / <c, c>`. The most of it is the least error
    /// with either scale.
    score: f32,
}

impl Candidate {
    const NONE: Self = Self { path: 0, levels: [0.0; QK], product: 0.0, scale: 0.0, score: 0.0 };

    /// Takes `path` where it explains more of `y`.
    #[inline(always)]
    fn improve(&mut self, y: &[f32; QK], branches: &Branches, path: u64) {
        let levels = levels_on(path, branches);
        // Exact: at most 64 * 127^2, below 2^24.
        let cc = dot(&levels, &levels);
        let xc = dot(y, &levels);
        let scale = xc / cc;
        if xc > 0.0 && xc * scale > self.score {
            *self = Self { path, levels, product: xc, scale, score: xc * scale };
        }
    }

    /// The scale of [`Fit::Unbiased`]; 0 if there is no path. `energy`: `<y, y>`.
    #[inline(always)]
    fn unbiased(&self, energy: f32) -> f32 {
        // A score above 0 keeps the product above 2^-75, and the quotient finite.
        if self.score > 0.0 { (energy / self.product).min(SCALE_LIMIT * self.scale) } else { 0.0 }
    }

    /// The block's bytes. `exponent`: of the factor that [`normalize`] took out of `scale`.
    #[inline(always)]
    fn block<const K: usize>(&self, scale: f32, tables: &Tables, exponent: i32) -> Block<K> {
        // Two exact steps, because 2^exponent alone may be out of range.
        let half = exponent / 2;
        let power = |e: i32| f32::from_bits(((127 + e) as u32) << 23);
        let scale = scale * power(half) * power(exponent - half);
        let scale = f16::from_f32(scale.min(f16::MAX.to_f32()));
        if scale.to_bits() == 0 {
            return Block::ZERO;
        }
        let mut numbers = [0; QK];
        for (number, level) in numbers.iter_mut().zip(self.levels) {
            *number = tables.numbers[level as i8 as u8 as usize];
        }
        let mut planes = [[0; 8]; K];
        planes[0] = self.path.to_le_bytes();
        for (k, plane) in planes.iter_mut().enumerate().skip(1) {
            for (byte, numbers) in plane.iter_mut().zip(numbers.as_chunks::<8>().0) {
                *byte = gather_bit(*numbers, k + 1);
            }
        }
        Block { scale: scale.to_le_bytes(), planes }
    }
}

/// The level of every value on a path.
#[inline(always)]
fn levels_on(path: u64, branches: &Branches) -> [f32; QK] {
    let (z1, z0) = subsets(path);
    let mut levels = [0.0; QK];
    for (group, (levels, branches)) in
        levels.as_chunks_mut::<8>().0.iter_mut().zip(branches.as_chunks::<8>().0).enumerate()
    {
        let (z1, z0) = ((z1 >> (8 * group)) as u32, (z0 >> (8 * group)) as u32);
        for lane in 0..8 {
            let subset = (z1 >> lane & 1) << 1 | (z0 >> lane & 1);
            let word = i32::from_le_bytes(branches[lane].levels.map(|l| l as u8));
            // The subset's byte, sign-extended.
            levels[lane] = (word >> (8 * subset) << 24 >> 24) as f32;
        }
    }
    levels
}

/// Bit `bit` of eight bytes, the first byte's lowest.
#[inline(always)]
fn gather_bit(bytes: [u8; 8], bit: usize) -> u8 {
    let bits = u64::from_le_bytes(bytes) >> bit & 0x0101_0101_0101_0101;
    (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}
