//! 64 levels of a block in two AVX2 registers.
//!
//! Key instructions: `rorx` for the trellis, two 6-instruction delta swaps, `vpshufb` as the table.
//! The four index planes are 256 bits, one register: 8 groups of 4 bytes (a byte a plane). Swapping
//! two pairs of bit-index bits turns every 4 bytes into 8 nibbles, each the index of one value.
//! About 25 vector instructions a block for turbo2 and turbo3, 36 for turbo4: half of what
//! testing each plane's bits byte by byte takes. No arithmetic: nothing can overflow.

use std::arch::x86_64::*;

use crate::codec::Block;
use crate::kernels::fold::{Table, fold};

/// The int8 levels of `block`, in order: values 0..32 and 32..64. No scale applied.
#[inline]
#[target_feature(enable = "avx2")]
pub fn levels<const K: usize>(block: &Block<K>) -> (__m256i, __m256i) {
    let [a, b] = lookup(block, Order::Values);
    if K < 4 {
        return (a, b);
    }
    let [m, n] = negative(block, Order::Values);
    (negate_where(a, m), negate_where(b, n))
}

/// Magnitudes as uint8 and `y` with the levels' signs: what `maddubs` and `dpbusd` multiply.
///
/// `sum(magnitude * signed_y) == sum(level * y)`, for `y` in -127..=127, as every q8_0 quantizer
/// writes. The registers hold values 0..16 and 32..48, then 16..32 and 48..64: a lane for each of the
/// q8_0 blocks, and two instructions fewer than in order.
#[inline]
#[target_feature(enable = "avx2")]
pub fn magnitudes<const K: usize>(
    block: &Block<K>,
    y: [__m256i; 2],
) -> ([__m256i; 2], [__m256i; 2]) {
    let x = lookup(block, Order::Lanes);
    if K < 4 {
        let signed = [_mm256_sign_epi8(y[0], x[0]), _mm256_sign_epi8(y[1], x[1])];
        return (x.map(|x| _mm256_abs_epi8(x)), signed);
    }
    let [m, n] = negative(block, Order::Lanes);
    (x, [negate_where(y[0], m), negate_where(y[1], n)])
}

/// Which values the two registers hold.
#[derive(Clone, Copy)]
enum Order {
    /// 0..32, 32..64.
    Values,
    /// 0..16 and 32..48, 16..32 and 48..64.
    Lanes,
}

/// `-x` where the mask byte is -1, `x` where it is 0.
#[inline]
#[target_feature(enable = "avx2")]
fn negate_where(x: __m256i, mask: __m256i) -> __m256i {
    _mm256_sub_epi8(_mm256_xor_si256(x, mask), mask)
}

/// Mask of turbo4's negative values: -1 where the sign plane has a 0.
#[inline]
#[target_feature(enable = "avx2")]
fn negative<const K: usize>(block: &Block<K>, order: Order) -> [__m256i; 2] {
    let sign = _mm256_set1_epi64x(block.plane(3) as i64);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    // Byte i tests bit i % 8 of one plane byte for each 8 values.
    let byte = |b: i64| b * 0x0101_0101_0101_0101;
    let (first, step) = match order {
        Order::Values => (_mm256_setr_epi64x(byte(0), byte(1), byte(2), byte(3)), 4),
        Order::Lanes => (_mm256_setr_epi64x(byte(0), byte(1), byte(4), byte(5)), 2),
    };
    let test = |spread| {
        let bits = _mm256_and_si256(_mm256_shuffle_epi8(sign, spread), bit);
        _mm256_cmpeq_epi8(bits, _mm256_setzero_si256())
    };
    [test(first), test(_mm256_add_epi8(first, _mm256_set1_epi8(step)))]
}

/// Table entries of all 64 values: levels for turbo2 and turbo3, magnitudes for turbo4.
#[inline]
#[target_feature(enable = "avx2")]
fn lookup<const K: usize>(block: &Block<K>, order: Order) -> [__m256i; 2] {
    let (index, _) = fold(block);
    // Pairs of bytes (plane 0, plane 1) of groups 0 to 7; then two lanes of four groups, which the
    // final unpack splits into pairs of groups.
    let z =
        _mm_unpacklo_epi8(_mm_cvtsi64_si128(index[0] as i64), _mm_cvtsi64_si128(index[1] as i64));
    let z = _mm256_castsi128_si256(z);
    // The same for planes 2 and 3, which come straight from memory.
    let p = _mm256_broadcastsi128_si256(_mm_set_epi64x(index[3] as i64, index[2] as i64));
    let (z, pairs) = match order {
        // Groups 0 1 4 5, 2 3 6 7.
        Order::Values => (
            _mm256_permutevar8x32_epi32(z, _mm256_setr_epi32(0, 2, 0, 0, 1, 3, 0, 0)),
            _mm256_setr_epi64x(0x0d05_0c04_0901_0800, 0, 0x0f07_0e06_0b03_0a02, 0),
        ),
        // Groups 0 1 2 3, 4 5 6 7.
        Order::Lanes => (
            _mm256_permute4x64_epi64::<0b00_01_00_00>(z),
            _mm256_setr_epi64x(0x0b03_0a02_0901_0800, 0, 0x0f07_0e06_0d05_0c04, 0),
        ),
    };
    let p = _mm256_shuffle_epi8(p, pairs);
    // Bit 8 p + e of each 32-bit group is bit e of plane p.
    let x = _mm256_unpacklo_epi16(z, p);
    let x = delta_swap::<7>(x, 0x00aa_00aa);
    let x = delta_swap::<14>(x, 0x0000_cccc);
    // Now byte j of a group holds the indices of values j and 4 + j.
    let nibble = _mm256_set1_epi8(15);
    let low = _mm256_and_si256(x, nibble);
    let high = _mm256_and_si256(_mm256_srli_epi32::<4>(x), nibble);

    let t = Table::<K>::BYTES.map(|level| level as u8);
    let half = |at: usize| i64::from_le_bytes(std::array::from_fn(|i| t[at + i]));
    let table = _mm256_setr_epi64x(half(0), half(8), half(0), half(8));
    [
        _mm256_shuffle_epi8(table, _mm256_unpacklo_epi32(low, high)),
        _mm256_shuffle_epi8(table, _mm256_unpackhi_epi32(low, high)),
    ]
}

/// Exchanges the bits under `mask` with those `S` places above them, in every 32-bit element.
#[inline]
#[target_feature(enable = "avx2")]
fn delta_swap<const S: i32>(x: __m256i, mask: u32) -> __m256i {
    let mask = _mm256_set1_epi32(mask as i32);
    let t = _mm256_and_si256(_mm256_xor_si256(x, _mm256_srli_epi32::<S>(x)), mask);
    _mm256_xor_si256(_mm256_xor_si256(x, t), _mm256_slli_epi32::<S>(t))
}
