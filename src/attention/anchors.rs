//! The key-anchor term: keys are stored as K - m, and the logit's part q.m is added.
//!
//! Cells next to each other mostly share an anchor m, so a tile's ids are taken apart into runs once, q.m is
//! computed once for a unit's queries when a tile first has m, and a query's terms are written run by run.

use half::f16;

use super::TILE;
use super::problem::{AttentionError, Tensor, divides, same};
use super::simd::Simd;

/// What keys were stored without: logits become `(q.k + q.table[ids[cell]]) * scale`, then as ever.
///
/// A term that is NaN or infinite makes the results of the queries that see its cell NaN.
#[derive(Clone, Copy, Debug)]
pub struct Anchors {
    /// f16 `[dk, n_anchors, n_head_k, n_batch_k]`: the anchors of every K head.
    pub table: Tensor,
    /// i32 `[n_kv or more, n_batch_ids, 1, 1]`: the anchor of every cell; batches divide those of `q`.
    ///
    /// Negative: none, the term is 0. `n_anchors` and above is an error of the caller's: the term is NaN.
    pub ids: Tensor,
}

impl Anchors {
    /// Checks shapes and strides against those of Q and K.
    pub(super) fn check(&self, q: &Tensor, k: &Tensor) -> Result<(), AttentionError> {
        let Self { table, ids } = self;
        for (which, stride, expected) in [("anchors", table.nb[0], 2), ("anchor_ids", ids.nb[0], 4)]
        {
            if stride != expected {
                return Err(AttentionError::Strided { which, stride, expected });
            }
        }
        same("head_dim of anchors and K", table.ne[0], k.ne[0])?;
        same("heads of anchors and K", table.ne[2], k.ne[2])?;
        same("batches of anchors and K", table.ne[3], k.ne[3])?;
        same("dimension 2 of anchor_ids and 1", ids.ne[2], 1)?;
        same("dimension 3 of anchor_ids and 1", ids.ne[3], 1)?;
        if ids.ne[0] < k.ne[1] {
            let (left, right) = (ids.ne[0], k.ne[1]);
            return Err(AttentionError::Shape { what: "cells of anchor_ids and K", left, right });
        }
        divides("batches of Q and anchor_ids", q.ne[3], ids.ne[1])
    }
}

/// Where the anchors of a head are.
#[derive(Clone, Copy)]
pub(super) struct HeadAnchors {
    /// The anchor of every cell.
    pub ids: *const i32,
    /// Anchor 0.
    pub first: *const u8,
    /// Bytes from anchor to anchor.
    pub stride: usize,
}

impl HeadAnchors {
    /// The `dk` halves of an anchor; a pointer, not yet a promise that it may be read.
    pub fn anchor(&self, id: usize) -> *const u16 {
        self.first.wrapping_add(id * self.stride).cast()
    }
}

/// Cells of a tile, from where the last run ended, that share an anchor.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// Behind the last cell.
    pub end: u32,
    /// The anchor; negative: none.
    pub id: i32,
}

/// A tile's runs: together 64 cells.
pub(super) struct Runs {
    runs: [Run; TILE],
    len: usize,
}

/// Runs of a tile above which every cell becomes one: shorter than a vector, they are written cell by cell.
const MANY: usize = 12;
/// Ids that are looked at together.
const CHUNK: usize = 8;

impl Runs {
    /// Cells without anchors.
    pub const NONE: Self = Self { runs: [Run { end: 0, id: -1 }; TILE], len: 0 };

    /// Takes the ids of 1 to 64 cells apart; cells of the tile that are not there have no anchor.
    #[inline(always)]
    pub fn split(&mut self, ids: &[i32]) {
        self.len = 0;
        let mut id = ids[0];
        // Nearly every tile has one.
        if ids.len() == TILE && ids.iter().fold(0, |differs, other| differs | (other ^ id)) == 0 {
            if id >= 0 {
                self.push(TILE, id);
            }
            return;
        }
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            // Nearly every chunk goes on with the run before.
            if chunk.iter().fold(0, |differs, other| differs | (other ^ id)) == 0 {
                continue;
            }
            for (cell, &new) in chunk.iter().enumerate() {
                if new != id {
                    self.push(i * CHUNK + cell, id);
                    id = new;
                }
            }
        }
        if self.len == 0 && id < 0 {
            return;
        }
        self.push(ids.len(), id);
        if ids.len() < TILE {
            self.push(TILE, -1);
        }
        if self.len > MANY {
            self.len = 0;
            ids.iter().enumerate().for_each(|(cell, &id)| self.push(cell + 1, id));
            (ids.len()..TILE).for_each(|cell| self.push(cell + 1, -1));
        }
    }

    fn push(&mut self, end: usize, id: i32) {
        self.runs[self.len] = Run { end: end as u32, id };
        self.len += 1;
    }

    /// The runs: none if no cell has an anchor, else up to [`MANY`], else 64.
    pub fn get(&self) -> &[Run] {
        &self.runs[..self.len]
    }
}

