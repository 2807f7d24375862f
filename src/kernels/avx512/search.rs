//! Viterbi search of the encoder, AVX-512.
//!
//! Key instructions: `vpshufb` (branch costs of 64 states from four bytes), `vpaddusb`, `vpminub`, and
//! `vpcmpub`, whose mask is the decision word as it is stored. 64 path costs are one register: 10
//! instructions advance a search by a value.

use std::arch::x86_64::*;

use crate::codec::encode::Branch;
use crate::codec::encode::search::{STATES, butterfly_subset};
use crate::kernels::encode::{Viterbi, row_encoder};

row_encoder!(Avx512, together: 4, "avx512f,avx512bw");

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

/// A decision's bit `s` is set where the path into state `s` comes from the upper predecessor.
enum Avx512 {}

impl Viterbi for Avx512 {
    /// Of states in order.
    type Costs = __m512i;

    #[inline(always)]
    unsafe fn free() -> __m512i {
        // SAFETY: the caller's, as in all that follow.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn only(state: u64) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_maskz_set1_epi8(!(1 << state), -1) }
    }

    #[inline(always)]
    unsafe fn advance(costs: __m512i, branch: Branch) -> (__m512i, u64) {
        // SAFETY: 64 bytes are read from an array of 64 bytes.
        unsafe {
            let spread = _mm512_loadu_si512(SPREAD.as_ptr().cast());
            let branch = _mm512_set1_epi32(i32::from_le_bytes(branch.costs));
            let lower_branch = _mm512_shuffle_epi8(branch, spread);
            let spread = _mm512_xor_si512(spread, _mm512_set1_epi8(2));
            let upper_branch = _mm512_shuffle_epi8(branch, spread);

            // States s and s + 32 both lead to 2 s and 2 s + 1: each cost twice, in the order of the latter.
            let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
            let costs = _mm512_permutexvar_epi64(order, costs);
            let lower = _mm512_adds_epu8(_mm512_unpacklo_epi8(costs, costs), lower_branch);
            let upper = _mm512_adds_epu8(_mm512_unpackhi_epi8(costs, costs), upper_branch);
            (_mm512_min_epu8(lower, upper), _mm512_cmplt_epu8_mask(upper, lower))
        }
    }

    #[inline(always)]
    unsafe fn renormalize(costs: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_sub_epi8(costs, least(costs)) }
    }

    #[inline(always)]
    unsafe fn argmin(costs: __m512i) -> u64 {
        // SAFETY: the caller's.
        unsafe { u64::from(_mm512_cmpeq_epi8_mask(costs, least(costs)).trailing_zeros()) }
    }

    #[inline(always)]
    fn upper(decision: u64, state: u64) -> u64 {
        decision >> state & 1
    }
}

/// The least of 64 costs, in every byte.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn least(costs: __m512i) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let (low, high) = (_mm512_castsi512_si256(costs), _mm512_extracti64x4_epi64::<1>(costs));
        let m = _mm256_min_epu8(low, high);
        let m = _mm_min_epu8(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
        let m = _mm_min_epu8(m, _mm_srli_epi16::<8>(m));
        // Each 16-bit lane's high byte is cleared first: minpos compares whole lanes.
        let m = _mm_minpos_epu16(_mm_and_si128(m, _mm_set1_epi16(0xff)));
        _mm512_broadcastb_epi8(m)
    }
}
