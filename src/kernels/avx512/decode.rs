//! 64 levels of a block in one AVX-512 register.
//!
//! Key instructions: a 64-bit plane is a `k` mask as it lies in memory, so an index bit is one masked
//! `vpaddb`; `vpshufb` is the table. 4 additions, 1 shuffle and a masked negation for turbo4.
//! Needs AVX-512BW only: VBMI's `vpermb` would hold turbo4's 32 levels in one table, but costs the
//! same number of instructions and leaves Skylake-X out. Indices are at most 15 in 8 bits.

use std::arch::x86_64::*;

use crate::codec::Block;
use crate::kernels::fold::{Table, fold};

/// The int8 levels of `block`, in order. No scale applied.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn levels<const K: usize>(block: &Block<K>) -> __m512i {
    let (x, sign) = lookup(block);
    if K < 4 { x } else { _mm512_mask_subs_epi8(x, !sign, _mm512_setzero_si512(), x) }
}

/// Magnitudes as uint8 and `y`'s values with the levels' signs: what `maddubs` and `dpbusd` multiply.
///
/// `sum(magnitude * signed_y) == sum(level * y)`, for `y` in -127..=127 (as every q8_0 quantizer
/// writes). -128 is taken as -127 where its level is negative.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn magnitudes<const K: usize>(block: &Block<K>, y: __m512i) -> (__m512i, __m512i) {
    let (x, sign) = lookup(block);
    let negative = if K < 4 { _mm512_movepi8_mask(x) } else { !sign };
    let magnitude = if K < 4 { _mm512_abs_epi8(x) } else { x };
    (magnitude, _mm512_mask_subs_epi8(y, negative, _mm512_setzero_si512(), y))
}

/// Table entries of all 64 values (levels, or magnitudes for turbo4), and turbo4's sign plane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn lookup<const K: usize>(block: &Block<K>) -> (__m512i, u64) {
    let ([p0, p1, p2, p3], sign) = fold(block);
    let mut index = _mm512_maskz_mov_epi8(p0, _mm512_set1_epi8(1));
    index = _mm512_mask_add_epi8(index, p1, index, _mm512_set1_epi8(2));
    index = _mm512_mask_add_epi8(index, p2, index, _mm512_set1_epi8(4));
    if K > 2 {
        index = _mm512_mask_add_epi8(index, p3, index, _mm512_set1_epi8(8));
    }
    let t = Table::<K>::BYTES.map(|level| level as u8);
    let half = |at: usize| i64::from_le_bytes(std::array::from_fn(|i| t[at + i]));
    let table = _mm512_broadcast_i32x4(_mm_set_epi64x(half(8), half(0)));
    (_mm512_shuffle_epi8(table, index), sign)
}
