//! AVX-512 F and BW, with or without VNNI: sixteen lanes.
//!
//! `vpdpwssd` multiplies pairs of i16 and adds them to i32 sums in one instruction; without it, two.

use std::arch::x86_64::*;

use super::TILE;
use super::avx2::{pack_k, pack_v, transpose};
use super::isa::kernels;
use super::scalar::ORDER;
use super::simd::Simd;
use crate::codec::{Block, QK};
use crate::kernels::avx512::decode;

/// Whether this CPU has what [`KERNELS`] uses.
pub(super) fn detected() -> bool {
    super::avx2::detected()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
}

/// Whether this CPU has what [`KERNELS_VNNI`] uses.
pub(super) fn detected_vnni() -> bool {
    detected() && is_x86_feature_detected!("avx512vnni")
}

enum Avx512<const VNNI: bool> {}

macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller upholds `Simd`'s contract: the CPU has AVX-512, pointers are valid.
            unsafe { $body }
        })*
    };
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const LANES: usize = 16;
    type F = __m512;
    type Pairs = __m512i;
    type Sums = __m512i;

    ops! {
        load(src: *const f32) -> __m512 = _mm512_loadu_ps(src);
        store(dst: *mut f32, x: __m512) -> () = _mm512_storeu_ps(dst, x);
        load_f16(src: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(src.cast()));
        load_i8(src: *const i8) -> __m512 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(src.cast())));
        splat_f16(src: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_set1_epi16(src.cast::<i16>().read_unaligned()));
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        round(x: __m512) -> __m512 = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
        scale_pow2(y: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(y, n);
        zero_below(x: __m512, limit: __m512, y: __m512) -> __m512 = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), y);
        hide(x: __m512, mask: __m512) -> __m512 = {
            let hidden = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(mask, _mm512_set1_ps(f32::NEG_INFINITY));
            _mm512_mask_mov_ps(x, hidden, mask)
        };
        sum(x: __m512) -> f32 = _mm512_reduce_add_ps(x);
        largest(x: __m512) -> f32 = _mm512_reduce_max_ps(x);
        store_i16(dst: *mut i16, x: __m512) -> () =
            _mm256_storeu_si256(dst.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
        load_pairs(src: *const i16) -> __m512i = _mm512_loadu_si512(src.cast());
        splat_pair(src: *const i16) -> __m512i = _mm512_set1_epi32(src.cast::<i32>().read_unaligned());
        no_sums() -> __m512i = _mm512_setzero_si512();
        add_products(sums: __m512i, a: __m512i, b: __m512i) -> __m512i =
            if VNNI { _mm512_dpwssd_epi32(sums, a, b) } else { _mm512_add_epi32(sums, _mm512_madd_epi16(a, b)) };
        sums(sums: __m512i) -> __m512 = _mm512_cvtepi32_ps(sums);
    }
}

/// See `isa::LevelsFn`.
///
/// # Safety
/// AVX-512 F and BW; as `isa::LevelsFn`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn levels<const K: usize>(
    src: *const u8,
    stride: usize,
    n: usize,
    levels: *mut i8,
    scales: *mut f32,
) {
    let mut halves = [0u16; TILE];
    // SAFETY: the caller's `n` cells are `stride` bytes apart and hold a block each, which has no alignment;
    // `levels` has 64 bytes a cell, `scales` 64 floats.
    unsafe {
        for (cell, half) in halves.iter_mut().enumerate().take(n) {
            let block = &*src.add(cell * stride).cast::<Block<K>>();
            *half = u16::from_le_bytes(block.scale);
            _mm512_storeu_si512(levels.add(cell * QK).cast(), decode::levels(block));
        }
        for i in (0..n).step_by(16) {
            let half = _mm256_loadu_si256(halves.as_ptr().add(i).cast());
            _mm512_storeu_ps(scales.add(i), _mm512_cvtph_ps(half));
        }
    }
}

kernels! {
    pub(super) static KERNELS = "avx512", Avx512<false>, ["avx512f,avx512bw,avx2,fma,f16c"], order: &ORDER,
    levels: [levels::<2>, levels::<3>, levels::<4>],
    pack_k: pack_k, pack_v: pack_v, transpose: transpose
}

kernels! {
    pub(super) static KERNELS_VNNI = "avx512-vnni", Avx512<true>, ["avx512f,avx512bw,avx512vnni,avx2,fma,f16c"],
    order: &ORDER,
    levels: [levels::<2>, levels::<3>, levels::<4>],
    pack_k: pack_k, pack_v: pack_v, transpose: transpose
}
