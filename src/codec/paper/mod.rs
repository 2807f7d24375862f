//! The quantizers of the paper: TurboQuant_mse and TurboQuant_prod, for vectors of any dimension from 3 up.
//!
//! Both rotate a vector at random, so that every coordinate has the same known density, and quantize
//! each coordinate by that density's Lloyd-Max codebook. [`TurboQuantMse`] stops there and has the
//! least error of a vector; [`TurboQuantProd`] spends one of its bits on a sketch of what is left
//! and estimates inner products without bias. Use them for embeddings and to reproduce the paper;
//! the KV cache is better served by the turbo types, which have at least 29% less error at the same bits and
//! products that are right on average, too.
//!
//! Source: Zandieh, Daliri, Hadian & Mirrokni 2025, "TurboQuant", arXiv:2504.19874.

mod mse;
mod pack;
mod prod;

pub use mse::TurboQuantMse;
pub use prod::{ProdQuery, TurboQuantProd};

use super::lloyd_max::{Codebook, LloydMaxError};
use super::rotation::{Rotation, RotationError};

/// Why a vector was not encoded or decoded.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PaperError {
    /// No codebook of so many bits or for so few dimensions.
    #[error(transparent)]
    Codebook(#[from] LloydMaxError),
    /// The vector does not fit the rotation, or the rotation does not exist.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The code has another number of bytes.
    #[error("code has {len} bytes, but {expected} hold a vector of {dim} values at {bits} bits")]
    CodeLength {
        /// Bytes given.
        len: usize,
        /// Bytes of a code.
        expected: usize,
        /// Values of a vector.
        dim: usize,
        /// Bits a value.
        bits: u32,
    },
    /// NaN or infinity in the vector.
    #[error("value {index} of the vector is {value}; only finite values can be encoded")]
    NotFinite {
        /// Where it is.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The query was made by a quantizer of another dimension.
    #[error("query has {len} values, but the quantizer was made for {dim}")]
    QueryLength {
        /// Values of the query.
        len: usize,
        /// Values of a vector.
        dim: usize,
    },
}

/// `x` rotated and divided by its norm, and that norm. The zero vector stays zero.
fn rotated_unit(rotation: &impl Rotation, x: &[f32]) -> Result<(Vec<f32>, f32), PaperError> {
    if let Some((index, value)) = x.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(PaperError::NotFinite { index, value: *value });
    }
    let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    let mut unit: Vec<f32> = x.iter().map(|v| (f64::from(*v) * scale) as f32).collect();
    rotation.forward(&mut unit)?;
    Ok((unit, norm.min(f64::from(f32::MAX)) as f32))
}

/// A codebook for the coordinates of unit vectors in `dim` dimensions.
#[derive(Clone, Debug)]
struct Scalar {
    bits: u32,
    codebook: Codebook,
    /// The codebook's levels over sqrt(dim).
    levels: Vec<f32>,
    /// sqrt(dim): the codebook is for unit variance, a unit vector's coordinates have variance 1/dim.
    root: f64,
}

impl Scalar {
    fn new(bits: u32, dim: usize) -> Result<Self, LloydMaxError> {
        let codebook = Codebook::sphere(bits, dim)?;
        let root = (dim as f64).sqrt();
        let levels = codebook.levels().iter().map(|c| (c / root) as f32).collect();
        Ok(Self { bits, codebook, levels, root })
    }

    fn index(&self, coordinate: f32) -> usize {
        self.codebook.nearest(f64::from(coordinate) * self.root)
    }
}

/// Reads the f32 at byte `at`.
fn float_at(code: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]])
}

#[cfg(test)]
mod tests;
