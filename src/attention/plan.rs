//! Who computes what, and with which memory.
//!
//! A *unit* is a batch, a group of heads that share K and V, and a range of tokens: its rows (token by
//! token, heads within) use every decoded tile of 64 cells together. With enough units the threads take
//! them one by one from a counter. With few (decoding, above all) units x visible tiles is one line that
//! is cut into equal pieces, a thread each; a unit that was cut is put together from partial results.

use super::problem::{KvType, Problem};
use super::{LINE, TILE};

/// Rows that a unit aims for: enough that decoding K and V is a small part of the work.
const ROWS: usize = 128;
/// Rows below which a unit is not cut any smaller to occupy more threads.
const ROWS_MIN: usize = 24;
/// Rows that are taken from logits to output before the next; their logits stay in the L1 cache.
pub(super) const SUB_ROWS: usize = 24;

/// The division of a problem for a number of threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Tokens of a unit; the last may have fewer.
    pub tokens: usize,
    /// Ranges of tokens.
    pub token_blocks: usize,
    /// Groups of heads in a batch.
    pub groups: usize,
    /// Units in all.
    pub units: usize,
    /// Tiles of 64 cells, the last may have fewer.
    pub tiles: usize,
    /// Whether units are cut: else threads take whole units from a counter.
    pub split: bool,
    /// Memory of a thread.
    pub layout: Layout,
}

/// One unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub batch: usize,
    pub head: usize,
    pub token: usize,
    pub tokens: usize,
}

/// Sizes of a thread's memory, in elements unless it says bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Rows of the largest unit, rounded up so that row arrays are whole vectors.
    pub rows: usize,
    /// Blocks of 64 in a K row and a V row, the last may be partial.
    pub k_blocks: usize,
    pub v_blocks: usize,
    /// Bytes of a K tile and a V tile of one block: i16 for turbo, else f32.
    pub k_tile_bytes: usize,
    pub v_tile_bytes: usize,
    /// Visible tiles that can be listed.
    pub tiles: usize,
    /// Anchors that cells may have.
    pub anchors: usize,
    /// Bytes of a thread's working memory.
    pub scratch_bytes: usize,
    /// Floats of a partial result: rows' outputs, largest logits, sums.
    pub partial: usize,
}

impl Plan {
    /// The plan for `threads` threads, at least 1. Depends on shapes and types alone.
    pub fn new(problem: &Problem, threads: usize) -> Self {
        let group = problem.group;
        let groups = problem.heads / group;
        let tiles = problem.n_kv.div_ceil(TILE);
        let largest = unit_tokens(problem.tokens, group, ROWS);
        let units = |tokens: usize| problem.batches * groups * problem.tokens.div_ceil(tokens);
        let mut tokens = largest;
        // A group of heads is never divided, so one token is as small as a unit gets.
        while tokens > 1 && units(tokens) < 4 * threads && tokens * group / 2 >= ROWS_MIN {
            tokens = unit_tokens(problem.tokens, group, tokens * group / 2);
        }
        let mut split = threads > 1 && units(tokens) < 2 * threads;
        if split {
            tokens = largest;
        }
        if tiles < 2 {
            split = false;
        }
        let layout = Layout::new(problem, largest);
        Self {
            tokens,
            token_blocks: problem.tokens.div_ceil(tokens),
            groups,
            units: units(tokens),
            tiles,
            split,
            layout,
        }
    }

    /// Bytes of the work buffer; never less for more threads.
    pub fn work_bytes(&self, threads: usize) -> usize {
        // The counter's line, a line to align, and for each thread scratch and two partial results.
        2 * LINE + threads * (self.layout.scratch_bytes + 2 * self.layout.partial_bytes())
    }

    /// Unit `index`; late tokens, that see the most cells, come first.
    pub fn unit(&self, problem: &Problem, index: usize) -> Unit {
        let heads = self.groups * problem.batches;
        let block = self.token_blocks - 1 - index / heads;
        let (batch, group) = (index % heads / self.groups, index % heads % self.groups);
        let token = block * self.tokens;
        Unit {
            batch,
            head: group * problem.group,
            token,
            tokens: self.tokens.min(problem.tokens - token),
        }
    }
}

/// Tokens of about `rows` rows: a multiple that fills the GEMM's blocks of 6 rows, where there are so many.
fn unit_tokens(tokens: usize, group: usize, rows: usize) -> usize {
    let whole = (1..=6).find(|whole| (whole * group).is_multiple_of(6)).unwrap_or(6);
    let wanted = (rows / group).max(1);
    let wanted = if wanted >= whole { wanted - wanted % whole } else { wanted };
    wanted.min(tokens.max(1))
}

impl Layout {
    fn new(problem: &Problem, tokens: usize) -> Self {
        let rows = (tokens * problem.group).next_multiple_of(16);
        let tile_bytes =
            |ty| if matches!(ty, KvType::Turbo(_)) { 2 * TILE * TILE } else { 4 * TILE * TILE };
        let mut layout = Self {
            rows,
            k_blocks: problem.dk.div_ceil(TILE),
            v_blocks: problem.dv.div_ceil(TILE),
            k_tile_bytes: tile_bytes(problem.args.type_k),
            v_tile_bytes: tile_bytes(problem.args.type_v),
            tiles: problem.n_kv.div_ceil(TILE),
            anchors: problem.anchors(),
            scratch_bytes: 0,
            partial: 0,
        };
        layout.partial = rows * (layout.v_blocks * TILE + 2);
        layout.scratch_bytes = super::scratch::bytes(&layout);
        layout
    }

    pub fn partial_bytes(&self) -> usize {
        (4 * self.partial).next_multiple_of(LINE)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::super::problem::{Args, Tensor};
    use super::*;
    use crate::codec::TurboType;

    fn problem(group: usize, tokens: usize) -> Problem {
        let tensor = |ne: [usize; 4], element: usize, block: usize| {
            let row = ne[0] / block * element;
            Tensor { data: ptr::null(), ne, nb: [element, row, row * ne[1], row * ne[1] * ne[2]] }
        };
        let turbo = TurboType::Turbo4;
        let cache = tensor([64, 300, 1, 1], turbo.block_bytes(), TILE);
        let ty = KvType::Turbo(turbo);
        Problem::new(&Args {
            q: tensor([64, tokens, group, 1], 4, 1),
            k: cache,
            type_k: ty,
            v: cache,
            type_v: ty,
            mask: None,
            sinks: ptr::null(),
            anchors: None,
            dst: ptr::null_mut(),
            scale: 1.0,
            max_bias: 0.0,
            softcap: 0.0,
        })
        .unwrap()
    }

    #[test]
    fn every_group_and_number_of_tokens_and_threads_has_a_plan() {
        for group in 1..=160 {
            for tokens in 1..=300 {
                let problem = problem(group, tokens);
                let mut bytes = 0;
                for threads in 1..=64 {
                    let plan = Plan::new(&problem, threads);
                    let what = format!("{group} heads, {tokens} tokens, {threads} threads");
                    // A range of tokens a unit, in order, without gaps.
                    let mut next = tokens;
                    for unit in (0..plan.units).map(|index| plan.unit(&problem, index)) {
                        assert_eq!(unit.token + unit.tokens, next, "{what}");
                        assert!(unit.tokens * group <= plan.layout.rows, "{what}");
                        next = unit.token;
                    }
                    assert_eq!(next, 0, "{what}");
                    let needed = plan.work_bytes(threads);
                    assert!(needed >= bytes, "{what}: fewer need {bytes}, not {needed}");
                    bytes = needed;
                }
            }
        }
    }
}
