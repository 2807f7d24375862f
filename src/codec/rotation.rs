//! Rotations: orthogonal maps that spread a vector's energy evenly over its coordinates.
//!
//! The turbo types rely on the Hadamard rotation that llama.cpp applies in its graph and never
//! rotate by themselves. These are for the paper's quantizers ([`super::paper`]) and for embeddings.
//!
//! | rotation | cost | dimension | after it, a coordinate of any fixed unit vector is |
//! |---|---|---|---|
//! | [`wht`] | n log2 n | power of two | anything: the transform is fixed, so some vectors stay peaked |
//! | [`RandomHadamard`] | n log2 n | power of two | sub-Gaussian |
//! | [`Haar`] | 2 n^2 | any | exactly the marginal of the uniform sphere, as the paper assumes |

use super::rng::SplitMix64;

/// Why a rotation did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Hadamard matrices are built here for powers of two only.
    #[error(
        "length {len} is not a power of two; use a Haar rotation, or split the vector into power-of-two pieces"
    )]
    NotPowerOfTwo {
        /// Values in the vector.
        len: usize,
    },
    /// A rotation of another dimension.
    #[error("vector has {len} values, but the rotation was made for {dim}")]
    WrongLength {
        /// Values in the vector.
        len: usize,
        /// The rotation's dimension.
        dim: usize,
    },
}

/// An orthogonal map of `dim` values, in place.
pub trait Rotation {
    /// Values in a vector.
    fn dim(&self) -> usize;

    /// Rotates `x`. Errors: [`RotationError::WrongLength`].
    fn forward(&self, x: &mut [f32]) -> Result<(), RotationError>;

    /// Undoes [`Self::forward`], but for rounding. Errors: [`RotationError::WrongLength`].
    fn inverse(&self, x: &mut [f32]) -> Result<(), RotationError>;
}

fn check_len(len: usize, dim: usize) -> Result<(), RotationError> {
    if len == dim { Ok(()) } else { Err(RotationError::WrongLength { len, dim }) }
}

