//! Rows of 64 logits: mask, largest, exponentials, weights.

use super::TILE;
use super::simd::Simd;
use super::worker::I16_MAX;

/// How logits become what softmax takes.
#[derive(Clone, Copy)]
pub(super) struct Logit {
    /// Factor, with the query's own scale in it.
    pub scale: f32,
    /// `cap * tanh(logit)`; 0: the logit as it is.
    pub cap: f32,
    /// ALiBi's slope.
    pub slope: f32,
    /// To add to every logit once it is scaled.
    pub offset: f32,
    /// 64 floats to add instead, or null.
    pub bias: *const f32,
}

/// What a mask hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hides {
    /// Every cell.
    All,
    /// Some cells, or it biases some.
    Some,
    /// None, and it adds 0 to all.
    None,
}

const LN_2_HI: f32 = 0.693_359_4;
const LN_2_LO: f32 = -2.121_944_4e-4;
/// exp's polynomial on [-ln 2 / 2, ln 2 / 2], highest power first. Source: Cephes, `expf.c`.
const EXP: [f32; 6] =
    [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// Below this, a row's weights are taken as 0.
const WEIGHT_MIN: f32 = 1e-30;
/// Below this, exp is subnormal; taken as 0.
const EXP_MIN: f32 = -87.0;

/// e^x for x <= 88, within 3e-7 of relative error; exactly 0 below -87, for -inf too; NaN for NaN.
#[inline(always)]
unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller upholds `Simd`'s contract.
    unsafe {
        let clamped = S::max(S::splat(EXP_MIN), x);
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN_2_HI), clamped);
        let r = S::fma(n, S::splat(-LN_2_LO), r);
        let mut poly = S::splat(EXP[0]);
        for coefficient in &EXP[1..] {
            poly = S::fma(poly, r, S::splat(*coefficient));
        }
        let y = S::add(S::fma(poly, S::mul(r, r), r), S::splat(1.0));
        S::zero_below(x, S::splat(EXP_MIN), S::scale_pow2(y, n))
    }
}

/// tanh(x) within 2e-7 of absolute error; NaN for NaN.
#[inline(always)]
unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the caller upholds `Simd`'s contract.
    unsafe {
        let e = exp::<S>(S::min(S::splat(88.0), S::add(x, x)));
        let one = S::splat(1.0);
        S::sub(one, S::div(S::splat(2.0), S::add(e, one)))
    }
}

/// Scales, biases, caps and masks a row of 64 logits in place; returns the largest, NaN aside.
///
/// What the mask hides is -infinity, whatever it was. NaN that is not hidden stays NaN.
///
/// # Safety
/// As [`Simd`]. `row`: 64 floats. `mask`, `logit.bias`: null or 64 floats.
#[inline(always)]
pub(super) unsafe fn logits<S: Simd>(row: *mut f32, mask: *const f32, logit: &Logit) -> f32 {
    // SAFETY: the loop covers 64 floats.
    unsafe {
        let scale = S::splat(logit.scale);
        let offset = S::splat(logit.offset);
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (0..TILE).step_by(S::LANES) {
            let x = S::load(row.add(i));
            let bias = if logit.bias.is_null() { offset } else { S::load(logit.bias.add(i)) };
            let mut x = S::fma(x, scale, bias);
            if logit.cap != 0.0 {
                x = S::mul(tanh::<S>(x), S::splat(logit.cap));
            }
            if !mask.is_null() {
                let mask = S::load(mask.add(i));
                x = S::hide(S::fma(mask, S::splat(logit.slope), x), mask);
            }
            largest = S::max(x, largest);
            S::store(row.add(i), x);
        }
        S::largest(largest)
    }
}

/// `row = e^(row - shift)` for 64 floats, all <= shift or NaN; returns the sum, NaN if any is.
///
/// # Safety
/// As [`Simd`]. `row`: 64 floats.
#[inline(always)]
pub(super) unsafe fn exp_row<S: Simd>(row: *mut f32, shift: f32) -> f32 {
    // SAFETY: the loop covers 64 floats.
    unsafe {
        let shift = S::splat(shift);
        let mut sum = S::splat(0.0);
        for i in (0..TILE).step_by(S::LANES) {
            let x = exp::<S>(S::sub(S::load(row.add(i)), shift));
            sum = S::add(sum, x);
            S::store(row.add(i), x);
        }
        S::sum(sum)
    }
}

