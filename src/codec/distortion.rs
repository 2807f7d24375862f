//! Distortion: what a code loses, and the scalar codes that ours are measured against.
//!
//! Every function of the form `&[f32] -> Vec<f32>` is a round trip: what a decoder would return. The
//! example `distortion` prints them side by side; a rotated cache's values are close to Gaussian,
//! so blocks of unit Gaussians are the yardstick.

use half::f16;

use super::block::{Block, QK, TurboType};
use super::encode::{Fit, Tables, encode, encode_to_fit, search};
use super::lloyd_max::{Codebook, LloydMaxError};
use super::trellis::decode;

/// Values in a block of ggml's q4_0.
pub const QK4_0: usize = 32;

/// Bits a value of ggml's q4_0: 16 nibble bytes and an f16 scale for 32 values.
pub const Q4_0_BITS: f64 = 4.5;

/// Squared error over energy: sum (x - y)^2 / sum x^2. Both of one length.
pub fn relative_mse(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "a row and its round trip have the same length");
    let error: f64 = x.iter().zip(y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    error / x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
}

/// How long the round trip's projection on the row is, in lengths of the row: <x, y> / <x, x>. Both of one length.
///
/// Products of the round trip with other rows are so many times those of the row, on average over their directions.
pub fn projection(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "a row and its round trip have the same length");
    let product: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    product / x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
}

/// The least relative MSE that any code of `bits` bits a value can have on Gaussian values: 4^-bits.
///
/// Source: Shannon 1959; Cover & Thomas, theorem 13.3.2.
pub fn rate_distortion_limit(bits: f64) -> f64 {
    4f64.powf(-bits)
}

/// Round trip through blocks of `ty`. `x`: a multiple of 64 values.
pub fn turbo(ty: TurboType, x: &[f32]) -> Vec<f32> {
    match ty {
        TurboType::Turbo2 => round_trip(x, |x| encode::<2>(x).block),
        TurboType::Turbo3 => round_trip(x, |x| encode::<3>(x).block),
        TurboType::Turbo4 => round_trip(x, |x| encode::<4>(x).block),
    }
}

/// Likewise with scales of least squares, which the encoder does not store: the least relative MSE, to compare
/// with that of other codes, but a [`projection`] below 1.
pub fn turbo_least_squares(ty: TurboType, x: &[f32]) -> Vec<f32> {
    fn block<const K: usize>(x: &[f32; QK]) -> Block<K> {
        encode_to_fit(x, Tables::of::<K>(), search::paths, Fit::LeastSquares).block
    }
    match ty {
        TurboType::Turbo2 => round_trip(x, block::<2>),
        TurboType::Turbo3 => round_trip(x, block::<3>),
        TurboType::Turbo4 => round_trip(x, block::<4>),
    }
}

fn round_trip<const K: usize>(x: &[f32], encode: impl Fn(&[f32; QK]) -> Block<K>) -> Vec<f32> {
    let round_trip = |x: &[f32; QK]| {
        let block = encode(x);
        let scale = block.scale();
        decode(&block).map(|level| f32::from(level) * scale)
    };
    x.as_chunks().0.iter().flat_map(round_trip).collect()
}