/// A query's q.m, computed for the anchors of the tile at hand.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// That of the first anchor.
    pub first: *const f32,
    /// Floats from anchor to anchor.
    pub stride: usize,
    /// Anchors.
    pub len: usize,
}

impl Terms {
    /// q.m of a cell with this id: 0 without an anchor, NaN where there is no such anchor.
    ///
    /// # Safety
    /// The pointer is valid for the numbers beside it; the tile at hand has this id.
    #[inline(always)]
    pub unsafe fn get(&self, id: i32) -> f32 {
        match usize::try_from(id) {
            Err(_) => 0.0,
            // SAFETY: the caller's.
            Ok(id) if id < self.len => unsafe { *self.first.add(id * self.stride) },
            Ok(_) => f32::NAN,
        }
    }
}

/// Queries that [`dots`] takes together.
pub(super) const DOTS: usize = 4;

/// `q.m` for each of the queries.
///
/// # Safety
/// As [`Simd`]. `q`: `len` floats each; `m`: `len` halves.
#[inline(always)]
pub(super) unsafe fn dots<S: Simd>(
    q: [*const f32; DOTS],
    m: *const u16,
    len: usize,
) -> [f32; DOTS] {
    let whole = len - len % S::LANES;
    // SAFETY: below `len`.
    unsafe {
        let mut sums = [S::splat(0.0); DOTS];
        for i in (0..whole).step_by(S::LANES) {
            let m = S::load_f16(m.add(i));
            for (sum, q) in sums.iter_mut().zip(q) {
                *sum = S::fma(S::load(q.add(i)), m, *sum);
            }
        }
        let mut dots = [0.0; DOTS];
        for (dot, sum) in dots.iter_mut().zip(sums) {
            *dot = S::sum(sum);
        }
        for i in whole..len {
            let m = f16::from_bits(m.add(i).read_unaligned()).to_f32();
            for (dot, q) in dots.iter_mut().zip(q) {
                *dot += *q.add(i) * m;
            }
        }
        dots
    }
}

/// See [`Runs::split`].
///
/// # Safety
/// As [`Simd`]: it uses none of its operations, but is compiled with its instruction set.
#[inline(always)]
pub(super) unsafe fn split<S: Simd>(runs: &mut Runs, ids: &[i32]) {
    runs.split(ids);
}

/// Floats that [`bias`] may write: it stores whole vectors of up to 16.
pub(super) const BIAS_LEN: usize = TILE + 16;

/// `dst[cell] = scale * q.m of the cell` for a tile; returns whether all are finite.
///
/// # Safety
/// As [`Simd`]. `dst`: [`BIAS_LEN`] floats. `runs`: of [`Runs::get`], not none. `terms`: of these runs.
#[inline(always)]
pub(super) unsafe fn bias<S: Simd>(dst: *mut f32, runs: &[Run], terms: &Terms, scale: f32) -> bool {
    // SAFETY: the caller's.
    let term = |id: i32| scale * unsafe { terms.get(id) };
    let (mut start, mut finite) = (0, true);
    if runs.len() == TILE {
        for (cell, run) in runs.iter().enumerate() {
            let term = term(run.id);
            finite &= term.is_finite();
            // SAFETY: `cell` < 64.
            unsafe { *dst.add(cell) = term };
        }
        return finite;
    }
    for &Run { end, id } in runs {
        let term = term(id);
        finite &= term.is_finite();
        // What is written behind the end, the next run overwrites.
        for cell in (start..end as usize).step_by(S::LANES) {
            // SAFETY: `cell` < 64, and a vector has at most 16 lanes.
            unsafe { S::store(dst.add(cell), S::splat(term)) };
        }
        start = end as usize;
    }
    finite
}
