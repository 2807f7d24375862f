//! One thread's attention: a unit's rows against tiles of cells, by online softmax.
//!
//! Queries are i16 with one scale a row (error at most 2^-16 of the row's largest value), levels are i8,
//! and their product is exact; so are weights, rounded to 1/32767 of the row's largest, times V's levels.
//! All else is f32. Source: Milakov & Gimelshein 2018 (online softmax).

use std::slice;

use super::TILE;
use super::isa::Kernels;
use super::plan::{Plan, SUB_ROWS, Unit};
use super::problem::{KvType, Problem};
use super::scratch::{SUB_PADDED, Scratch};
use super::softmax::{Hides, Logit};

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
        Self { problem, plan, kernels, s: Scratch::new(&plan.layout, base) }
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
                let q = slice::from_raw_parts(
                    self.problem.q_row(token, head, unit.batch),
                    self.problem.dk,
                );
                self.load_query(row, q);
                *self.s.slope.add(row) = self.problem.slope(head);
            }
        }
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

    /// # Safety
    /// `row` is within the layout's.
    unsafe fn load_query(&mut self, row: usize, q: &[f32]) {
        let len = self.plan.layout.k_blocks * TILE;
        // SAFETY: the scratch has `len` values and a scale for every row; the caller vouches for `row`.
        unsafe {
            if self.k_is_turbo() {
                // NaN and infinity make the scale NaN, and with it the result.
                let finite = q.iter().all(|x| x.is_finite());
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
                *self.s.q_scale.add(row) = 1.0;
                let out = slice::from_raw_parts_mut(self.s.q.cast::<f32>().add(row * len), len);
                out[..q.len()].copy_from_slice(q);
                out[q.len()..].fill(0.0);
            }
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
        self.load_k(unit, tile);
        self.load_v(unit, tile);
        for row in (0..rows).step_by(SUB_ROWS) {
            let n = SUB_ROWS.min(rows - row);
            if (row..row + n).any(|row| self.hides(row) != Hides::All) {
                self.logits(row, n);
                self.soften(row, n);
                self.outputs(row, n);
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

    /// Converts the mask's part for a tile; returns whether any row sees any cell.
    fn load_masks(&mut self, unit: &Unit, tile: usize) -> bool {
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

    /// Decodes the K tile, every block of it.
    fn load_k(&mut self, unit: &Unit, tile: usize) {
        let (n, ty) = (self.cells(tile), self.problem.args.type_k);
        let src = self.problem.k_row(tile * TILE, unit.head, unit.batch);
        let stride = self.problem.args.k.nb[1];
        for block in 0..self.plan.layout.k_blocks {
            // SAFETY: `n` cells lie `stride` apart; the tile has room for every block.
            unsafe {
                let out = self.s.k_tile.add(block * self.plan.layout.k_tile_bytes);
                let scales = self.s.k_scale.add(block * TILE);
                match ty {
                    KvType::Turbo(turbo) => {
                        let levels = self.kernels.levels[turbo.index_bits() - 2];
                        let src = src.wrapping_add(block * turbo.block_bytes());
                        levels(src, stride, n, self.s.cells.cast(), scales);
                        (self.kernels.pack_k)(self.s.cells.cast(), out.cast());
                        slice::from_raw_parts_mut(scales, TILE)[n..].fill(0.0);
                    }
                    _ => {
                        self.load_floats(
                            ty,
                            src,
                            stride,
                            n,
                            block,
                            self.problem.dk,
                            self.s.cells.cast(),
                        );
                        (self.kernels.transpose)(self.s.cells.cast(), out.cast());
                        slice::from_raw_parts_mut(scales, TILE).fill(1.0);
                    }
                }
            }
        }
    }

    /// Decodes the V tile, every block of it.
    fn load_v(&mut self, unit: &Unit, tile: usize) {
        let (n, ty) = (self.cells(tile), self.problem.args.type_v);
        let src = self.problem.v_row(tile * TILE, unit.head, unit.batch);
        let stride = self.problem.args.v.nb[1];
        for block in 0..self.plan.layout.v_blocks {
            // SAFETY: `n` cells lie `stride` apart; the tile has room for every block.
            unsafe {
                let out = self.s.v_tile.add(block * self.plan.layout.v_tile_bytes);
                let scales = self.s.v_scale.add(block * TILE);
                match ty {
                    KvType::Turbo(turbo) => {
                        let levels = self.kernels.levels[turbo.index_bits() - 2];
                        let src = src.wrapping_add(block * turbo.block_bytes());
                        levels(src, stride, n, self.s.cells.cast(), scales);
                        (self.kernels.pack_v)(self.s.cells.cast(), out.cast());
                        slice::from_raw_parts_mut(scales, TILE)[n..].fill(0.0);
                    }
                    _ => {
                        self.load_floats(ty, src, stride, n, block, self.problem.dv, out.cast());
                    }
                }
            }
        }
    }

    /// Block column `block` of `n` cells as floats, `[64][64]`, zeros where there is no cell or no value.
    ///
    /// # Safety
    /// `src`: `n` cells `stride` apart, of `len` values each. `dst`: 64 x 64 floats.
    #[allow(clippy::too_many_arguments)]
    unsafe fn load_floats(
        &self,
        ty: KvType,
        src: *const u8,
        stride: usize,
        n: usize,
        block: usize,
        len: usize,
        dst: *mut f32,
    ) {
        let width = TILE.min(len - block * TILE);
        let skipped = block * TILE / ty.block_len() * ty.block_bytes();
        // SAFETY: the caller's.
        unsafe {
            if n < TILE || width < TILE {
                slice::from_raw_parts_mut(dst, TILE * TILE).fill(0.0);
            }
            for cell in 0..n {
                let src = src.add(cell * stride + skipped);
                (self.kernels.to_f32)(ty, src, width, dst.add(cell * TILE));
            }
        }
    }

    /// Logits of `n` rows from `row` on, scaled, capped and masked, and the largest of each row.
    fn logits(&mut self, row: usize, n: usize) {
        let layout = &self.plan.layout;
        let args = &self.problem.args;
        let lda = layout.k_blocks * TILE;
        for block in 0..layout.k_blocks {
            // SAFETY: queries have `lda` values a row, tiles and scales one entry a block.
            unsafe {
                let tile = self.s.k_tile.add(block * layout.k_tile_bytes);
                let scales = self.s.k_scale.add(block * TILE);
                let first = block == 0;
                if self.k_is_turbo() {
                    let q = self.s.q.cast::<i16>().add(row * lda + block * TILE);
                    (self.kernels.logits_i16)(
                        n,
                        q,
                        lda,
                        tile.cast(),
                        self.s.logits,
                        TILE,
                        scales,
                        first,
                    );
                } else {
                    let q = self.s.q.cast::<f32>().add(row * lda + block * TILE);
                    (self.kernels.logits_f32)(
                        n,
                        q,
                        lda,
                        tile.cast(),
                        self.s.logits,
                        TILE,
                        scales,
                        first,
                    );
                }
            }
        }
        let (scale, cap) = match args.softcap {
            0.0 => (args.scale, 0.0),
            cap => (args.scale / cap, cap),
        };
        for i in 0..n {
            // SAFETY: rows, and their masks, are within the layout's; `logits` has SUB_ROWS rows.
            unsafe {
                let mask = self.s.mask.add(self.mask_index(row + i) * TILE);
                let logit = Logit {
                    scale: scale * *self.s.q_scale.add(row + i),
                    cap,
                    slope: *self.s.slope.add(row + i),
                };
                *self.s.tile_largest.add(i) = match self.hides(row + i) {
                    Hides::All => f32::NEG_INFINITY,
                    Hides::Some => (self.kernels.logits)(self.s.logits.add(i * TILE), mask, &logit),
                    Hides::None => {
                        (self.kernels.logits)(self.s.logits.add(i * TILE), std::ptr::null(), &logit)
                    }
                };
            }
        }
    }

    /// Exponentials of `n` rows of logits, relative to the tile's largest; carries `largest` and `sum` on.
    fn soften(&mut self, row: usize, n: usize) {
        // SAFETY: rows are within the layout's, `n` <= SUB_ROWS.
        unsafe {
            let largest = slice::from_raw_parts_mut(self.s.largest.add(row), n);
            let sum = slice::from_raw_parts_mut(self.s.sum.add(row), n);
            let tile_largest = slice::from_raw_parts(self.s.tile_largest, n);
            let shrink = slice::from_raw_parts_mut(self.s.shrink, SUB_PADDED);
            let share = slice::from_raw_parts_mut(self.s.share, SUB_PADDED);
            for i in 0..n {
                let new = largest[i].max(tile_largest[i]);
                let relative = |x: f32| if x == f32::NEG_INFINITY { x } else { x - new };
                shrink[i] = relative(largest[i]);
                share[i] = relative(tile_largest[i]);
                largest[i] = new;
            }
            shrink[n..].fill(0.0);
            share[n..].fill(0.0);
            (self.kernels.exp_slice)(shrink.as_mut_ptr(), SUB_PADDED);
            (self.kernels.exp_slice)(share.as_mut_ptr(), SUB_PADDED);
            for i in 0..n {
                let logits = self.s.logits.add(i * TILE);
                if tile_largest[i] == f32::NEG_INFINITY {
                    slice::from_raw_parts_mut(logits, TILE).fill(0.0);
                    continue;
                }
                let tile_sum = (self.kernels.exp_row)(logits, tile_largest[i]);
                if shrink[i] != 1.0 && sum[i] != 0.0 {
                    let out = self.s.out.add((row + i) * self.out_len());
                    (self.kernels.scale)(out, self.out_len(), shrink[i]);
                }
                sum[i] = sum[i] * shrink[i] + tile_sum * share[i];
            }
        }
    }

    /// Adds the tile's V, weighted, to the outputs of `n` rows.
    fn outputs(&mut self, row: usize, n: usize) {
        let layout = &self.plan.layout;
        let ldo = self.out_len();
        for block in 0..layout.v_blocks {
            // SAFETY: rows are within the layout's, `n` <= SUB_ROWS, tiles and weights have an entry a block.
            unsafe {
                let tile = self.s.v_tile.add(block * layout.v_tile_bytes);
                let out = self.s.out.add(row * ldo + block * TILE);
                if self.v_is_turbo() {
                    for i in 0..n {
                        let logits = self.s.logits.add(i * TILE);
                        let unit = (self.kernels.weigh)(
                            self.s.weights.add(i * TILE),
                            logits,
                            self.s.v_scale.add(block * TILE),
                        );
                        *self.s.factor.add(i) = *self.s.share.add(i) * unit;
                    }
                    (self.kernels.outputs_i16)(
                        n,
                        self.s.weights,
                        TILE,
                        tile.cast(),
                        out,
                        ldo,
                        self.s.factor,
                        false,
                    );
                } else {
                    (self.kernels.outputs_f32)(
                        n,
                        self.s.logits,
                        TILE,
                        tile.cast(),
                        out,
                        ldo,
                        self.s.share,
                        false,
                    );
                }
            }
        }
    }

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

/// Nearest integer, ties to even. |x| <= 32767. Adding 1.5 * 2^23 leaves the integer in the low bits.
fn round(x: f32) -> i16 {
    (x + 12_582_912.0).to_bits() as i16
}