/// `x = e^x` for `n` floats, `n % 16 == 0`, all <= 0.
///
/// # Safety
/// As [`Simd`]. `x`: `n` floats.
#[inline(always)]
pub(super) unsafe fn exp_slice<S: Simd>(x: *mut f32, n: usize) {
    debug_assert!(n.is_multiple_of(16));
    // SAFETY: the loop covers `n` floats.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            S::store(x.add(i), exp::<S>(S::load(x.add(i))));
        }
    }
}

/// `dst = round(row * scales / unit)` for 64 values, where `unit` is the largest product / 32767; returns `unit`.
///
/// A row's own unit: what other rows see, and what a hidden cell holds, changes nothing.
///
/// # Safety
/// As [`Simd`]. All: 64 elements.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd>(dst: *mut i16, row: *const f32, scales: *const f32) -> f32 {
    // SAFETY: both loops cover 64 elements.
    unsafe {
        let product = |i| S::mul(S::load(row.add(i)), S::load(scales.add(i)));
        let mut largest = S::splat(0.0);
        for i in (0..TILE).step_by(S::LANES) {
            let x = product(i);
            largest = S::max(S::max(x, S::sub(S::splat(0.0), x)), largest);
        }
        let largest = S::largest(largest);
        // Below, the inverse is infinite.
        let inverse = if largest > WEIGHT_MIN { I16_MAX / largest } else { 0.0 };
        let factor = S::splat(inverse);
        for i in (0..TILE).step_by(S::LANES) {
            S::store_i16(dst.add(i), S::mul(product(i), factor));
        }
        largest / I16_MAX
    }
}

/// `x *= factor` for `n` floats, `n % 16 == 0`.
///
/// # Safety
/// As [`Simd`]. `x`: `n` floats.
#[inline(always)]
pub(super) unsafe fn scale<S: Simd>(x: *mut f32, n: usize, factor: f32) {
    debug_assert!(n.is_multiple_of(16));
    // SAFETY: the loop covers `n` floats.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            S::store(x.add(i), S::mul(S::load(x.add(i)), S::splat(factor)));
        }
    }
}

/// Converts a mask row of 64 halves and says what it hides.
///
/// # Safety
/// As [`Simd`]. Both: 64 elements.
#[inline(always)]
pub(super) unsafe fn mask_row<S: Simd>(dst: *mut f32, src: *const u16) -> Hides {
    // SAFETY: the loop covers 64 elements.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        // Of magnitudes: NaN if any is.
        let mut sum = S::splat(0.0);
        for i in (0..TILE).step_by(S::LANES) {
            let x = S::load_f16(src.add(i));
            largest = S::max(x, largest);
            sum = S::add(sum, S::max(x, S::sub(S::splat(0.0), x)));
            S::store(dst.add(i), x);
        }
        match (S::largest(largest), S::sum(sum)) {
            (f32::NEG_INFINITY, f32::INFINITY) => Hides::All,
            (_, 0.0) => Hides::None,
            _ => Hides::Some,
        }
    }
}

/// Whether `n` floats, `n % 16 == 0`, are finite.
///
/// # Safety
/// As [`Simd`]. `x`: `n` floats.
#[inline(always)]
pub(super) unsafe fn finite<S: Simd>(x: *const f32, n: usize) -> bool {
    debug_assert!(n.is_multiple_of(16));
    // SAFETY: the loop covers `n` floats.
    unsafe {
        let zero = S::splat(0.0);
        let mut sum = zero;
        for i in (0..n).step_by(S::LANES) {
            // 0, or NaN.
            sum = S::fma(S::load(x.add(i)), zero, sum);
        }
        S::sum(sum) == 0.0
    }
}
