//! What a tile is computed from, brought into the form that the kernels take: queries, mask, K and V.

use std::slice;

use super::{HIDDEN, I16_MAX, Worker};
use crate::attention::TILE;
use crate::attention::isa::{PackFn, TransposeFn};
use crate::attention::plan::Unit;
use crate::attention::problem::KvType;
use crate::attention::rows::Rows;
use crate::attention::softmax::Hides;

/// K or V of a unit's head, from a tile's first cell on, and where the tile goes.
struct Source {
    ty: KvType,
    /// The first cell's row.
    row: *const u8,
    /// Bytes from cell to cell.
    stride: usize,
    /// Cells of the tile.
    cells: usize,
    /// Values of a row.
    len: usize,
    /// The tile: `bytes` for each of `blocks` block columns.
    tile: *mut u8,
    blocks: usize,
    bytes: usize,
    /// Scales of cells, `[blocks][64]`.
    scales: *mut f32,
    /// Arranges turbo's levels.
    pack: PackFn,
    /// Arranges floats, if they are not taken as they are.
    arrange: Option<TransposeFn>,
}

impl Worker<'_> {
    /// # Safety
    /// `row` is within the layout's.
    pub(super) unsafe fn load_query(&mut self, row: usize, q: &[f32]) {
        let len = self.plan.layout.k_blocks * TILE;
        // SAFETY: the scratch has `len` values and a scale for every row; the caller vouches for `row`.
        unsafe {
            // NaN and infinity make the scale NaN, and with it the result.
            let finite = q.iter().all(|x| x.is_finite());
            if self.k_is_turbo() {
                let largest = q.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                *self.s.q_scale.add(row) = if finite { largest / I16_MAX } else { f32::NAN };
                let inverse = if largest > 0.0 && finite { I16_MAX / largest } else { 0.0 };
                let out = slice::from_raw_parts_mut(self.s.q.cast::<i16>().add(row * len), len);
                for (out, q) in out.chunks_exact_mut(TILE).zip(q.chunks_exact(TILE)) {
                    for (out, &place) in out.iter_mut().zip(self.kernels.order) {
                        *out = round(q[usize::from(place)] * inverse);
                    }
                }
            } else {
                *self.s.q_scale.add(row) = if finite { 1.0 } else { f32::NAN };
                let out = slice::from_raw_parts_mut(self.s.q.cast::<f32>().add(row * len), len);
                out[..q.len()].copy_from_slice(q);
                out[q.len()..].fill(0.0);
            }
        }
    }

    /// Converts the mask's part for a tile; returns whether any row sees any cell.
    pub(super) fn load_masks(&mut self, unit: &Unit, tile: usize) -> bool {
        let n = self.cells(tile);
        let mut padded = [HIDDEN; TILE];
        if self.problem.args.mask.is_none() {
            padded[..n].fill(0);
            // SAFETY: there is at least one mask row.
            unsafe { *self.s.hides = (self.kernels.mask_row)(self.s.mask, padded.as_ptr()) };
            return true;
        }
        let (masks, step) = match self.problem.heads_share_mask() {
            true => (unit.tokens, self.problem.group),
            false => (self.rows(unit), 1),
        };
        let mut any = false;
        for i in 0..masks {
            let (token, head) = self.query(unit, i * step);
            let mut src = self.problem.mask_row(token, head, unit.batch).wrapping_add(tile * TILE);
            // SAFETY: the mask has `n` more halves in this row; `mask` and `hides` have room for every row.
            unsafe {
                if n < TILE {
                    padded[..n].copy_from_slice(slice::from_raw_parts(src, n));
                    src = padded.as_ptr();
                }
                let hides = (self.kernels.mask_row)(self.s.mask.add(i * TILE), src);
                *self.s.hides.add(i) = hides;
                any |= hides != Hides::All;
            }
        }
        any
    }

    /// Decodes the K tile.
    pub(super) fn load_k(&mut self, unit: &Unit, tile: usize) {
        let (args, layout) = (&self.problem.args, &self.plan.layout);
        let source = Source {
            ty: args.type_k,
            row: self.problem.k_row(tile * TILE, unit.head, unit.batch),
            stride: args.k.nb[1],
            cells: self.cells(tile),
            len: self.problem.dk,
            tile: self.s.k_tile,
            blocks: layout.k_blocks,
            bytes: layout.k_tile_bytes,
            scales: self.s.k_scale,
            pack: self.kernels.pack_k,
            arrange: Some(self.kernels.transpose),
        };
        // SAFETY: K's cells are the problem's, the tile and its scales the scratch's, with room for every block.
        self.not_finite |= unsafe { self.load(&source) };
    }

    /// Decodes the V tile.
    pub(super) fn load_v(&mut self, unit: &Unit, tile: usize) {
        let (args, layout) = (&self.problem.args, &self.plan.layout);
        let source = Source {
            ty: args.type_v,
            row: self.problem.v_row(tile * TILE, unit.head, unit.batch),
            stride: args.v.nb[1],
            cells: self.cells(tile),
            len: self.problem.dv,
            tile: self.s.v_tile,
            blocks: layout.v_blocks,
            bytes: layout.v_tile_bytes,
            scales: self.s.v_scale,
            pack: self.kernels.pack_v,
            arrange: None,
        };
        // SAFETY: as for K.
        self.not_finite |= unsafe { self.load(&source) };
    }

    /// Decodes a tile, every block column of it. Scales of floats are 1, of cells that are not there and would be
    /// turbo's 0. Returns the cells that are not finite: in the tile they are zeros, so that rows that do not see
    /// them are as if they held anything else.
    ///
    /// # Safety
    /// `source`: `cells` rows of `len` values, `stride` bytes apart; tile and scales are as its fields say.
    unsafe fn load(&self, source: &Source) -> u64 {
        let cells = self.s.cells;
        let mut not_finite = 0;
        for block in 0..source.blocks {
            // SAFETY: the caller's; the scratch's `cells` have room for a column of floats.
            unsafe {
                let tile = source.tile.add(block * source.bytes);
                let scales = slice::from_raw_parts_mut(source.scales.add(block * TILE), TILE);
                if let KvType::Turbo(turbo) = source.ty {
                    let levels = self.kernels.levels[turbo.index_bits() - 2];
                    let row = source.row.wrapping_add(block * turbo.block_bytes());
                    levels(row, source.stride, source.cells, cells.cast(), scales.as_mut_ptr());
                    (source.pack)(cells.cast(), tile.cast());
                    scales[source.cells..].fill(0.0);
                    if !(self.kernels.finite)(scales.as_ptr(), TILE) {
                        for (cell, scale) in scales.iter_mut().enumerate() {
                            if !scale.is_finite() {
                                *scale = 0.0;
                                not_finite |= 1 << cell;
                            }
                        }
                    }
                    continue;
                }
                scales.fill(1.0);
                not_finite |= match source.arrange {
                    None => self.load_floats(source, block, tile.cast()),
                    Some(arrange) => {
                        let not_finite = self.load_floats(source, block, cells.cast());
                        arrange(cells.cast(), tile.cast());
                        not_finite
                    }
                };
            }
        }
        not_finite
    }

    /// Block column `block` as floats, `[64][64]`, zeros where there is no cell or no value, or where a cell's values
    /// are not finite; returns these cells.
    ///
    /// # Safety
    /// `source`: as for [`Self::load`]; `dst`: 64 x 64 floats.
    unsafe fn load_floats(&self, source: &Source, block: usize, dst: *mut f32) -> u64 {
        let &Source { ty, row, stride, cells, len, .. } = source;
        let width = TILE.min(len - block * TILE);
        let skipped = block * TILE / ty.block_len() * ty.block_bytes();
        let mut not_finite = 0;
        // SAFETY: the caller's.
        unsafe {
            if cells < TILE || width < TILE {
                slice::from_raw_parts_mut(dst, TILE * TILE).fill(0.0);
            }
            let rows = Rows { ty, src: row.add(skipped), stride, cells, width };
            if !(self.kernels.to_f32)(&rows, dst) {
                let tile = slice::from_raw_parts_mut(dst, cells * TILE);
                for (cell, values) in tile.chunks_exact_mut(TILE).enumerate() {
                    if values.iter().any(|x| !x.is_finite()) {
                        values.fill(0.0);
                        not_finite |= 1 << cell;
                    }
                }
            }
        }
        not_finite
    }
}

/// Nearest integer, ties to even. |x| <= 32767. Adding 1.5 * 2^23 leaves the integer in the low bits.
fn round(x: f32) -> i16 {
    (x + 12_582_912.0).to_bits() as i16
}
