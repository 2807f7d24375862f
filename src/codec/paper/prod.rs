//! TurboQuant_prod: TurboQuant_mse with one bit less, and a one-bit sketch of its residual (algorithm 2).

use std::f64::consts::FRAC_PI_2;

use super::super::lloyd_max::check_sphere;
use super::super::rng::SplitMix64;
use super::super::rotation::{Haar, Rotation};
use super::{PaperError, Scalar, float_at, pack, rotated_unit};

/// Bytes of the vector's norm and of the residual's, two f32.
const HEADER: usize = 8;

/// Quantizer of unbiased inner products: `bits` a value and eight bytes for two norms.
///
/// A code is the vector's norm and its residual's (f32, little-endian), then an index of `bits - 1`
/// bits for each value of the rotated vector, then (from a byte's start) a sign bit for each row of the
/// sketch; low bits first, without gaps, a set bit for -1.
///
/// The sketch (QJL, Zandieh et al. 2024, arXiv:2406.03482) is sign(S r) of the residual r, with S a
/// `dim` x `dim` Gaussian matrix. It is taken of the *rotated* residual, which is the same in
/// distribution because S is rotation invariant, and saves a rotation.
///
/// Variance of an estimate for unit vectors: at most pi/2 `mse(bits - 1)` / `dim`.
#[derive(Clone, Debug)]
pub struct TurboQuantProd<R = Haar> {
    rotation: R,
    bits: u32,
    /// Of `bits - 1` bits; none at one bit, where the residual is the vector.
    scalar: Option<Scalar>,
    /// `dim` rows of `dim` unit Gaussians.
    sketch: Vec<f32>,
}

/// A query vector, made ready by [`TurboQuantProd::query`] for any number of codes.
#[derive(Clone, Debug)]
pub struct ProdQuery {
    /// The rotated query.
    rotated: Vec<f32>,
    /// The sketch matrix times the rotated query.
    sketched: Vec<f32>,
}

impl TurboQuantProd {
    /// With the paper's rotation; it and the sketch are drawn from `seed`.
    ///
    /// `dim`: 3 or more; `bits`: 1 to 8. Errors: [`PaperError::Codebook`].
    pub fn new(dim: usize, bits: u32, seed: u64) -> Result<Self, PaperError> {
        Self::with_rotation(Haar::new(dim, seed), bits, !seed)
    }
}

impl<R: Rotation> TurboQuantProd<R> {
    /// With a rotation of one's own and a sketch drawn from `seed`, which must not be the rotation's seed.
    ///
    /// `bits`: 1 to 8. Errors: [`PaperError::Codebook`].
    pub fn with_rotation(rotation: R, bits: u32, seed: u64) -> Result<Self, PaperError> {
        let dim = rotation.dim();
        check_sphere(bits, dim)?;
        let scalar = if bits == 1 { None } else { Some(Scalar::new(bits - 1, dim)?) };
        let sketch = SplitMix64::new(seed).gaussians(dim * dim);
        Ok(Self { rotation, bits, scalar, sketch })
    }

    /// Values of a vector.
    pub fn dim(&self) -> usize {
        self.rotation.dim()
    }

    /// Bits a value, the sketch's included.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes of a code.
    pub fn code_bytes(&self) -> usize {
        HEADER + self.index_bytes() + pack::bytes(1, self.dim())
    }

    /// Bound on `dim` times the variance of an estimate for unit vectors: the paper's D_prod times `dim`.
    pub fn variance(&self) -> f64 {
        FRAC_PI_2 * self.scalar.as_ref().map_or(1.0, |scalar| scalar.codebook.mse())
    }

    /// Encodes `x`, `dim` finite values, to `code`, `code_bytes` bytes. Errors: [`PaperError`].
    pub fn encode(&self, x: &[f32], code: &mut [u8]) -> Result<(), PaperError> {
        self.check(code)?;
        let (mut residual, norm) = rotated_unit(&self.rotation, x)?;
        let (header, rest) = code.split_at_mut(HEADER);
        let (indices, signs) = rest.split_at_mut(self.index_bytes());
        if let Some(scalar) = &self.scalar {
            pack::pack(scalar.bits, residual.iter().map(|v| scalar.index(*v)), indices);
            for v in &mut residual {
                *v -= scalar.levels[scalar.index(*v)];
            }
        }
        let length = dot(&residual, &residual).sqrt() * f64::from(norm);
        header[..4].copy_from_slice(&norm.to_le_bytes());
        header[4..].copy_from_slice(&(length.min(f64::from(f32::MAX)) as f32).to_le_bytes());
        pack::pack(1, self.rows().map(|row| usize::from(dot(row, &residual) < 0.0)), signs);
        Ok(())
    }

