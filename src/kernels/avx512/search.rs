//! Viterbi search of the encoder, AVX-512.
//!
//! Key instructions: `vpshufb` (branch costs of 64 states from four bytes), `vpaddusb`, `vpminub`, and
//! `vpcmpub`, whose mask is the decision word as it is stored. 64 path costs are one register of
//! saturating `u8`, which cannot overflow: 10 instructions advance a search by a value. The searches
//! of all scales run interleaved, because one alone waits for its own latency.

use std::arch::x86_64::*;

use crate::codec::QK;
use crate::codec::encode::{
    Branch, Branches, SCALES,
    search::{CONTEXT, RENORMALIZE, STATES, butterfly_subset},
};

/// Byte shuffle that spreads four branch costs over the branches into 64 states, from the lower
/// predecessors. The subsets from the upper ones differ in the high bit.
const SPREAD: [u8; STATES] = {
    let mut spread = [0; STATES];
    let mut s = 0;
    while s < STATES {
        spread[s] = butterfly_subset(s / 2) as u8 ^ (s as u8 & 1) << 1;
        s += 1;
    }
    spread
};

/// Decisions after one value, of each search: bit `s` says that the best path into state `s` comes
/// from the upper of its two predecessors.
type Decisions = [[u64; SCALES]; QK];

/// [`crate::codec::encode::search::paths`] on AVX-512; the same paths, bit for bit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn paths(branches: &[Branches; SCALES]) -> [u64; SCALES] {
    let mut decisions = [[0; SCALES]; QK];

    let free = [_mm512_setzero_si512(); SCALES];
    let free = run(free, &mut decisions, branches, QK - CONTEXT, 2 * CONTEXT);
    let ends = free.map(|costs| argmin(costs));
    let (wraps, _) = trace(&decisions, CONTEXT, ends);

    // Costs that allow one state alone.
    let held = wraps.map(|wrap| _mm512_maskz_set1_epi8(!(1 << wrap), -1));
    run(held, &mut decisions, branches, 0, QK);
    trace(&decisions, QK, wraps).1
}

/// Advances every search by `count` values (a multiple of [`RENORMALIZE`]) from value `first`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn run(
    mut state: [__m512i; SCALES],
    decisions: &mut Decisions,
    branches: &[Branches; SCALES],
    first: usize,
    count: usize,
) -> [__m512i; SCALES] {
    for step in (0..count).step_by(RENORMALIZE) {
        for value in first + step..first + step + RENORMALIZE {
            let value = value % QK;
            for i in 0..SCALES {
                (state[i], decisions[value][i]) = advance(state[i], branches[i][value]);
            }
        }
        state = state.map(|costs| _mm512_sub_epi8(costs, least(costs)));
    }
    state
}

/// Path costs after one more value, and from where each state's best path comes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn advance(costs: __m512i, branch: Branch) -> (__m512i, u64) {
    // SAFETY: 64 bytes are read from an array of 64 bytes.
    let spread = unsafe { _mm512_loadu_si512(SPREAD.as_ptr().cast()) };
    let branch = _mm512_set1_epi32(i32::from_le_bytes(branch.costs));
    let lower_branch = _mm512_shuffle_epi8(branch, spread);
    let upper_branch = _mm512_shuffle_epi8(branch, _mm512_xor_si512(spread, _mm512_set1_epi8(2)));

    // States s and s + 32 both lead to 2 s and 2 s + 1: each cost twice, in the order of the latter.
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    let costs = _mm512_permutexvar_epi64(order, costs);
    let lower = _mm512_adds_epu8(_mm512_unpacklo_epi8(costs, costs), lower_branch);
    let upper = _mm512_adds_epu8(_mm512_unpackhi_epi8(costs, costs), upper_branch);
    (_mm512_min_epu8(lower, upper), _mm512_cmplt_epu8_mask(upper, lower))
}

/// The least of 64 costs, in every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn least(costs: __m512i) -> __m512i {
    let m = _mm256_min_epu8(_mm512_castsi512_si256(costs), _mm512_extracti64x4_epi64::<1>(costs));
    let m = _mm_min_epu8(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
    let m = _mm_min_epu8(m, _mm_srli_epi16::<8>(m));
    // Each 16-bit lane's high byte is cleared first: minpos compares whole lanes.
    let m = _mm_minpos_epu16(_mm_and_si128(m, _mm_set1_epi16(0xff)));
    _mm512_broadcastb_epi8(m)
}

/// The lowest state of least cost.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn argmin(costs: __m512i) -> u64 {
    u64::from(_mm512_cmpeq_epi8_mask(costs, least(costs)).trailing_zeros())
}

/// Walks every search back from `ends` after value `values - 1` to before value 0:
/// the states there and the path bits on the way. The lanes vectorise.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
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
            let upper = decisions[i] >> state[i] & 1;
            state[i] = state[i] >> 1 | upper << 5;
        }
    }
    (state, path)
}
