//! Viterbi search of the encoder, AVX2.
//!
//! Key instructions: `vpshufb` (branch costs of 32 butterflies from four bytes), `vpaddusb`,
//! `vpminub`, `vpmovmskb` (decisions). 64 path costs are two registers of saturating `u8`, which
//! cannot overflow; two searches run interleaved, because one alone waits for its own latency,
//! and all of them trace back together, a lane each.

use crate::codec::QK;
use crate::codec::encode::{
    Branch, Branches, SCALES,
    search::{CONTEXT, RENORMALIZE, STATES, butterfly_subset},
};
use core::arch::x86_64::*;

/// Byte shuffles that spread four branch costs over 32 butterflies, for the straight branches and
/// the crossed ones.
const SPREAD: [[u8; 32]; 2] = {
    let mut spread = [[0; 32]; 2];
    let mut s = 0;
    while s < 32 {
        spread[0][s] = butterfly_subset(s) as u8;
        spread[1][s] = butterfly_subset(s) as u8 ^ 2;
        s += 1;
    }
    spread
};

/// Decisions after one value, of each search: bit `s/2` (even states) or `32 + s/2` (odd states) is
/// *clear* where the best path into state `s` comes from the upper predecessor.
type Decisions = [[u64; SCALES]; QK];

/// Path costs of states 0 to 31 and 32 to 63.
#[derive(Clone, Copy)]
struct Costs(__m256i, __m256i);

/// [`crate::codec::encode::search::paths`] on AVX2; the same paths, bit for bit.
#[target_feature(enable = "avx2")]
#[inline]
pub fn paths(branches: &[Branches; SCALES]) -> [u64; SCALES] {
    let mut decisions = [[0; SCALES]; QK];

    let zero = Costs(_mm256_setzero_si256(), _mm256_setzero_si256());
    let free = run([zero; SCALES], &mut decisions, branches, QK - CONTEXT, 2 * CONTEXT);
    let ends = free.map(|c| argmin(c));
    let (wraps, _) = trace(&decisions, CONTEXT, ends);

    run(wraps.map(|wrap| only(wrap)), &mut decisions, branches, 0, QK);
    trace(&decisions, QK, wraps).1
}

/// Advances every search by `count` values (a multiple of [`RENORMALIZE`]) from value `first`.
/// Two at a time: more would not fit the registers.
#[target_feature(enable = "avx2")]
#[inline]
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

#[target_feature(enable = "avx2")]
#[inline]
fn advance(Costs(low, high): Costs, branch: Branch) -> (Costs, u64) {
    let [straight, crossed] = SPREAD.each_ref().map(|spread| {
        // SAFETY: 32 bytes are read from an array of 32 bytes.
        let spread = unsafe { _mm256_loadu_si256(spread.as_ptr().cast()) };
        _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(branch.costs)), spread)
    });
    let even_low = _mm256_adds_epu8(low, straight);
    let odd_low = _mm256_adds_epu8(low, crossed);
    let even = _mm256_min_epu8(even_low, _mm256_adds_epu8(high, crossed));
    let odd = _mm256_min_epu8(odd_low, _mm256_adds_epu8(high, straight));

    let from_low = |best, low| _mm256_movemask_epi8(_mm256_cmpeq_epi8(best, low)) as u32 as u64;
    let decision = from_low(even, even_low) | from_low(odd, odd_low) << 32;

    // Even and odd states interleave: within lanes first, then the lanes.
    let a = _mm256_unpacklo_epi8(even, odd);
    let b = _mm256_unpackhi_epi8(even, odd);
    let next = Costs(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    (next, decision)
}

/// The least of 64 costs, in every byte.
#[target_feature(enable = "avx2")]
#[inline]
fn least(Costs(low, high): Costs) -> __m256i {
    let m = _mm256_min_epu8(low, high);
    let m = _mm_min_epu8(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    let m = _mm_min_epu8(m, _mm_srli_epi16(m, 8));
    // Each 16-bit lane's high byte is cleared first: minpos compares whole lanes.
    let m = _mm_minpos_epu16(_mm_and_si128(m, _mm_set1_epi16(0xff)));
    _mm256_broadcastb_epi8(m)
}

#[target_feature(enable = "avx2")]
#[inline]
fn renormalize(c: Costs) -> Costs {
    let least = least(c);
    Costs(_mm256_sub_epi8(c.0, least), _mm256_sub_epi8(c.1, least))
}

/// The lowest state of least cost.
#[target_feature(enable = "avx2")]
#[inline]
fn argmin(c: Costs) -> u64 {
    let least = least(c);
    let equal = |c| _mm256_movemask_epi8(_mm256_cmpeq_epi8(c, least)) as u32 as u64;
    u64::from((equal(c.0) | equal(c.1) << 32).trailing_zeros())
}

/// Costs that allow one state alone.
#[target_feature(enable = "avx2")]
#[inline]
fn only(state: u64) -> Costs {
    let mut cost = [u8::MAX; STATES];
    cost[state as usize] = 0;
    // SAFETY: 64 bytes are read from an array of 64 bytes, in two halves.
    unsafe {
        Costs(
            _mm256_loadu_si256(cost.as_ptr().cast()),
            _mm256_loadu_si256(cost.as_ptr().add(32).cast()),
        )
    }
}

/// Walks every search back from `ends` after value `values - 1` to before value 0:
/// the states there and the path bits on the way. The lanes vectorise.
#[target_feature(enable = "avx2")]
#[inline]
fn trace(
    decisions: &Decisions,
    values: usize,
    ends: [u64; SCALES],
) -> ([u64; SCALES], [u64; SCALES]) {
    // The walk keeps a state with its lowest bit rotated to the top: its place in the decisions.
    let mut place = ends.map(|end| (end & 1) << 5 | end >> 1);
    let mut path = [0; SCALES];
    for decisions in decisions[..values].iter().rev() {
        for i in 0..SCALES {
            path[i] = path[i] << 1 | place[i] >> 5;
            let upper = !decisions[i] >> place[i] & 1;
            place[i] = (place[i] & 1) << 5 | (place[i] & 31) >> 1 | upper << 4;
        }
    }
    (place.map(|place| (place & 31) << 1 | place >> 5), path)
}
