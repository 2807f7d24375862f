//! Cells of the types that are not turbo, as floats.

use half::f16;

use super::TILE;
use super::problem::KvType;
use super::simd::Simd;

/// Rows of a cache: `cells` of them, `stride` bytes apart, of which `width` values are read from `src` on.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Not turbo.
    pub ty: KvType,
    /// The first row's first value.
    pub src: *const u8,
    pub stride: usize,
    pub cells: usize,
    /// A multiple of the type's block, at most 64.
    pub width: usize,
}

/// The rows' values as floats, to rows of 64; returns whether all are finite.
///
/// # Safety
/// As [`Simd`]. `rows` is as its fields say; `dst`: 64 floats a cell.
#[inline(always)]
pub(super) unsafe fn to_f32<S: Simd>(rows: &Rows, dst: *mut f32) -> bool {
    let &Rows { ty, src, stride, cells, width } = rows;
    // SAFETY: every arm reads `width` values and writes `width` floats for each cell.
    unsafe {
        let zero = S::splat(0.0);
        // Of x * 0: NaN if any x is not finite.
        let mut sum = zero;
        let mut finite = true;
        for cell in 0..cells {
            let (src, dst) = (src.add(cell * stride), dst.add(cell * TILE));
            match ty {
                KvType::F32 => {
                    let src = src.cast::<f32>();
                    finite &= copy(width, |i| src.add(i).read_unaligned(), dst);
                }
                KvType::Bf16 => {
                    let src = src.cast::<u16>();
                    let value = |i| f32::from_bits(u32::from(src.add(i).read_unaligned()) << 16);
                    finite &= copy(width, value, dst);
                }
                KvType::F16 => {
                    let src = src.cast::<u16>();
                    let whole = width - width % S::LANES;
                    for i in (0..whole).step_by(S::LANES) {
                        let x = S::load_f16(src.add(i));
                        sum = S::fma(x, zero, sum);
                        S::store(dst.add(i), x);
                    }
                    let (src, dst) = (src.add(whole), dst.add(whole));
                    let value = |i: usize| f16::from_bits(src.add(i).read_unaligned()).to_f32();
                    finite &= copy(width - whole, value, dst);
                }
                KvType::Q8_0 => {
                    for block in 0..width / 32 {
                        let src = src.add(block * 34);
                        let scale = S::splat_f16(src.cast());
                        sum = S::fma(scale, zero, sum);
                        let (src, dst) = (src.add(2).cast::<i8>(), dst.add(block * 32));
                        for i in (0..32).step_by(S::LANES) {
                            S::store(dst.add(i), S::mul(S::load_i8(src.add(i)), scale));
                        }
                    }
                }
                KvType::Turbo(_) => unreachable!("turbo cells are read as levels"),
            }
        }
        finite && S::sum(sum) == 0.0
    }
}

/// `dst[i] = value(i)`; returns whether all are finite.
///
/// # Safety
/// `dst`: `n` floats.
#[inline(always)]
unsafe fn copy(n: usize, value: impl Fn(usize) -> f32, dst: *mut f32) -> bool {
    let mut finite = true;
    for i in 0..n {
        let x = value(i);
        finite &= x.is_finite();
        // SAFETY: `i` < `n`.
        unsafe { *dst.add(i) = x };
    }
    finite
}
