//! Viterbi search of the encoder, AVX2.
//!
//! Key instructions: `vpshufb` (branch costs of 32 butterflies from four bytes), `vpaddusb`,
//! `vpminub`, `vpmovmskb` (decisions). 64 path costs are two registers.

use std::arch::x86_64::*;

use crate::codec::encode::Branch;
use crate::codec::encode::search::{STATES, butterfly_subset};
use crate::kernels::encode::{Viterbi, row_encoder};

row_encoder!(Avx2, together: 2, "avx2");

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

/// A decision's bit [`place`] of state `s` is *clear* where the path comes from the upper predecessor.
enum Avx2 {}

/// Path costs of states 0 to 31 and 32 to 63.
#[derive(Clone, Copy)]
struct Costs(__m256i, __m256i);

impl Viterbi for Avx2 {
    type Costs = Costs;

    #[inline(always)]
    unsafe fn free() -> Costs {
        // SAFETY: the caller's, as in all that follow.
        unsafe { Costs(_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn only(state: u64) -> Costs {
        let mut cost = [u8::MAX; STATES];
        cost[state as usize] = 0;
        let [low, high] = [&cost[..32], &cost[32..]].map(<[u8]>::as_ptr);
        // SAFETY: 64 bytes are read from an array of 64 bytes, in two halves.
        unsafe { Costs(_mm256_loadu_si256(low.cast()), _mm256_loadu_si256(high.cast())) }
    }

    #[inline(always)]
    unsafe fn advance(Costs(low, high): Costs, branch: Branch) -> (Costs, u64) {
        // SAFETY: `SPREAD` has two times the 32 bytes that are read.
        unsafe {
            let branch = _mm256_set1_epi32(i32::from_le_bytes(branch.costs));
            let straight = _mm256_loadu_si256(SPREAD[0].as_ptr().cast());
            let straight = _mm256_shuffle_epi8(branch, straight);
            let crossed = _mm256_loadu_si256(SPREAD[1].as_ptr().cast());
            let crossed = _mm256_shuffle_epi8(branch, crossed);
            let even_low = _mm256_adds_epu8(low, straight);
            let odd_low = _mm256_adds_epu8(low, crossed);
            let even = _mm256_min_epu8(even_low, _mm256_adds_epu8(high, crossed));
            let odd = _mm256_min_epu8(odd_low, _mm256_adds_epu8(high, straight));
            let decision = equal(even, even_low) | equal(odd, odd_low) << 32;

            // Even and odd states interleave: within lanes first, then the lanes.
            let a = _mm256_unpacklo_epi8(even, odd);
            let b = _mm256_unpackhi_epi8(even, odd);
            let low = _mm256_permute2x128_si256::<0x20>(a, b);
            (Costs(low, _mm256_permute2x128_si256::<0x31>(a, b)), decision)
        }
    }

    #[inline(always)]
    unsafe fn renormalize(costs: Costs) -> Costs {
        // SAFETY: the caller's.
        unsafe {
            let least = least(costs);
            Costs(_mm256_sub_epi8(costs.0, least), _mm256_sub_epi8(costs.1, least))
        }
    }

    #[inline(always)]
    unsafe fn argmin(costs: Costs) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            let least = least(costs);
            u64::from((equal(costs.0, least) | equal(costs.1, least) << 32).trailing_zeros())
        }
    }

    #[inline(always)]
    fn upper(decision: u64, state: u64) -> u64 {
        !decision >> place(state) & 1
    }
}

/// The bit of `state`'s decision: even states first, then odd ones.
#[inline(always)]
fn place(state: u64) -> u64 {
    (state & 1) << 5 | state >> 1
}

/// A bit for every byte: whether `a` and `b` have the same.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn equal(a: __m256i, b: __m256i) -> u64 {
    // SAFETY: the caller's.
    unsafe { u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)) as u32) }
}

/// The least of 64 costs, in every byte.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn least(Costs(low, high): Costs) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let m = _mm256_min_epu8(low, high);
        let m = _mm_min_epu8(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
        let m = _mm_min_epu8(m, _mm_srli_epi16::<8>(m));
        // Each 16-bit lane's high byte is cleared first: minpos compares whole lanes.
        let m = _mm_minpos_epu16(_mm_and_si128(m, _mm_set1_epi16(0xff)));
        _mm256_broadcastb_epi8(m)
    }
}
