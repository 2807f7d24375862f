//! AVX2, FMA and F16C: eight lanes.
//!
//! The decoder spreads planes over nibbles: a plane, broadcast to four 64-bit lanes, shifted right by
//! 0..3 and masked with 0x11, has bit `8 j + 4 h + w` in nibble `h` of byte `j` of lane `w`. Four planes
//! make 64 4-bit indices in one register; tables of 16 are one `vpshufb`, the fifth plane blends two.
//! Values come out as `order` says, and both K and V take them so: Q is permuted before, O after.

use std::arch::x86_64::*;

use super::TILE;
use super::isa::kernels;
use super::simd::Simd;
use crate::codec::{QK, levels as table, trellis};

/// Whether this CPU has what the kernels use.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

enum Avx2 {}

macro_rules! ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller upholds `Simd`'s contract: the CPU has AVX2, pointers are valid.
            unsafe { $body }
        })*
    };
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    type F = __m256;
    type Pairs = __m256i;
    type Sums = __m256i;

    ops! {
        load(src: *const f32) -> __m256 = _mm256_loadu_ps(src);
        store(dst: *mut f32, x: __m256) -> () = _mm256_storeu_ps(dst, x);
        load_f16(src: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(src.cast()));
        load_i8(src: *const i8) -> __m256 = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(src.cast())));
        splat_f16(src: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_set1_epi16(src.cast::<i16>().read_unaligned()));
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        round(x: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
        scale_pow2(y: __m256, n: __m256) -> __m256 = {
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), exponent))
        };
        zero_below(x: __m256, limit: __m256, y: __m256) -> __m256 = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, limit), y);
        hide(x: __m256, mask: __m256) -> __m256 = {
            let hidden = _mm256_cmp_ps::<_CMP_EQ_OQ>(mask, _mm256_set1_ps(f32::NEG_INFINITY));
            _mm256_blendv_ps(x, mask, hidden)
        };
        sum(x: __m256) -> f32 = {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        };
        largest(x: __m256) -> f32 = {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        };
        store_i16(dst: *mut i16, x: __m256) -> () = {
            let x = _mm256_cvtps_epi32(x);
            let x = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_storeu_si128(dst.cast(), x);
        };
        load_pairs(src: *const i16) -> __m256i = _mm256_loadu_si256(src.cast());
        splat_pair(src: *const i16) -> __m256i = _mm256_set1_epi32(src.cast::<i32>().read_unaligned());
        no_sums() -> __m256i = _mm256_setzero_si256();
        add_products(sums: __m256i, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
        sums(sums: __m256i) -> __m256 = _mm256_cvtepi32_ps(sums);
    }
}

/// Place `32 h + 8 w + j` holds value `8 j + 4 h + w`.
static ORDER: [u8; QK] = {
    let mut order = [0; QK];
    let mut place = 0;
    while place < QK {
        let (h, w, j) = (place / 32, place / 8 % 4, place % 8);
        order[place] = (8 * j + 4 * h + w) as u8;
        place += 1;
    }
    order
};

/// The level table as two rows of 16; tables of 8 are repeated.
const fn shuffle_table(k: usize) -> [[i8; 16]; 2] {
    let table = table(k);
    let mut rows = [[0; 16]; 2];
    let mut i = 0;
    while i < 32 {
        rows[i / 16][i % 16] = table[i % table.len()];
        i += 1;
    }
    rows
}

/// See `isa::LevelsFn`.
///
/// # Safety
/// AVX2 and F16C; as `isa::LevelsFn`.
#[target_feature(enable = "avx2,f16c")]
unsafe fn levels<const K: usize>(
    src: *const u8,
    stride: usize,
    n: usize,
    levels: *mut i8,
    scales: *mut f32,
) {
    let tables = const { shuffle_table(K) };
    // SAFETY: the caller's `n` cells are `stride` bytes apart and hold a block each; `levels` has 64 bytes a
    // cell, `scales` 64 floats.
    unsafe {
        let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(tables[0].as_ptr().cast()));
        let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(tables[1].as_ptr().cast()));
        let lanes = _mm256_setr_epi64x(0, 1, 2, 3);
        let ones = _mm256_set1_epi8(0x11);
        let nibble = _mm256_set1_epi8(0x0f);
        let mut halves = [0u16; TILE];
        for (cell, half) in halves.iter_mut().enumerate().take(n) {
            let block = src.add(cell * stride);
            *half = block.cast::<u16>().read_unaligned();
            let plane = |k: usize| block.add(2 + 8 * k).cast::<u64>().read_unaligned();
            let (z1, z0) = trellis::subsets(plane(0));
            let spread = |bits: u64| _mm256_srlv_epi64(_mm256_set1_epi64x(bits as i64), lanes);
            let bits = |bits: u64| _mm256_and_si256(spread(bits), ones);
            let double = |x| _mm256_add_epi8(x, x);
            let mut index = bits(z1);
            if K >= 3 {
                index = _mm256_or_si256(double(bits(plane(2))), bits(plane(1)));
                index = _mm256_or_si256(double(index), bits(z1));
            } else {
                index = _mm256_or_si256(double(bits(plane(1))), index);
            }
            index = _mm256_or_si256(double(index), bits(z0));
            let lower = _mm256_and_si256(index, nibble);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(index), nibble);
            let mut lower_levels = _mm256_shuffle_epi8(low, lower);
            let mut upper_levels = _mm256_shuffle_epi8(low, upper);
            if K == 4 {
                // Bit 7 of a byte selects: bit 0 of its nibble, moved there.
                let top = spread(plane(3));
                let select = _mm256_slli_epi16::<7>(top);
                lower_levels =
                    _mm256_blendv_epi8(lower_levels, _mm256_shuffle_epi8(high, lower), select);
                let select = _mm256_slli_epi16::<3>(top);
                upper_levels =
                    _mm256_blendv_epi8(upper_levels, _mm256_shuffle_epi8(high, upper), select);
            }
            let out = levels.add(cell * QK);
            _mm256_storeu_si256(out.cast(), lower_levels);
            _mm256_storeu_si256(out.add(32).cast(), upper_levels);
        }
        for i in (0..n).step_by(8) {
            let scale = _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().add(i).cast()));
            _mm256_storeu_ps(scales.add(i), scale);
        }
    }
}

