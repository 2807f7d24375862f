//! The key-anchor term of a tile: which cell has which anchor, and what that adds to a query's logits.

use std::{array, ptr, slice};

use super::Worker;
use crate::attention::TILE;
use crate::attention::anchors::{DOTS, Run, Terms};
use crate::attention::plan::Unit;
use crate::attention::prefetch::prefetch;

impl Worker<'_> {
    /// Finds a unit's anchors, and forgets the last unit's products with anchors.
    pub(super) fn begin_anchors(&mut self, unit: &Unit) {
        self.anchors = self.problem.head_anchors(unit.head, unit.batch);
        // SAFETY: the scratch has one of these for every anchor.
        unsafe { ptr::write_bytes(self.s.has_terms, 0, self.plan.layout.anchors) }
    }

    /// Takes the ids of a tile's cells apart, and multiplies the unit's queries with anchors that are new to them.
    pub(super) fn load_anchors(&mut self, unit: &Unit, tile: usize) {
        let Some(anchors) = self.anchors else { return };
        // SAFETY: there are `n_kv` ids; the kernels are this CPU's.
        unsafe {
            let ids = slice::from_raw_parts(anchors.ids.add(tile * TILE), self.cells(tile));
            (self.kernels.split)(&mut self.runs, ids);
        }
        for i in 0..self.runs.get().len() {
            match usize::try_from(self.runs.get()[i].id) {
                Ok(id) if id < self.plan.layout.anchors => {
                    self.load_terms(self.rows(unit), id, anchors.anchor(id));
                }
                _ => {}
            }
        }
        // With one query, waiting for ids and anchors took longer than their use.
        prefetch(anchors.ids.wrapping_add((tile + 2) * TILE).cast(), TILE * size_of::<i32>());
        if tile + 1 < self.plan.tiles {
            // SAFETY: as above.
            let next = unsafe { *anchors.ids.add((tile + 1) * TILE) };
            let next = anchors.anchor(usize::try_from(next).unwrap_or(0));
            prefetch(next.cast(), self.problem.dk * size_of::<u16>());
        }
    }

    /// Multiplies the unit's queries with an anchor, unless they have been.
    fn load_terms(&mut self, rows: usize, id: usize, m: *const u16) {
        // SAFETY: the scratch has these for every anchor and row; the table's rows and the queries have `dk` values.
        unsafe {
            if self.s.has_terms.add(id).replace(true) {
                return;
            }
            let dk = self.problem.dk;
            let terms = slice::from_raw_parts_mut(self.terms(id), rows);
            for (i, terms) in terms.chunks_mut(DOTS).enumerate() {
                let q = array::from_fn(|row| *self.s.q_rows.add((DOTS * i + row).min(rows - 1)));
                let dots = (self.kernels.dots)(q, m, dk);
                terms.copy_from_slice(&dots[..terms.len()]);
            }
        }
    }

    /// Where an anchor's product with the unit's first query is, the others' behind it.
    fn terms(&self, id: usize) -> *mut f32 {
        self.s.terms.wrapping_add(id * self.plan.layout.rows)
    }

    /// What anchors add to the 64 logits of a row, times `scale`: one number for all, or, if the pointer is not
    /// null, 64.
    ///
    /// A term that is not finite, of a cell that the row sees, makes the row's sum, and with it the result, NaN.
    pub(super) fn bias(&mut self, row: usize, scale: f32) -> (f32, *const f32) {
        if self.runs.get().is_empty() {
            return (0.0, ptr::null());
        }
        let terms = Terms {
            first: self.s.terms.wrapping_add(row),
            stride: self.plan.layout.rows,
            len: self.plan.layout.anchors,
        };
        if let [Run { id, .. }] = self.runs.get() {
            // SAFETY: the terms of the tile's anchors have been loaded.
            let term = scale * unsafe { terms.get(*id) };
            if term.is_finite() {
                return (term, ptr::null());
            }
        }
        // SAFETY: as above; `bias` has room for whole vectors, and the runs fill the tile.
        unsafe {
            if !(self.kernels.bias)(self.s.bias, self.runs.get(), &terms, scale) {
                let bias = slice::from_raw_parts(self.s.bias, TILE).iter().enumerate();
                let bad = |(cell, bias): (usize, &f32)| u64::from(!bias.is_finite()) << cell;
                if self.sees(row, bias.map(bad).sum()) {
                    *self.s.sum.add(row) = f32::NAN; // rows are within the layout's
                }
            }
        }
        (0.0, self.s.bias)
    }
}