/// Round trip through a scalar Lloyd-Max code with the same overhead as the turbo types: blocks of 64,
/// indices of `bits` bits chosen at the block's RMS, an f16 scale refitted by least squares.
///
/// `x`: a multiple of 64 values. Errors: [`LloydMaxError::Bits`].
pub fn lloyd_max(bits: u32, x: &[f32]) -> Result<Vec<f32>, LloydMaxError> {
    let codebook = Codebook::gaussian(bits)?;
    let round_trip = |x: &[f32]| {
        let rms = (x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        let level = |x: &f32| codebook.levels()[codebook.nearest(f64::from(*x) / rms)];
        let levels: Vec<f64> = x.iter().map(level).collect();
        let xc: f64 = x.iter().zip(&levels).map(|(x, c)| f64::from(*x) * c).sum();
        let cc: f64 = levels.iter().map(|c| c * c).sum();
        let scale = f16::from_f64(xc / cc).to_f64();
        levels.into_iter().map(move |c| (c * scale) as f32)
    };
    Ok(x.chunks_exact(QK).flat_map(round_trip).collect())
}

/// Round trip through ggml's q4_0, at 4.5 bits a value. `x`: a multiple of 32 values.
///
/// The value of largest magnitude becomes -8 times the f16 scale; the others are rounded to
/// -8 ..= 7 times it. Source: `quantize_row_q4_0_ref` in ggml-quants.c of llama.cpp.
pub fn q4_0(x: &[f32]) -> Vec<f32> {
    let round_trip = |x: &[f32]| {
        let extreme = x.iter().fold(0f32, |max, v| if v.abs() > max.abs() { *v } else { max });
        let scale = extreme / -8.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let stored = f16::from_f32(scale).to_f32();
        let decode = move |v: &f32| ((v * inverse + 8.5) as u8).min(15) as f32 - 8.0;
        x.iter().map(|v| decode(v) * stored).collect::<Vec<_>>()
    };
    x.chunks_exact(QK4_0).flat_map(round_trip).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rng::SplitMix64;
    use super::*;
    use approx::assert_relative_eq;

    /// 4,096 blocks: three standard errors are below 1% at every rate.
    fn gaussians() -> Vec<f32> {
        SplitMix64::new(1).gaussians(4096 * QK)
    }

    #[test]
    fn relative_mse_of_known_rows() {
        assert_eq!(relative_mse(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative_mse(&[3.0, 4.0], &[0.0, 0.0]), 1.0);
        assert_eq!(relative_mse(&[1.0, 2.0], &[1.0, 1.0]), 0.2);
    }

    /// Measured by an independent program (the table in docs/format.md).
    #[test]
    fn scalar_codes_have_their_known_distortion() {
        let x = gaussians();
        for (bits, known) in [(2, 0.1123), (3, 0.0323), (4, 0.0087)] {
            let mse = relative_mse(&x, &lloyd_max(bits, &x).unwrap());
            assert_relative_eq!(mse, known, max_relative = 0.02);
        }
        assert_relative_eq!(relative_mse(&x, &q4_0(&x)), 0.0074, max_relative = 0.02);
    }

    /// What the format promises on Gaussian blocks, and the scalar code and the limit on either side. An unbiased scale
    /// costs the share of the error, D, and leaves D / (1 - D).
    #[test]
    fn turbo_types_keep_their_promise() {
        let x = gaussians();
        for (ty, promised) in TurboType::ALL.into_iter().zip([0.0770, 0.0197, 0.0051]) {
            let y = turbo_least_squares(ty, &x);
            let mse = relative_mse(&x, &y);
            assert_relative_eq!(projection(&x, &y), 1.0 - mse, max_relative = 1e-4);
            let y = turbo(ty, &x);
            assert_relative_eq!(projection(&x, &y), 1.0, max_relative = 1e-4);
            assert_relative_eq!(relative_mse(&x, &y), mse / (1.0 - mse), max_relative = 0.02);
            let bits = ty.index_bits() as u32;
            let scalar = relative_mse(&x, &lloyd_max(bits, &x).unwrap());
            assert!(mse <= promised && mse < 0.7 * scalar, "{}: {mse}, scalar {scalar}", ty.name());
            assert!(mse > rate_distortion_limit(f64::from(bits)), "{}: {mse}", ty.name());
        }
    }

    #[test]
    fn q4_0_of_a_known_block() {
        // Scale 1: -8 is the extreme, 7 the last level above, 7.9 clips to it.
        let mut x = [0.0; QK4_0];
        x[..6].copy_from_slice(&[-8.0, 7.0, 7.9, 0.4, -0.6, 3.5]);
        let mut y = [0.0; QK4_0];
        y[..6].copy_from_slice(&[-8.0, 7.0, 7.0, 0.0, -1.0, 4.0]);
        assert_eq!(q4_0(&x), y);
        assert_eq!(q4_0(&[0.0; QK4_0]), [0.0; QK4_0]);
    }
}
