//! The vector operations that the kernels are written in, and nothing else.

/// One instruction set: `LANES` floats wide.
///
/// Every function is `#[inline(always)]` and compiles to an instruction or a few once it is inlined
/// into a function that has the target feature.
///
/// # Safety
/// All functions: the CPU has the instruction set, and pointers are valid for as many elements as the
/// description says. No alignment is needed.
pub(super) trait Simd {
    /// Floats in a vector.
    const LANES: usize;
    /// `LANES` floats.
    type F: Copy;
    /// `LANES` pairs of i16.
    type Pairs: Copy;
    /// `LANES` i32 sums of products of pairs.
    type Sums: Copy;

    /// `LANES` floats from memory.
    unsafe fn load(src: *const f32) -> Self::F;
    /// `LANES` floats to memory.
    unsafe fn store(dst: *mut f32, x: Self::F);
    /// `LANES` halves from memory.
    unsafe fn load_f16(src: *const u16) -> Self::F;
    /// `LANES` i8 from memory.
    unsafe fn load_i8(src: *const i8) -> Self::F;
    /// The half at `src` in every lane.
    unsafe fn splat_f16(src: *const u16) -> Self::F;
    /// The same float in every lane.
    unsafe fn splat(x: f32) -> Self::F;
    /// `a + b`
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where `a > b`, else `b`: `b` where either is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `a < b`, else `b`: `b` where either is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integers, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;
    /// `y * 2^n` for integers `n` in -126..=127; NaN where `y` is.
    unsafe fn scale_pow2(y: Self::F, n: Self::F) -> Self::F;
    /// 0 where `x < limit`, else `y`: `y` where `x` is NaN.
    unsafe fn zero_below(x: Self::F, limit: Self::F, y: Self::F) -> Self::F;
    /// -infinity where `mask` is -infinity, whatever `x` is there, else `x`.
    unsafe fn hide(x: Self::F, mask: Self::F) -> Self::F;
    /// Sum of the lanes.
    unsafe fn sum(x: Self::F) -> f32;
    /// Largest lane.
    unsafe fn largest(x: Self::F) -> f32;

    /// Nearest integers, ties to even, as `LANES` i16 to memory. |x| <= 32767; anything where `x` is NaN.
    unsafe fn store_i16(dst: *mut i16, x: Self::F);
    /// `LANES` pairs from memory.
    unsafe fn load_pairs(src: *const i16) -> Self::Pairs;
    /// The pair at `src` in every lane.
    unsafe fn splat_pair(src: *const i16) -> Self::Pairs;
    /// No products yet.
    unsafe fn no_sums() -> Self::Sums;
    /// `sums + a.0 * b.0 + a.1 * b.1` in every lane.
    unsafe fn add_products(sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums;
    /// The sums as floats.
    unsafe fn sums(sums: Self::Sums) -> Self::F;
}
