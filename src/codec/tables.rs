//! The level tables: int8, ascending, antisymmetric. Output of the trainer; a change here is a change of format.

/// Levels of turbo2.
pub const LEVELS_2: [i8; 8] = [-127, -79, -47, -16, 16, 47, 79, 127];
/// Levels of turbo3.
pub const LEVELS_3: [i8; 16] =
    [-127, -95, -74, -57, -43, -30, -18, -6, 6, 18, 30, 43, 57, 74, 95, 127];
/// Levels of turbo4.
pub const LEVELS_4: [i8; 32] = [
    -127, -107, -93, -82, -73, -65, -57, -50, -43, -37, -31, -25, -20, -14, -9, -3, 3, 9, 14, 20,
    25, 31, 37, 43, 50, 57, 65, 73, 82, 93, 107, 127,
];

/// The `2^(K+1)` levels of turbo`K`. `k`: 2, 3 or 4.
pub const fn levels(k: usize) -> &'static [i8] {
    match k {
        2 => &LEVELS_2,
        3 => &LEVELS_3,
        4 => &LEVELS_4,
        _ => panic!("turbo types have 2, 3 or 4 index bits"),
    }
}
