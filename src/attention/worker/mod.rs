//! One thread's attention: a unit's rows against tiles of cells, by online softmax.
//!
//! Queries are i16 with one scale a row (error at most 2^-16 of the row's largest value), levels are i8,
//! and their product is exact; so are weights, rounded to 1/32767 of the row's largest, times V's levels.
//! All else is f32. Source: Milakov & Gimelshein 2018 (online softmax).

mod anchors;
mod load;
mod result;
mod step;

use std::slice;

use super::TILE;
use super::anchors::{HeadAnchors, Runs};
use super::isa::Kernels;
use super::plan::{Plan, SUB_ROWS, Unit};
use super::problem::{KvType, Problem};
use super::scratch::Scratch;
use super::softmax::Hides;

/// The largest i16 that is used: symmetric, so that a product of pairs cannot overflow.
pub(super) const I16_MAX: f32 = 32767.0;
/// f16's -infinity: a cell that is not seen.
const HIDDEN: u16 = 0xfc00;

/// A thread with its memory.
pub(super) struct Worker<'a> {
    problem: &'a Problem,
    plan: &'a Plan,
    kernels: &'static Kernels,
    s: Scratch,
    /// Anchors of the unit; none if the problem has none.
    anchors: Option<HeadAnchors>,
    /// And of the tile.
    runs: Runs,
    /// Cells of the tile whose key or value is not finite, a bit each. They are loaded as zeros.
    not_finite: u64,
}

impl<'a> Worker<'a> {
    /// # Safety
    /// `base`: aligned to a cache line, `plan.layout.scratch_bytes`, this worker's alone. The problem's tensors are
    /// valid for its shapes while the worker lives; nobody else writes to the results of the units it finishes.
    pub unsafe fn new(
        problem: &'a Problem,
        plan: &'a Plan,
        kernels: &'static Kernels,
        base: *mut u8,
    ) -> Self {
        let s = Scratch::new(&plan.layout, base);
        Self { problem, plan, kernels, s, anchors: None, runs: Runs::NONE, not_finite: 0 }
    }

    fn k_is_turbo(&self) -> bool {
        matches!(self.problem.args.type_k, KvType::Turbo(_))
    }

    fn v_is_turbo(&self) -> bool {
        matches!(self.problem.args.type_v, KvType::Turbo(_))
    }

    /// Floats of a row of `out`.
    fn out_len(&self) -> usize {
        self.plan.layout.v_blocks * TILE
    }

    /// Row `row` of a unit: its token and its head.
    fn query(&self, unit: &Unit, row: usize) -> (usize, usize) {
        (unit.token + row / self.problem.group, unit.head + row % self.problem.group)
    }

    /// Rows of a unit.
    pub fn rows(&self, unit: &Unit) -> usize {
        unit.tokens * self.problem.group
    }

    /// Loads a unit's queries and forgets the last unit's results.
    pub fn begin(&mut self, unit: &Unit) {
        let rows = self.rows(unit);
        for row in 0..rows {
            let (token, head) = self.query(unit, row);
            // SAFETY: Q has `dk` floats for every token and head; rows are within the layout's.
            unsafe {
                let q = self.problem.q_row(token, head, unit.batch);
                self.load_query(row, slice::from_raw_parts(q, self.problem.dk));
                if self.plan.layout.anchors > 0 {
                    *self.s.q_rows.add(row) = q;
                }
                *self.s.slope.add(row) = self.problem.slope(head);
            }
        }
        self.begin_anchors(unit);
        self.reset(rows);
    }

    /// Forgets results of `rows` rows.
    pub fn reset(&mut self, rows: usize) {
        // SAFETY: rows are within the layout's.
        unsafe {
            slice::from_raw_parts_mut(self.s.largest, rows).fill(f32::NEG_INFINITY);
            slice::from_raw_parts_mut(self.s.sum, rows).fill(0.0);
            slice::from_raw_parts_mut(self.s.out, rows * self.out_len()).fill(0.0);
        }
    }

    /// Lists the tiles that some query of the problem sees; returns their number.
    pub fn list_visible(&mut self) -> usize {
        let problem = self.problem;
        let mut n = 0;
        for tile in 0..self.plan.tiles {
            let cells = self.cells(tile);
            let visible = match &problem.args.mask {
                None => true,
                Some(mask) => (0..problem.batches.min(mask.ne[3])).any(|batch| {
                    (0..problem.heads.min(mask.ne[2])).any(|head| {
                        (0..problem.tokens).any(|token| {
                            let row =
                                problem.mask_row(token, head, batch).wrapping_add(tile * TILE);
                            // SAFETY: the mask has `n_kv` halves in every row.
                            let row = unsafe { slice::from_raw_parts(row, cells) };
                            row.iter().any(|&x| x != HIDDEN)
                        })
                    })
                }),
            };
            if visible {
                // SAFETY: `visible` has room for every tile.
                unsafe { *self.s.visible.add(n) = tile as u32 };
                n += 1;
            }
        }
        n
    }

    /// Entry `index` of the list that [`Self::list_visible`] made.
    pub fn visible(&self, index: usize) -> usize {
        debug_assert!(index < self.plan.tiles);
        // SAFETY: the list has an entry for every tile.
        unsafe { *self.s.visible.add(index) as usize }
    }

    /// Cells of a tile.
    fn cells(&self, tile: usize) -> usize {
        TILE.min(self.problem.n_kv - tile * TILE)
    }

    /// Attends from all of the unit's rows to the cells of a tile.
    pub fn tile(&mut self, unit: &Unit, tile: usize) {
        let rows = self.rows(unit);
        if !self.load_masks(unit, tile) {
            return;
        }
        self.not_finite = 0;
        self.load_k(unit, tile);
        self.load_v(unit, tile);
        if self.not_finite != 0 {
            self.spread_nan(rows);
        }
        self.load_anchors(unit, tile);
        for row in (0..rows).step_by(SUB_ROWS) {
            let n = SUB_ROWS.min(rows - row);
            if (row..row + n).any(|row| self.hides(row) != Hides::All) {
                self.logits(row, n);
                self.soften(row, n);
                self.outputs(row, n);
            }
        }
    }

    /// Makes the sum, and with it the result, NaN for every row that sees a cell that is not finite.
    #[cold]
    fn spread_nan(&mut self, rows: usize) {
        for row in 0..rows {
            if self.sees(row, self.not_finite) {
                // SAFETY: rows are within the layout's.
                unsafe { *self.s.sum.add(row) = f32::NAN };
            }
        }
    }

    /// Whether a row sees one of these cells of the tile, a bit each.
    fn sees(&self, row: usize, cells: u64) -> bool {
        match self.hides(row) {
            Hides::All => false,
            Hides::None => cells != 0,
            Hides::Some => {
                // SAFETY: `load_masks` wrote 64 floats for every mask row.
                let mask = unsafe {
                    slice::from_raw_parts(self.s.mask.add(self.mask_index(row) * TILE), TILE)
                };
                let seen = |(cell, &mask): (usize, &f32)| {
                    cells >> cell & 1 != 0 && mask != f32::NEG_INFINITY
                };
                mask.iter().enumerate().any(seen)
            }
        }
    }

    /// The mask row of a query row.
    fn mask_index(&self, row: usize) -> usize {
        match &self.problem.args.mask {
            None => 0,
            Some(_) if self.problem.heads_share_mask() => row / self.problem.group,
            Some(_) => row,
        }
    }

    fn hides(&self, row: usize) -> Hides {
        // SAFETY: `load_masks` wrote an entry for every mask row.
        unsafe { *self.s.hides.add(self.mask_index(row)) }
    }
}
