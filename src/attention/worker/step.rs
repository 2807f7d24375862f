//! A tile against some of the unit's rows: logits, softmax carried on, outputs.

use std::{ptr, slice};

use super::Worker;
use crate::attention::TILE;
use crate::attention::scratch::SUB_PADDED;
use crate::attention::softmax::{Hides, Logit};

impl Worker<'_> {
    /// Logits of `n` rows from `row` on, scaled, biased, capped and masked, and the largest of each row.
    pub(super) fn logits(&mut self, row: usize, n: usize) {
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
                let mask = match self.hides(row + i) {
                    Hides::All => {
                        *self.s.tile_largest.add(i) = f32::NEG_INFINITY;
                        continue;
                    }
                    Hides::Some => self.s.mask.add(self.mask_index(row + i) * TILE).cast_const(),
                    Hides::None => ptr::null(),
                };
                let (offset, bias) = self.bias(row + i, scale);
                let logit = Logit {
                    scale: scale * *self.s.q_scale.add(row + i),
                    cap,
                    slope: *self.s.slope.add(row + i),
                    offset,
                    bias,
                };
                *self.s.tile_largest.add(i) =
                    (self.kernels.logits)(self.s.logits.add(i * TILE), mask, &logit);
            }
        }
    }

    /// Exponentials of `n` rows of logits, relative to the tile's largest; carries `largest` and `sum` on.
    pub(super) fn soften(&mut self, row: usize, n: usize) {
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
                    let logits = slice::from_raw_parts_mut(logits, TILE);
                    // All that it sees may be NaN, which is never the largest.
                    if self.hides(row + i) != Hides::All && logits.iter().any(|x| x.is_nan()) {
                        sum[i] = f32::NAN;
                    }
                    logits.fill(0.0);
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
    pub(super) fn outputs(&mut self, row: usize, n: usize) {
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
}
