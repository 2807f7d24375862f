//! TurboQuant_mse: rotation and scalar codebook (the paper's algorithm 1).

use super::super::rotation::{Haar, Rotation};
use super::{PaperError, Scalar, float_at, pack, rotated_unit};

/// Bytes of the norm, an f32.
const HEADER: usize = 4;

/// Quantizer of least squared error: `bits` a value and four bytes for the norm.
///
/// A code is the vector's norm (f32, little-endian), then an index of `bits` bits for each value of
/// the rotated vector, low bits first, without gaps.
#[derive(Clone, Debug)]
pub struct TurboQuantMse<R = Haar> {
    rotation: R,
    scalar: Scalar,
}

impl TurboQuantMse {
    /// With the paper's rotation, dense and Haar distributed, drawn from `seed`.
    ///
    /// `dim`: 3 or more; `bits`: 1 to 8. Errors: [`PaperError::Codebook`].
    pub fn new(dim: usize, bits: u32, seed: u64) -> Result<Self, PaperError> {
        Self::with_rotation(Haar::new(dim, seed), bits)
    }
}

impl<R: Rotation> TurboQuantMse<R> {
    /// With a rotation of one's own, such as a [`RandomHadamard`](super::super::rotation::RandomHadamard).
    ///
    /// `bits`: 1 to 8. Errors: [`PaperError::Codebook`].
    pub fn with_rotation(rotation: R, bits: u32) -> Result<Self, PaperError> {
        let scalar = Scalar::new(bits, rotation.dim())?;
        Ok(Self { rotation, scalar })
    }

    /// Values of a vector.
    pub fn dim(&self) -> usize {
        self.rotation.dim()
    }

    /// Index bits a value.
    pub fn bits(&self) -> u32 {
        self.scalar.bits
    }

    /// Bytes of a code.
    pub fn code_bytes(&self) -> usize {
        HEADER + pack::bytes(self.bits(), self.dim())
    }

    /// Expected squared error of a unit vector: the paper's D_mse.
    pub fn distortion(&self) -> f64 {
        self.scalar.codebook.mse()
    }

    /// Encodes `x`, `dim` finite values, to `code`, `code_bytes` bytes. Errors: [`PaperError`].
    pub fn encode(&self, x: &[f32], code: &mut [u8]) -> Result<(), PaperError> {
        self.check(code)?;
        let (unit, norm) = rotated_unit(&self.rotation, x)?;
        let (header, packed) = code.split_at_mut(HEADER);
        header.copy_from_slice(&norm.to_le_bytes());
        pack::pack(self.bits(), unit.iter().map(|v| self.scalar.index(*v)), packed);
        Ok(())
    }

    /// Decodes `code`, `code_bytes` bytes of any kind, to `x`, `dim` values. Errors: [`PaperError`].
    pub fn decode(&self, code: &[u8], x: &mut [f32]) -> Result<(), PaperError> {
        self.check(code)?;
        let norm = float_at(code, 0);
        for (x, index) in x.iter_mut().zip(pack::unpack(self.bits(), &code[HEADER..])) {
            *x = self.scalar.levels[index] * norm;
        }
        Ok(self.rotation.inverse(x)?)
    }

    fn check(&self, code: &[u8]) -> Result<(), PaperError> {
        let (len, expected) = (code.len(), self.code_bytes());
        if len == expected {
            return Ok(());
        }
        Err(PaperError::CodeLength { len, expected, dim: self.dim(), bits: self.bits() })
    }
}
