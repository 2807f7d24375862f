//! Viterbi search of the encoder, NEON.
//!
//! Key instructions: `tbl` (branch costs of 16 butterflies from four bytes), `uqadd`, `umin`, `cmhi`, and
//! `sri`/`shrn`, which pack 64 decisions into a word. 64 path costs are four registers of saturating
//! `u8`, which cannot overflow; two searches run interleaved, because one alone waits for its own
//! latency.

use std::arch::aarch64::*;

use crate::codec::QK;
use crate::codec::encode::{
    Branch, Branches, SCALES,
    search::{CONTEXT, RENORMALIZE, STATES, butterfly_subset},
};

/// Byte shuffles that spread four branch costs over 32 butterflies; the crossed branches' subsets
/// differ in the high bit.
const SPREAD: [[u8; 16]; 2] = {
    let mut spread = [[0; 16]; 2];
    let mut s = 0;
    while s < 32 {
        spread[s / 16][s % 16] = butterfly_subset(s) as u8;
        s += 1;
    }
    spread
};

/// Decisions after one value, of each search: bit [`place`] of state `s` says that the best path into
/// it comes from the upper of its two predecessors.
type Decisions = [[u64; SCALES]; QK];

/// Path costs of 64 states, in order.
type Costs = [uint8x16_t; 4];

/// [`crate::codec::encode::search::paths`] on NEON; the same paths, bit for bit.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn paths(branches: &[Branches; SCALES]) -> [u64; SCALES] {
    let mut decisions = [[0; SCALES]; QK];

    let free = [[vdupq_n_u8(0); 4]; SCALES];
    let free = run(free, &mut decisions, branches, QK - CONTEXT, 2 * CONTEXT);
    let ends = free.map(|costs| argmin(costs));
    let (wraps, _) = trace(&decisions, CONTEXT, ends);

    run(wraps.map(|wrap| only(wrap)), &mut decisions, branches, 0, QK);
    trace(&decisions, QK, wraps).1
}

/// Advances every search by `count` values (a multiple of [`RENORMALIZE`]) from value `first`.
/// Two at a time: more would not fit the registers.
#[inline]
#[target_feature(enable = "neon")]
fn run(
    mut state: [Costs; SCALES],
    decisions: &mut Decisions,
    branches: &[Branches; SCALES],
    first: usize,
    count: usize,
) -> [Costs; SCALES] {
    for pair in (0..SCALES).step_by(2) {
        let [mut a, mut b] = [state[pair], state[pair + 1]];
        for step in (0..count).step_by(RENORMALIZE) {
            for value in first + step..first + step + RENORMALIZE {
                let value = value % QK;
                (a, decisions[value][pair]) = advance(a, branches[pair][value]);
                (b, decisions[value][pair + 1]) = advance(b, branches[pair + 1][value]);
            }
            (a, b) = (renormalize(a), renormalize(b));
        }
        [state[pair], state[pair + 1]] = [a, b];
    }
    state
}

/// Path costs after one more value, and from where each state's best path comes.
#[inline]
#[target_feature(enable = "neon")]
fn advance(costs: Costs, branch: Branch) -> (Costs, u64) {
    let branch = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(branch.costs)));
    // Registers of even states 0 to 30, odd ones, then even and odd ones from 32 on.
    let mut upper_wins = [vdupq_n_u8(0); 4];
    let mut next = costs;
    for half in 0..2 {
        // SAFETY: 16 bytes are read from an array of 16 bytes.
        let spread = unsafe { vld1q_u8(SPREAD[half].as_ptr()) };
        let straight = vqtbl1q_u8(branch, spread);
        let crossed = vqtbl1q_u8(branch, veorq_u8(spread, vdupq_n_u8(2)));
        let (low, high) = (costs[half], costs[half + 2]);
        let (even_low, even_high) = (vqaddq_u8(low, straight), vqaddq_u8(high, crossed));
        let (odd_low, odd_high) = (vqaddq_u8(low, crossed), vqaddq_u8(high, straight));
        let (even, odd) = (vminq_u8(even_low, even_high), vminq_u8(odd_low, odd_high));
        next[2 * half] = vzip1q_u8(even, odd);
        next[2 * half + 1] = vzip2q_u8(even, odd);
        upper_wins[2 * half] = vcltq_u8(even_high, even_low);
        upper_wins[2 * half + 1] = vcltq_u8(odd_high, odd_low);
    }
    (next, pack(upper_wins))
}

/// Masks of 0 or 255 to bits: lane `j` of register `q` to bit `4 j + 3 - q`.
#[inline]
#[target_feature(enable = "neon")]
fn pack([a, b, c, d]: Costs) -> u64 {
    // Bits 7 to 4 of every byte come from a, b, c, d; then bits 3 to 0 are the same again, so that
    // the middle of two bytes holds both bytes' nibbles.
    let nibble = vsriq_n_u8::<3>(vsriq_n_u8::<2>(vsriq_n_u8::<1>(a, b), c), d);
    let twice = vsriq_n_u8::<4>(nibble, nibble);
    let nibbles = vshrn_n_u16::<4>(vreinterpretq_u16_u8(twice));
    vget_lane_u64::<0>(vreinterpret_u64_u8(nibbles))
}

/// The bit that [`pack`] gives to `state`'s decision.
#[inline]
fn place(state: u64) -> u64 {
    let register = state >> 5 << 1 | state & 1;
    4 * (state >> 1 & 15) + 3 - register
}

#[inline]
#[target_feature(enable = "neon")]
fn least([a, b, c, d]: Costs) -> u8 {
    vminvq_u8(vminq_u8(vminq_u8(a, b), vminq_u8(c, d)))
}

#[inline]
#[target_feature(enable = "neon")]
fn renormalize(costs: Costs) -> Costs {
    let least = vdupq_n_u8(least(costs));
    costs.map(|costs| vsubq_u8(costs, least))
}

/// The lowest state of least cost.
#[inline]
#[target_feature(enable = "neon")]
fn argmin(costs: Costs) -> u64 {
    let least = least(costs);
    let mut bytes = [0; STATES];
    for (costs, bytes) in costs.into_iter().zip(bytes.as_chunks_mut::<16>().0) {
        // SAFETY: 16 bytes are written to an array of 16 bytes.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), costs) }
    }
    bytes.iter().position(|&cost| cost == least).unwrap_or(0) as u64
}

/// Costs that allow one state alone.
#[inline]
#[target_feature(enable = "neon")]
fn only(state: u64) -> Costs {
    let mut costs = [[u8::MAX; 16]; 4];
    costs[state as usize / 16][state as usize % 16] = 0;
    // SAFETY: 16 bytes are read from an array of 16 bytes.
    costs.map(|costs| unsafe { vld1q_u8(costs.as_ptr()) })
}

/// Walks every search back from `ends` after value `values - 1` to before value 0:
/// the states there and the path bits on the way.
#[inline]
#[target_feature(enable = "neon")]
fn trace(
    decisions: &Decisions,
    values: usize,
    ends: [u64; SCALES],
) -> ([u64; SCALES], [u64; SCALES]) {
    let mut state = ends;
    let mut path = [0; SCALES];
    for decisions in decisions[..values].iter().rev() {
        for i in 0..SCALES {
            path[i] = path[i] << 1 | state[i] & 1;
            let upper = decisions[i] >> place(state[i]) & 1;
            state[i] = state[i] >> 1 | upper << 5;
        }
    }
    (state, path)
}
