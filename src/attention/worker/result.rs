//! What becomes of a unit's results: written out, stored, or merged with those of other cells.

use std::slice;

use super::Worker;
use crate::attention::TILE;
use crate::attention::plan::Unit;

impl Worker<'_> {
    /// Writes the results of rows `rows` of a unit.
    pub fn finish(&mut self, unit: &Unit, rows: std::ops::Range<usize>) {
        for row in rows {
            let (token, head) = self.query(unit, row);
            // SAFETY: rows are within the layout's; sinks have a float a head, `dst` has `dv` for this row, and only
            // this worker writes them.
            unsafe {
                let (largest, sum) = (*self.s.largest.add(row), *self.s.sum.add(row));
                let (mut factor, mut total) = (1.0, sum);
                if !self.problem.args.sinks.is_null() {
                    let sink = *self.problem.args.sinks.add(head);
                    let new = largest.max(sink);
                    factor = if sum == 0.0 { 0.0 } else { (largest - new).exp() };
                    total = sum * factor + (sink - new).exp();
                }
                factor = if total == 0.0 { 0.0 } else { factor / total };
                if (*self.s.q_scale.add(row)).is_nan() {
                    factor = f32::NAN;
                }
                let out =
                    slice::from_raw_parts(self.s.out.add(row * self.out_len()), self.out_len());
                let dst = self.problem.dst_row(token, head, unit.batch);
                let dst = slice::from_raw_parts_mut(dst, self.problem.dv);
                if self.v_is_turbo() {
                    for (dst, out) in dst.chunks_exact_mut(TILE).zip(out.chunks_exact(TILE)) {
                        for (out, &place) in out.iter().zip(self.kernels.order) {
                            dst[usize::from(place)] = out * factor;
                        }
                    }
                } else {
                    dst.iter_mut().zip(out).for_each(|(dst, out)| *dst = out * factor);
                }
            }
        }
    }

    /// Stores the results so far of a unit.
    ///
    /// # Safety
    /// `partial`: `plan.layout.partial` floats, this worker's alone.
    pub unsafe fn save(&self, unit: &Unit, partial: *mut f32) {
        let rows = self.rows(unit);
        let padded = self.plan.layout.rows;
        // SAFETY: a partial result has `padded` sums, largest logits, and rows.
        unsafe {
            partial.copy_from_nonoverlapping(self.s.largest, rows);
            partial.add(padded).copy_from_nonoverlapping(self.s.sum, rows);
            partial.add(2 * padded).copy_from_nonoverlapping(self.s.out, rows * self.out_len());
        }
    }

    /// Adds rows of a stored result to this worker's.
    ///
    /// # Safety
    /// `partial`: written by [`Self::save`] for the same unit; nobody writes it now.
    pub unsafe fn merge(&mut self, rows: std::ops::Range<usize>, partial: *const f32) {
        let (padded, len) = (self.plan.layout.rows, self.out_len());
        for row in rows {
            // SAFETY: rows are within the layout's.
            unsafe {
                let (their_largest, their_sum) = (*partial.add(row), *partial.add(padded + row));
                if their_sum == 0.0 {
                    continue;
                }
                let (largest, sum) = (&mut *self.s.largest.add(row), &mut *self.s.sum.add(row));
                let new = largest.max(their_largest);
                let (ours, theirs) = ((*largest - new).exp(), (their_largest - new).exp());
                *largest = new;
                *sum = *sum * ours + their_sum * theirs;
                let out = slice::from_raw_parts_mut(self.s.out.add(row * len), len);
                let their_out = slice::from_raw_parts(partial.add(2 * padded + row * len), len);
                for (out, their_out) in out.iter_mut().zip(their_out) {
                    *out = *out * ours + their_out * theirs;
                }
            }
        }
    }

    /// Checks queries of rows for NaN and infinity, as `begin` does, without loading them.
    pub fn mark(&mut self, unit: &Unit, rows: std::ops::Range<usize>) {
        for row in rows {
            let (token, head) = self.query(unit, row);
            // SAFETY: as `begin`.
            unsafe {
                let q = slice::from_raw_parts(
                    self.problem.q_row(token, head, unit.batch),
                    self.problem.dk,
                );
                *self.s.q_scale.add(row) =
                    if q.iter().all(|x| x.is_finite()) { 1.0 } else { f32::NAN };
            }
        }
    }
}