/// See `isa::PackFn`: transposes 8 cells x 32 values at a time, as 16-bit units.
///
/// # Safety
/// AVX2; as `isa::PackFn`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_k(levels: *const i8, tile: *mut i16) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for cell in (0..TILE).step_by(8) {
            for half in 0..2 {
                let row =
                    |i: usize| _mm256_loadu_si256(levels.add((cell + i) * QK + 32 * half).cast());
                let pair = |a, b| (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
                let quad = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                let eight = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
                let (a0, a1) = pair(row(0), row(1));
                let (b0, b1) = pair(row(2), row(3));
                let (c0, c1) = pair(row(4), row(5));
                let (d0, d1) = pair(row(6), row(7));
                let (ab0, ab1) = quad(a0, b0);
                let (ab2, ab3) = quad(a1, b1);
                let (cd0, cd1) = quad(c0, d0);
                let (cd2, cd3) = quad(c1, d1);
                for (i, (ab, cd)) in
                    [(ab0, cd0), (ab1, cd1), (ab2, cd2), (ab3, cd3)].into_iter().enumerate()
                {
                    // Lane 0 has the pair of values 2 i + 16 half, lane 1 the one 8 pairs on.
                    let (even, odd) = eight(ab, cd);
                    for (pairs, x) in [(2 * i, even), (2 * i + 1, odd)] {
                        let out = tile.add(((16 * half + pairs) * TILE + cell) * 2);
                        let lower = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x));
                        let upper = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(x));
                        _mm256_storeu_si256(out.cast(), lower);
                        _mm256_storeu_si256(out.add(8 * TILE * 2).cast(), upper);
                    }
                }
            }
        }
    }
}

/// See `isa::PackFn`: interleaves two cells and widens.
///
/// # Safety
/// AVX2; as `isa::PackFn`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn pack_v(levels: *const i8, tile: *mut i16) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for cell in (0..TILE).step_by(2) {
            for value in (0..QK).step_by(16) {
                let even = _mm_loadu_si128(levels.add(cell * QK + value).cast());
                let odd = _mm_loadu_si128(levels.add((cell + 1) * QK + value).cast());
                let out = tile.add((cell / 2 * QK + value) * 2);
                let lower = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd));
                let upper = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd));
                _mm256_storeu_si256(out.cast(), lower);
                _mm256_storeu_si256(out.add(16).cast(), upper);
            }
        }
    }
}

/// See `isa::TransposeFn`: 8 x 8 at a time, two 4 x 4 side by side.
///
/// # Safety
/// AVX; as `isa::TransposeFn`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(src: *const f32, dst: *mut f32) {
    // SAFETY: both have 64 x 64 elements.
    unsafe {
        for row in (0..TILE).step_by(8) {
            for col in (0..TILE).step_by(4) {
                let rows = |i: usize| {
                    let at = |row: usize| _mm_loadu_ps(src.add(row * TILE + col));
                    _mm256_set_m128(at(row + i + 4), at(row + i))
                };
                let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let put = |i: usize, x| _mm256_storeu_ps(dst.add((col + i) * TILE + row), x);
                put(0, _mm256_shuffle_ps::<0x44>(ab, cd));
                put(1, _mm256_shuffle_ps::<0xee>(ab, cd));
                put(2, _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
                put(3, _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
            }
        }
    }
}

kernels! {
    pub(super) static KERNELS = "avx2", Avx2, ["avx2,fma,f16c"], order: &ORDER,
    levels: [levels::<2>, levels::<3>, levels::<4>],
    pack_k: pack_k, pack_v: pack_v, transpose: transpose
}