/// Fast Walsh-Hadamard transform in natural (Sylvester) order, orthonormal: its own inverse.
///
/// `x`: a power of two of values. Errors: [`RotationError::NotPowerOfTwo`].
pub fn wht(x: &mut [f32]) -> Result<(), RotationError> {
    let n = x.len();
    if !n.is_power_of_two() {
        return Err(RotationError::NotPowerOfTwo { len: n });
    }
    let mut half = 1;
    while half < n {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    // One multiplication at the end: exact for even powers of two, one rounding otherwise.
    let norm = (1.0 / (n as f64).sqrt()) as f32;
    x.iter_mut().for_each(|v| *v *= norm);
    Ok(())
}

/// Random signs, then [`wht`]: H D with D = diag(+1 or -1).
#[derive(Clone, Debug)]
pub struct RandomHadamard {
    /// +1.0 or -1.0 for each of the `dim` values.
    signs: Vec<f32>,
}

impl RandomHadamard {
    /// Draws the signs: value `i` is negated if bit `i % 64` of SplitMix64's `i / 64`-th output is set.
    ///
    /// Errors: [`RotationError::NotPowerOfTwo`].
    pub fn new(dim: usize, seed: u64) -> Result<Self, RotationError> {
        if !dim.is_power_of_two() {
            return Err(RotationError::NotPowerOfTwo { len: dim });
        }
        let mut rng = SplitMix64::new(seed);
        let words = std::iter::repeat_with(|| rng.next_u64()).take(dim.div_ceil(64));
        let bits = words.flat_map(|word| (0..64).map(move |e| word >> e & 1));
        let signs = bits.take(dim).map(|bit| 1.0 - 2.0 * bit as f32).collect();
        Ok(Self { signs })
    }

    fn flip(&self, x: &mut [f32]) {
        x.iter_mut().zip(&self.signs).for_each(|(v, sign)| *v *= sign);
    }
}

impl Rotation for RandomHadamard {
    fn dim(&self) -> usize {
        self.signs.len()
    }

    fn forward(&self, x: &mut [f32]) -> Result<(), RotationError> {
        check_len(x.len(), self.dim())?;
        self.flip(x);
        wht(x)
    }

    fn inverse(&self, x: &mut [f32]) -> Result<(), RotationError> {
        check_len(x.len(), self.dim())?;
        wht(x)?;
        self.flip(x);
        Ok(())
    }
}

/// A dense rotation drawn from the Haar measure: uniform over the orthogonal group O(dim).
///
/// The Q of the QR decomposition of a Gaussian matrix, with the signs of R's diagonal moved into Q,
/// is Haar distributed. It is a product of Householder reflections whose vectors come from
/// *independent* Gaussians of dim, dim-1, .. 1 values, so neither the matrix nor its decomposition
/// is needed: half the memory, `dim^3` less set-up, and orthogonal to rounding by construction.
/// Source: Stewart 1980, "The efficient generation of random orthogonal matrices", theorem 3.3.
#[derive(Clone, Debug)]
pub struct Haar {
    dim: usize,
    /// Unit vectors of the reflections, one after the other: `dim` values, `dim - 1`, .. 2.
    /// The vector of `m` values acts on the last `m` coordinates.
    reflectors: Vec<f32>,
    /// +1.0 or -1.0 for each of the `dim` values: the sign fix.
    signs: Vec<f32>,
}

impl Haar {
    /// Draws a rotation of `dim` values; 2 `dim`^2 bytes.
    pub fn new(dim: usize, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let mut reflectors = Vec::with_capacity((dim * (dim + 1) / 2).saturating_sub(1));
        let mut signs = Vec::with_capacity(dim);
        for m in (1..=dim).rev() {
            let mut v: Vec<f64> = (0..m).map(|_| rng.gaussian()).collect();
            // The reflection that sends v to -sign(v0) |v| e0: the sum below cannot cancel.
            let sign = if v[0] < 0.0 { -1.0 } else { 1.0 };
            signs.push(-sign as f32);
            if m == 1 {
                continue; // nothing to reflect: the last coordinate has its sign alone
            }
            v[0] += sign * norm(&v);
            let scale = 1.0 / norm(&v);
            reflectors.extend(v.iter().map(|v| (v * scale) as f32));
        }
        Self { dim, reflectors, signs }
    }

    /// The reflections, first to last: the vector and the first coordinate that it acts on.
    fn reflections(&self) -> impl DoubleEndedIterator<Item = (&[f32], usize)> {
        (0..self.dim.saturating_sub(1)).map(|first| {
            // Vectors before this one have dim, dim-1, .. values.
            let start = first * (2 * self.dim - first + 1) / 2;
            (&self.reflectors[start..start + self.dim - first], first)
        })
    }
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// x - 2 v <v, x> / <v, v>. The division keeps it orthogonal although `v` was rounded to f32.
fn reflect(v: &[f32], x: &mut [f32]) {
    let (mut vx, mut vv) = (0.0f64, 0.0f64);
    for (v, x) in v.iter().zip(&*x) {
        vx += f64::from(*v) * f64::from(*x);
        vv += f64::from(*v) * f64::from(*v);
    }
    let scale = (2.0 * vx / vv) as f32;
    for (v, x) in v.iter().zip(x) {
        *x -= scale * v;
    }
}

impl Rotation for Haar {
    fn dim(&self) -> usize {
        self.dim
    }

    fn forward(&self, x: &mut [f32]) -> Result<(), RotationError> {
        check_len(x.len(), self.dim)?;
        x.iter_mut().zip(&self.signs).for_each(|(v, sign)| *v *= sign);
        self.reflections().rev().for_each(|(v, first)| reflect(v, &mut x[first..]));
        Ok(())
    }

    fn inverse(&self, x: &mut [f32]) -> Result<(), RotationError> {
        check_len(x.len(), self.dim)?;
        self.reflections().for_each(|(v, first)| reflect(v, &mut x[first..]));
        x.iter_mut().zip(&self.signs).for_each(|(v, sign)| *v *= sign);
        Ok(())
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
