//! The key-anchor term of a tile: which cell has which anchor, and what that adds to a query's logits.

use std::{ptr, slice};

use super::Worker;
use crate::attention::TILE;
use crate::attention::anchors::Run;
use crate::attention::plan::Unit;

impl Worker<'_> {
    /// Takes the ids of a tile's cells apart.
    pub(super) fn load_anchors(&mut self, unit: &Unit, tile: usize) {
        if let Some(ids) = self.problem.anchor_ids(tile * TILE, unit.batch) {
            // SAFETY: the ids have `n_kv` entries in every row.
            self.runs.split(unsafe { slice::from_raw_parts(ids, self.cells(tile)) });
        }
    }

    /// What anchors add to the 64 logits of a row, times `scale`: one number for all, or, if the pointer is not
    /// null, 64.
    ///
    /// A term that is not finite, of a cell that the row sees, makes the row's sum, and with it the result, NaN.
    pub(super) fn bias(&mut self, unit: &Unit, row: usize, scale: f32) -> (f32, *const f32) {
        if self.runs.get().is_empty() {
            return (0.0, ptr::null());
        }
        let (token, head) = self.query(unit, row);
        let terms = self.problem.anchor_terms(token, head, unit.batch);
        if let [Run { id, .. }] = self.runs.get() {
            let known = usize::try_from(*id).is_ok_and(|id| id < self.problem.anchors());
            // SAFETY: the terms are the problem's, one for every anchor.
            let term = if known { scale * unsafe { *terms.add(*id as usize) } } else { f32::NAN };
            if term.is_finite() {
                return (term, ptr::null());
            }
        }
        // SAFETY: the terms are the problem's, rows within the layout's, `bias` has room for whole vectors. Every
        // row's mask has been loaded, and the runs fill the tile.
        unsafe {
            let terms = slice::from_raw_parts(terms, self.problem.anchors());
            if !(self.kernels.bias)(self.s.bias, self.runs.get(), terms, scale) {
                let mask =
                    slice::from_raw_parts(self.s.mask.add(self.mask_index(row) * TILE), TILE);
                let bias = slice::from_raw_parts(self.s.bias, TILE);
                let seen = |&mask: &f32| mask != f32::NEG_INFINITY;
                if mask.iter().zip(bias).any(|(mask, bias)| seen(mask) && !bias.is_finite()) {
                    *self.s.sum.add(row) = f32::NAN;
                }
            }
        }
        (0.0, self.s.bias)
    }
}
