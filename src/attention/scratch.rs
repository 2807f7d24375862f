//! A thread's working memory, carved from the caller's work buffer.

use super::anchors::BIAS_LEN;
use super::plan::{Layout, SUB_ROWS};
use super::softmax::Hides;
use super::{LINE, TILE};

/// Where everything lies. Rows are as in `plan`; arrays of 64 are places of a tile.
pub(super) struct Scratch {
    /// Queries, `[rows][k_blocks * 64]`: i16 in the decoder's order if K is turbo, else f32.
    pub q: *mut u8,
    /// What one unit of an i16 query is worth, `[rows]`.
    pub q_scale: *mut f32,
    /// Unnormalised outputs, `[rows][v_blocks * 64]`, in the decoder's order if V is turbo.
    pub out: *mut f32,
    /// Largest logit so far, `[rows]`.
    pub largest: *mut f32,
    /// Sum of `e^(logit - largest)` so far, `[rows]`.
    pub sum: *mut f32,
    /// ALiBi's slope, `[rows]`.
    pub slope: *mut f32,
    /// K tiles, `[k_blocks]`, i16 or f32.
    pub k_tile: *mut u8,
    /// Scales of K's cells, `[k_blocks][64]`.
    pub k_scale: *mut f32,
    /// V tiles, `[v_blocks]`, i16 or f32.
    pub v_tile: *mut u8,
    /// Scales of V's cells, `[v_blocks][64]`.
    pub v_scale: *mut f32,
    /// A decoded block column, `[64][64]`: i8 levels, or floats.
    pub cells: *mut u8,
    /// Mask rows, `[rows][64]`.
    pub mask: *mut f32,
    /// What the mask rows hide, `[rows]`.
    pub hides: *mut Hides,
    /// Logits, then exponentials, `[SUB_ROWS][64]`.
    pub logits: *mut f32,
    /// Queries as they came, `[rows]`; nothing without anchors, as what follows up to `bias`.
    pub q_rows: *mut *const f32,
    /// Products of queries and anchors, `[anchors][rows]`.
    pub terms: *mut f32,
    /// Whether an anchor's terms are there, `[anchors]`.
    pub has_terms: *mut bool,
    /// What anchors add to a row of logits, `[64]` and a vector to spare.
    pub bias: *mut f32,
    /// Weights of V's cells, `[SUB_ROWS][64]`.
    pub weights: *mut i16,
    /// Three arrays of `[SUB_ROWS]`, each padded to whole vectors.
    pub tile_largest: *mut f32,
    /// `e^(old largest - new largest)`.
    pub shrink: *mut f32,
    /// `e^(tile's largest - new largest)`, directly behind `shrink`.
    pub share: *mut f32,
    /// Factors of outputs.
    pub factor: *mut f32,
    /// Indices of visible tiles, `[tiles]`.
    pub visible: *mut u32,
}

/// `SUB_ROWS`, as whole vectors of every instruction set.
pub(super) const SUB_PADDED: usize = SUB_ROWS.next_multiple_of(16);

/// Hands out consecutive pieces of memory, each on its own cache line.
struct Carver {
    base: *mut u8,
    used: usize,
}

impl Carver {
    fn take<T>(&mut self, n: usize) -> *mut T {
        let piece = self.base.wrapping_add(self.used).cast();
        self.used += (n * size_of::<T>()).next_multiple_of(LINE);
        piece
    }
}

impl Scratch {
    /// Carves `base`, which is aligned to a cache line and has `layout.scratch_bytes`; reads and writes nothing.
    pub fn new(layout: &Layout, base: *mut u8) -> Self {
        Self::carve(layout, base).0
    }

    fn carve(layout: &Layout, base: *mut u8) -> (Self, usize) {
        let &Layout { rows, k_blocks, v_blocks, .. } = layout;
        let q_bytes = rows * k_blocks * layout.k_tile_bytes / TILE;
        let mut carver = Carver { base, used: 0 };
        let scratch = Self {
            q: carver.take(q_bytes),
            q_scale: carver.take(rows),
            out: carver.take(rows * v_blocks * TILE),
            largest: carver.take(rows),
            sum: carver.take(rows),
            slope: carver.take(rows),
            k_tile: carver.take(k_blocks * layout.k_tile_bytes),
            k_scale: carver.take(k_blocks * TILE),
            v_tile: carver.take(v_blocks * layout.v_tile_bytes),
            v_scale: carver.take(v_blocks * TILE),
            cells: carver.take(TILE * TILE * size_of::<f32>()),
            mask: carver.take(rows * TILE),
            hides: carver.take(rows),
            logits: carver.take(SUB_ROWS * TILE),
            q_rows: carver.take(if layout.anchors > 0 { rows } else { 0 }),
            terms: carver.take(layout.anchors * rows),
            has_terms: carver.take(layout.anchors),
            bias: carver.take(if layout.anchors > 0 { BIAS_LEN } else { 0 }),
            weights: carver.take(SUB_ROWS * TILE),
            tile_largest: carver.take(SUB_PADDED),
            shrink: carver.take(SUB_PADDED),
            share: carver.take(SUB_PADDED),
            factor: carver.take(SUB_PADDED),
            visible: carver.take(layout.tiles),
        };
        (scratch, carver.used)
    }
}

/// Bytes that [`Scratch`] needs.
pub(super) fn bytes(layout: &Layout) -> usize {
    Scratch::carve(layout, std::ptr::null_mut()).1
}
