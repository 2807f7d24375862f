//! Viterbi search of the encoder, NEON.
//!
//! Key instructions: `tbl` (branch costs of 16 butterflies from four bytes), `uqadd`, `umin`, `cmhi`, and
//! `sri`/`shrn`, which pack 64 decisions into a word. 64 path costs are four registers.

use std::arch::aarch64::*;

use crate::codec::encode::Branch;
use crate::codec::encode::search::{STATES, butterfly_subset};
use crate::kernels::encode::{Viterbi, row_encoder};

row_encoder!(Neon, together: 2, "neon");

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

/// A decision's bit [`place`] of state `s` is set where the path comes from the upper predecessor.
enum Neon {}

/// Path costs of 64 states, in order.
type Costs = [uint8x16_t; 4];

impl Viterbi for Neon {
    type Costs = Costs;

    #[inline(always)]
    unsafe fn free() -> Costs {
        // SAFETY: the caller's, as in all that follow.
        unsafe { [vdupq_n_u8(0); 4] }
    }

    #[inline(always)]
    unsafe fn only(state: u64) -> Costs {
        let mut costs = [u8::MAX; STATES];
        costs[state as usize] = 0;
        let quarter = |i: usize| costs[16 * i..][..16].as_ptr();
        // SAFETY: 16 bytes are read from each quarter of 64.
        unsafe {
            [vld1q_u8(quarter(0)), vld1q_u8(quarter(1)), vld1q_u8(quarter(2)), vld1q_u8(quarter(3))]
        }
    }

    #[inline(always)]
    unsafe fn advance(costs: Costs, branch: Branch) -> (Costs, u64) {
        // SAFETY: 16 bytes are read from arrays of 16 bytes.
        unsafe {
            let branch = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(branch.costs)));
            // Registers of even states 0 to 30, odd ones, then even and odd ones from 32 on.
            let mut upper_wins = [vdupq_n_u8(0); 4];
            let mut next = costs;
            for half in 0..2 {
                let spread = vld1q_u8(SPREAD[half].as_ptr());
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
    }

    #[inline(always)]
    unsafe fn renormalize(mut costs: Costs) -> Costs {
        // SAFETY: the caller's.
        unsafe {
            let least = vdupq_n_u8(least(costs));
            for costs in &mut costs {
                *costs = vsubq_u8(*costs, least);
            }
        }
        costs
    }

    #[inline(always)]
    unsafe fn argmin(costs: Costs) -> u64 {
        let mut bytes = [0; STATES];
        // SAFETY: 16 bytes are written to each quarter of 64.
        let least = unsafe {
            for (costs, bytes) in costs.iter().zip(bytes.as_chunks_mut::<16>().0) {
                vst1q_u8(bytes.as_mut_ptr(), *costs);
            }
            least(costs)
        };
        bytes.iter().position(|&cost| cost == least).unwrap_or(0) as u64
    }

    #[inline(always)]
    fn upper(decision: u64, state: u64) -> u64 {
        decision >> place(state) & 1
    }
}

/// Masks of 0 or 255 to bits: lane `j` of register `q` to bit `4 j + 3 - q`.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn pack([a, b, c, d]: Costs) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        // Bits 7 to 4 of every byte come from a, b, c, d; then bits 3 to 0 are the same again, so that
        // the middle of two bytes holds both bytes' nibbles.
        let nibble = vsriq_n_u8::<3>(vsriq_n_u8::<2>(vsriq_n_u8::<1>(a, b), c), d);
        let twice = vsriq_n_u8::<4>(nibble, nibble);
        let nibbles = vshrn_n_u16::<4>(vreinterpretq_u16_u8(twice));
        vget_lane_u64::<0>(vreinterpret_u64_u8(nibbles))
    }
}

/// The bit that [`pack`] gives to `state`'s decision.
#[inline(always)]
fn place(state: u64) -> u64 {
    let register = state >> 5 << 1 | state & 1;
    4 * (state >> 1 & 15) + 3 - register
}

/// The least of 64 costs.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn least([a, b, c, d]: Costs) -> u8 {
    // SAFETY: the caller's.
    unsafe { vminvq_u8(vminq_u8(vminq_u8(a, b), vminq_u8(c, d))) }
}
