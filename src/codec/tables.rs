//! The level tables, which are format, and the scales that the encoder tries, which are not.
//!
//! Output of [`super::train`] (`cargo run --release --no-default-features --example train_tables`).

use super::encode::SCALES;

/// Levels of turbo2: int8, ascending, antisymmetric.
pub const LEVELS_2: [i8; 8] = [-127, -70, -38, -12, 12, 38, 70, 127];
/// Levels of turbo3.
pub const LEVELS_3: [i8; 16] =
    [-127, -91, -68, -51, -38, -26, -16, -5, 5, 16, 26, 38, 51, 68, 91, 127];
/// Levels of turbo4.
pub const LEVELS_4: [i8; 32] = [
    -127, -106, -91, -80, -70, -61, -54, -47, -40, -34, -28, -23, -18, -13, -8, -2, 2, 8, 13, 18,
    23, 28, 34, 40, 47, 54, 61, 70, 80, 91, 106, 127,
];

/// Scales that the encoder tries for turbo2, as multiples of the block's extent.
pub const SCALES_2: [f32; SCALES] = [0.0124785695, 0.013608293, 0.014840294, 0.016183833];
/// Scales for turbo3.
pub const SCALES_3: [f32; SCALES] = [0.016208645, 0.017676065, 0.019276334, 0.02102148];
/// Scales for turbo4.
pub const SCALES_4: [f32; SCALES] = [0.017696902, 0.019299056, 0.02104626, 0.022951644];

/// The `2^(K+1)` levels of turbo`K`. `k`: 2, 3 or 4.
pub const fn levels(k: usize) -> &'static [i8] {
    match k {
        2 => &LEVELS_2,
        3 => &LEVELS_3,
        4 => &LEVELS_4,
        _ => panic!("turbo types have 2, 3 or 4 index bits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::train::{Effort, Trained, train};

    fn check(k: usize, scales: [f32; SCALES], trained: Trained) {
        assert_eq!(trained.levels, levels(k));
        assert_eq!(trained.scales, scales);
        // What the format promises, at 2.25, 3.25 and 4.25 bits a value.
        let promised = [0.0770, 0.0197, 0.0051][k - 2];
        assert!(trained.distortion < promised, "{} at {k} bits", trained.distortion);
    }

    #[test]
    fn training_gives_turbo2() {
        check(2, SCALES_2, train::<2>(1, Effort::FULL));
    }

    #[test]
    fn training_gives_turbo3() {
        check(3, SCALES_3, train::<3>(1, Effort::FULL));
    }

    #[test]
    fn training_gives_turbo4() {
        check(4, SCALES_4, train::<4>(1, Effort::FULL));
    }
}