    /// Decodes `code` to `x`, `dim` values, with no bias but more error than [`super::TurboQuantMse`].
    ///
    /// Errors: [`PaperError`].
    pub fn decode(&self, code: &[u8], x: &mut [f32]) -> Result<(), PaperError> {
        let parts = self.parts(code)?;
        x.fill(0.0);
        for (row, sign) in self.rows().zip(parts.signs) {
            let weight = (parts.residual * sign) as f32;
            x.iter_mut().zip(row).for_each(|(x, s)| *x += weight * s);
        }
        for (x, level) in x.iter_mut().zip(self.levels(parts.indices)) {
            *x += level * parts.norm;
        }
        Ok(self.rotation.inverse(x)?)
    }

    /// Makes `y`, `dim` values, ready for [`Self::dot`]. Errors: [`PaperError::Rotation`].
    pub fn query(&self, y: &[f32]) -> Result<ProdQuery, PaperError> {
        let mut rotated = y.to_vec();
        self.rotation.forward(&mut rotated)?;
        let sketched = self.rows().map(|row| dot(row, &rotated) as f32).collect();
        Ok(ProdQuery { rotated, sketched })
    }

    /// Estimate of the inner product of the query with the vector in `code`.
    ///
    /// Its mean over seeds is the inner product itself. Errors: [`PaperError::CodeLength`], [`PaperError::QueryLength`].
    pub fn dot(&self, query: &ProdQuery, code: &[u8]) -> Result<f32, PaperError> {
        let (len, dim) = (query.rotated.len(), self.dim());
        if len != dim {
            return Err(PaperError::QueryLength { len, dim });
        }
        let parts = self.parts(code)?;
        let levels = self.levels(parts.indices).zip(&query.rotated);
        let coarse: f64 = levels.map(|(level, y)| f64::from(level) * f64::from(*y)).sum();
        let signs = parts.signs.zip(&query.sketched);
        let fine: f64 = signs.map(|(sign, y)| sign * f64::from(*y)).sum();
        Ok((coarse * f64::from(parts.norm) + fine * parts.residual) as f32)
    }

    fn index_bytes(&self) -> usize {
        pack::bytes(self.bits - 1, self.dim())
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.sketch.chunks_exact(self.dim())
    }

    /// Levels of the rotated unit vector; none at one bit.
    fn levels<'a>(&'a self, indices: &'a [u8]) -> impl Iterator<Item = f32> + 'a {
        let scalar = self.scalar.iter();
        scalar.flat_map(|scalar| pack::unpack(scalar.bits, indices).map(|i| scalar.levels[i]))
    }

    fn parts<'a>(
        &self,
        code: &'a [u8],
    ) -> Result<Parts<'a, impl Iterator<Item = f64>>, PaperError> {
        self.check(code)?;
        let (indices, signs) = code[HEADER..].split_at(self.index_bytes());
        // E sign(<s, r>) <s, y> = sqrt(2/pi) <r, y> / |r| for Gaussian s.
        let residual = f64::from(float_at(code, 4)) * FRAC_PI_2.sqrt() / self.dim() as f64;
        let signs = pack::unpack(1, signs).map(|bit| 1.0 - 2.0 * bit as f64);
        Ok(Parts { norm: float_at(code, 0), residual, indices, signs })
    }

    fn check(&self, code: &[u8]) -> Result<(), PaperError> {
        let (len, expected) = (code.len(), self.code_bytes());
        if len == expected {
            return Ok(());
        }
        Err(PaperError::CodeLength { len, expected, dim: self.dim(), bits: self.bits })
    }
}

/// A code, taken apart.
struct Parts<'a, Signs> {
    norm: f32,
    /// Weight of a sketch row: the residual's norm times sqrt(pi/2) / dim.
    residual: f64,
    indices: &'a [u8],
    /// +1 or -1 for each row of the sketch.
    signs: Signs,
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}
