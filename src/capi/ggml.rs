//! Callbacks in the shape of ggml's type traits: hot, infallible, called with whole rows.
//!
//! Declared in `ggml-ext/ggml/src/turbo.h`. A panic here would be a bug of ours; in an `extern "C"` function
//! it aborts with its message instead of unwinding into C.

use crate::codec::{Block, QK};
use crate::kernels::{BlockQ8_0, Kernels, QK8_0, Rows, active};
use std::slice;

macro_rules! callbacks {
    ($k:literal, $quantize:ident, $dequantize:ident, $dot:ident) => {
        #[doc = concat!("Encodes `k` floats at `x` as turbo", $k, " blocks at `y`. `k % 64 == 0`.")]
        ///
        /// # Safety
        /// `x` and `y` are valid for `k` floats and their blocks, and do not overlap.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $quantize(x: *const f32, y: *mut Block<$k>, k: i64) {
            // SAFETY: the caller's promise.
            unsafe { quantize_row(x, y, k) }
        }

        #[doc = concat!("Decodes turbo", $k, " blocks at `x` to `k` floats at `y`. `k % 64 == 0`.")]
        ///
        /// # Safety
        /// `x` and `y` are valid for the blocks and `k` floats, and do not overlap.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dequantize(x: *const Block<$k>, y: *mut f32, k: i64) {
            // SAFETY: the caller's promise.
            unsafe { dequantize_row(x, y, k) }
        }

        #[doc = concat!("ggml's `vec_dot` of `n` turbo", $k, " values with q8_0. `n % 64 == 0`, `nrc == 1`.")]
        ///
        /// # Safety
        /// `x` and `y` are valid for `n` values' blocks, `s` for a float.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dot(
            n: i32,
            s: *mut f32,
            _bs: usize,
            x: *const Block<$k>,
            _bx: usize,
            y: *const BlockQ8_0,
            _by: usize,
            nrc: i32,
        ) {
            assert_eq!(nrc, 1, "turbo types take one row at a time");
            // SAFETY: the caller's promise.
            unsafe { *s = vec_dot(n, x, y) }
        }
    };
}

callbacks!(2, tq_quantize_row_turbo2, tq_dequantize_row_turbo2, tq_vec_dot_turbo2_q8_0);
callbacks!(3, tq_quantize_row_turbo3, tq_dequantize_row_turbo3, tq_vec_dot_turbo3_q8_0);
callbacks!(4, tq_quantize_row_turbo4, tq_dequantize_row_turbo4, tq_vec_dot_turbo4_q8_0);

/// Blocks in a row of `values` values.
fn blocks(values: i64) -> usize {
    let values = usize::try_from(values).unwrap_or_else(|_| panic!("a row of {values} values"));
    assert_eq!(
        values % QK,
        0,
        "a row of {values} values is not a whole number of {QK}-value blocks"
    );
    values / QK
}

/// # Safety
/// As [`tq_quantize_row_turbo4`].
unsafe fn quantize_row<const K: usize>(x: *const f32, y: *mut Block<K>, k: i64)
where
    Kernels: Rows<K>,
{
    let blocks = blocks(k);
    if blocks == 0 {
        return;
    }
    // SAFETY: the caller's promise; a `Block` has no padding and no alignment.
    let (x, y) =
        unsafe { (slice::from_raw_parts(x, blocks * QK), slice::from_raw_parts_mut(y, blocks)) };
    (active().rows().quantize_row)(x, y);
}

/// # Safety
/// As [`tq_dequantize_row_turbo4`].
unsafe fn dequantize_row<const K: usize>(x: *const Block<K>, y: *mut f32, k: i64)
where
    Kernels: Rows<K>,
{
    let blocks = blocks(k);
    if blocks == 0 {
        return;
    }
    // SAFETY: the caller's promise; a `Block` has no padding and no alignment.
    let (x, y) =
        unsafe { (slice::from_raw_parts(x, blocks), slice::from_raw_parts_mut(y, blocks * QK)) };
    (active().rows().dequantize_row)(x, y);
}

/// # Safety
/// As [`tq_vec_dot_turbo4_q8_0`].
unsafe fn vec_dot<const K: usize>(n: i32, x: *const Block<K>, y: *const BlockQ8_0) -> f32
where
    Kernels: Rows<K>,
{
    let blocks = blocks(i64::from(n));
    if blocks == 0 {
        return 0.0;
    }
    // SAFETY: the caller's promise; neither block has padding or alignment.
    let (x, y) = unsafe {
        (slice::from_raw_parts(x, blocks), slice::from_raw_parts(y, blocks * QK / QK8_0))
    };
    (active().rows().vec_dot_q8_0)(x, y)
}
