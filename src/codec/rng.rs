//! A small seeded generator: rotations and sketches must come out the same on every machine and in every version.
//!
//! SplitMix64 (Steele, Lea & Flood 2014): 64 bits of state, passes BigCrush, and its whole
//! definition fits in three lines, so that a reader in another language can follow it. The crates
//! `rand` and `rand_chacha` would do as well, but may change how floats are drawn between versions.
//! Not for secrets.

use std::f64::consts::TAU;

/// SplitMix64. Equal seeds give equal sequences.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator that starts at `seed`; every seed is good, 0 too.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 uniform bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in the open interval (0, 1), on a grid of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A unit Gaussian (Box & Muller 1958, cosine branch; two draws each).
    ///
    /// `ln` and `cos` are the platform's, so the last bit may differ between operating systems.
    pub fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (TAU * self.uniform()).cos()
    }

    /// `n` unit Gaussians.
    pub fn gaussians(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.gaussian() as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn matches_the_published_sequence() {
        // First outputs of the reference implementation (Vigna, splitmix64.c) for seed 1234567.
        let mut rng = SplitMix64::new(1_234_567);
        let first: [u64; 3] = std::array::from_fn(|_| rng.next_u64());
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn gaussians_have_unit_moments() {
        let n = 200_000;
        let x = SplitMix64::new(1).gaussians(n);
        let moment = |p: i32| x.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n as f64;
        // Five standard errors of each moment.
        assert_abs_diff_eq!(moment(1), 0.0, epsilon = 5.0 * (1.0 / n as f64).sqrt());
        assert_abs_diff_eq!(moment(2), 1.0, epsilon = 5.0 * (2.0 / n as f64).sqrt());
        assert_abs_diff_eq!(moment(4), 3.0, epsilon = 5.0 * (96.0 / n as f64).sqrt());
    }
}
