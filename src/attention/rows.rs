//! Cells of the types that are not turbo, as floats.

use half::f16;

use super::problem::KvType;
use super::simd::Simd;

/// `n` values of a row to floats. `n`: a multiple of the type's block.
///
/// # Safety
/// As [`Simd`]. `src`: `n` values of type `ty`, which is not turbo. `dst`: `n` floats.
#[inline(always)]
pub(super) unsafe fn to_f32<S: Simd>(ty: KvType, src: *const u8, n: usize, dst: *mut f32) {
    // SAFETY: every arm reads `n` values and writes `n` floats.
    unsafe {
        match ty {
            KvType::F32 => std::ptr::copy_nonoverlapping(src, dst.cast(), 4 * n),
            KvType::F16 => {
                let src = src.cast::<u16>();
                let whole = n - n % S::LANES;
                for i in (0..whole).step_by(S::LANES) {
                    S::store(dst.add(i), S::load_f16(src.add(i)));
                }
                for i in whole..n {
                    *dst.add(i) = f16::from_bits(src.add(i).read_unaligned()).to_f32();
                }
            }
            KvType::Bf16 => {
                let src = src.cast::<u16>();
                for i in 0..n {
                    *dst.add(i) = f32::from_bits(u32::from(src.add(i).read_unaligned()) << 16);
                }
            }
            KvType::Q8_0 => {
                for block in 0..n / 32 {
                    let src = src.add(block * 34);
                    let scale = S::splat_f16(src.cast());
                    let (src, dst) = (src.add(2).cast::<i8>(), dst.add(block * 32));
                    for i in (0..32).step_by(S::LANES) {
                        S::store(dst.add(i), S::mul(S::load_i8(src.add(i)), scale));
                    }
                }
            }
            KvType::Turbo(_) => unreachable!("turbo cells are read as levels"),
        }
    }
}
