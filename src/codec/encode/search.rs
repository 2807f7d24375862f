//! The Viterbi search, portable: the specification of every kernel's search.
//!
//! A path that bites its tail starts and ends in the same state. Which state that is, is found
//! first: a free run over the 48 values on either side of the block's wrap, traced back to the wrap
//! (a state there has then been chosen with the values before *and* after it in view). A second run
//! of 64 values is held to start and to end in that state.

use super::{Branches, SCALES};
use crate::codec::block::QK;

/// States of the trellis: the last six path bits, newest lowest.
pub const STATES: usize = 64;
/// Values in view on either side of the wrap while its state is sought.
///
/// Relative MSE x 1000 (least-squares scales) of turbo2 / turbo4 at 32: 76.8 / 4.88, 48: 76.3 / 4.84,
/// 64: 76.1 / 4.83; time goes with 64 + 2 x this.
pub const CONTEXT: usize = 48;
/// Steps between subtractions of the least path cost, which keep costs within a byte.
pub const RENORMALIZE: usize = 8;

/// Subset of the branch from state `s` with path bit 0, for `s < 32`; the other branches of the
/// butterfly (path bit 1, or state `s + 32`) are in that subset with its high bit flipped.
pub const fn butterfly_subset(s: usize) -> usize {
    let z1 = s & 1;
    let z0 = (s >> 1 ^ s >> 3) & 1;
    z1 << 1 | z0
}

/// A tail-biting path for each scale.
pub fn paths(branches: &[Branches; SCALES]) -> [u64; SCALES] {
    branches.each_ref().map(path)
}

fn path(branches: &Branches) -> u64 {
    let mut decisions = [0; QK];

    let mut cost = [0; STATES];
    run(&mut cost, &mut decisions, branches, QK - CONTEXT..QK + CONTEXT);
    let end = argmin(&cost);
    let wrap = trace(&decisions, CONTEXT, end).0;

    let mut cost = [u8::MAX; STATES];
    cost[wrap] = 0;
    run(&mut cost, &mut decisions, branches, 0..QK);
    trace(&decisions, QK, wrap).1
}

/// Advances the path costs over `values` (mod 64); bit `s` of `decisions[value]` says that the best
/// path into state `s` comes from the upper of its two predecessors.
fn run(
    cost: &mut [u8; STATES],
    decisions: &mut [u64; QK],
    branches: &Branches,
    values: std::ops::Range<usize>,
) {
    for (step, value) in values.enumerate() {
        let branch = branches[value % QK].costs;
        let mut next = [0; STATES];
        let mut decision = 0;
        for s in 0..STATES / 2 {
            let subset = butterfly_subset(s);
            let (straight, crossed) = (branch[subset], branch[subset ^ 2]);
            for (bit, low, high) in [(0, straight, crossed), (1, crossed, straight)] {
                let low = cost[s].saturating_add(low);
                let high = cost[s + STATES / 2].saturating_add(high);
                next[2 * s + bit] = low.min(high);
                decision |= u64::from(high < low) << (2 * s + bit);
            }
        }
        decisions[value % QK] = decision;
        if step % RENORMALIZE == RENORMALIZE - 1 {
            let least = next.iter().copied().min().unwrap_or(0);
            next = next.map(|c| c - least);
        }
        *cost = next;
    }
}

/// The state with the least cost, the lowest of several.
fn argmin(cost: &[u8; STATES]) -> usize {
    let least = cost.iter().copied().min().unwrap_or(0);
    cost.iter().position(|&c| c == least).unwrap_or(0)
}

/// Walks back from state `end` after value `values - 1` to before value 0:
/// the state there, and the path bits on the way (bit `e` for value `e`).
fn trace(decisions: &[u64; QK], values: usize, end: usize) -> (usize, u64) {
    let mut state = end;
    let mut path = 0;
    for value in (0..values).rev() {
        path |= ((state & 1) as u64) << value;
        let upper = (decisions[value] >> state & 1) as usize;
        state = state >> 1 | upper << 5;
    }
    (state, path)
}
