//! What a branch costs: tables from a value on a fine grid to the four subsets' nearest levels.

use crate::codec::tables::{SCALES_2, SCALES_3, SCALES_4, levels};

/// Grid steps per unit of the level tables (whose outermost level is 127).
pub const STEPS_PER_UNIT: i32 = 2;
/// The grid reaches this far beyond the outermost level on each side, in level units.
const REACH: i32 = 220;
/// Largest index into the tables; the value 0 is at the middle.
pub const MAX_INDEX: i32 = 2 * REACH * STEPS_PER_UNIT;
const ENTRIES: usize = MAX_INDEX as usize + 1;

/// Scales tried for each block; even, because vector kernels search two at once.
///
/// More scales buy less and less (turbo4, relative MSE x 1000 with least-squares scales): 1: 5.6, 2: 5.3, 4: 4.9, 8: 4.7, 16: 4.6.
pub const SCALES: usize = 4;

/// The largest branch cost: eight of them fit a byte, so that no path cost is ever cut off.
///
/// Costs are relative to the least from subtraction to subtraction, 8 steps, and any state is reached from the best one in
/// 6: none costs more than 6 branches after a subtraction, and than 8 before the next. Devices rely on it.
pub const MAX_COST: i32 = 31;
const _: () = assert!(super::search::RENORMALIZE as i32 * MAX_COST < u8::MAX as i32);

/// The four branches that a value may take: one for each subset of the levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Branch {
    /// Squared distance to the subset's nearest level, less that of the nearest of all, in the
    /// type's unit.
    pub costs: [u8; 4],
    /// The subset's nearest level.
    pub levels: [i8; 4],
}

/// What the search of one type needs to know: its levels, and what each branch costs.
///
/// About 14 KiB: the branches of every value on the grid.
pub struct Tables {
    /// The level table: the first `2^(K+1)` entries are in use.
    pub levels: [i8; 32],
    /// Scales to try, as multiples of the block's extent.
    pub scales: [f32; SCALES],
    /// Number of a level in `levels`, by the level's byte.
    pub(super) numbers: [u8; 256],
    /// Branches by a value's index on the grid.
    pub(super) branches: [Branch; ENTRIES],
}

impl Tables {
    /// The tables for `levels`, ascending. `cost_unit`: squared level units in one unit of cost.
    pub const fn new(levels: &[i8], scales: [f32; SCALES], cost_unit: i32) -> Self {
        Self::with_costs(levels, scales, cost_unit, MAX_COST)
    }

    /// Likewise, with branch costs up to `most`.
    pub(in crate::codec) const fn with_costs(
        levels: &[i8],
        scales: [f32; SCALES],
        cost_unit: i32,
        most: i32,
    ) -> Self {
        let none = Branch { costs: [0; 4], levels: [0; 4] };
        let mut out =
            Self { levels: [0; 32], scales, numbers: [0; 256], branches: [none; ENTRIES] };
        let mut number = 0;
        while number < levels.len() {
            out.levels[number] = levels[number];
            out.numbers[levels[number] as u8 as usize] = number as u8;
            number += 1;
        }
        let mut index = 0;
        while index < ENTRIES {
            out.branches[index] = branch(levels, [cost_unit, most], index as i32 - MAX_INDEX / 2);
            index += 1;
        }
        out
    }

    /// The tables of turbo`K`.
    pub const fn of<const K: usize>() -> &'static Self {
        const {
            match K {
                2 => &TURBO2,
                3 => &TURBO3,
                4 => &TURBO4,
                _ => panic!("turbo types have 2, 3 or 4 index bits"),
            }
        }
    }
}

static TURBO2: Tables = Tables::new(levels(2), SCALES_2, cost_unit(2));
static TURBO3: Tables = Tables::new(levels(3), SCALES_3, cost_unit(3));
static TURBO4: Tables = Tables::new(levels(4), SCALES_4, cost_unit(4));

/// Squared level units in one unit of cost: about a tenth of what the levels lie apart, squared, so that [`MAX_COST`] is
/// seldom reached. Measured: half of it and twice [`MAX_COST`] make the relative MSE smaller by 0.0% to 0.1%.
pub const fn cost_unit(k: usize) -> i32 {
    match k {
        2 => 160,
        3 => 34,
        4 => 6,
        _ => panic!("turbo types have 2, 3 or 4 index bits"),
    }
}

/// The branches of `value`, in grid steps.
const fn branch(levels: &[i8], [cost_unit, most]: [i32; 2], value: i32) -> Branch {
    let mut distance = [i32::MAX; 4];
    let mut nearest = [0; 4];
    let mut number = 0;
    while number < levels.len() {
        let level = levels[number];
        let d = (value - level as i32 * STEPS_PER_UNIT) * (value - level as i32 * STEPS_PER_UNIT);
        if d < distance[number % 4] {
            distance[number % 4] = d;
            nearest[number % 4] = level;
        }
        number += 1;
    }
    let mut least = distance[0];
    let mut subset = 1;
    while subset < 4 {
        if distance[subset] < least {
            least = distance[subset];
        }
        subset += 1;
    }
    let unit = cost_unit * STEPS_PER_UNIT * STEPS_PER_UNIT;
    let mut costs = [0; 4];
    subset = 0;
    while subset < 4 {
        let cost = (distance[subset] - least + unit / 2) / unit;
        costs[subset] = if cost < most { cost as u8 } else { most as u8 };
        subset += 1;
    }
    Branch { costs, levels: nearest }
}
