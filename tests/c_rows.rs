//! The C ABI from the caller's side: every refusal, every edge case of the values, and any bytes.
#![cfg(feature = "capi")]

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use llama_turboquant::capi::tq_status::*;
use llama_turboquant::capi::*;
use llama_turboquant::codec::TurboType;
use llama_turboquant::codec::rng::SplitMix64;
use proptest::prelude::*;

const TYPES: [u32; 3] = [2, 3, 4];

fn last_error() -> String {
    // SAFETY: never null, and ends with a NUL.
    unsafe { CStr::from_ptr(tq_last_error()) }.to_str().expect("UTF-8").to_owned()
}

/// Quantizes one row; its bytes and how many of its values were not finite.
fn quantize(ty: u32, x: &[f32]) -> (Vec<u8>, u64) {
    let (mut bytes, mut nonfinite) = (vec![0xAA; x.len() / 64 * tq_block_bytes(ty)], 0);
    let (dst, dst_bytes) = (bytes.as_mut_ptr().cast(), bytes.len());
    // SAFETY: pointers and lengths of live buffers.
    let status =
        unsafe { tq_quantize_rows(ty, x.as_ptr(), 1, x.len(), dst, dst_bytes, &mut nonfinite) };
    assert_eq!(status, TQ_OK, "{}", last_error());
    (bytes, nonfinite)
}

fn dequantize(ty: u32, bytes: &[u8]) -> Vec<f32> {
    let mut x = vec![f32::NAN; bytes.len() / tq_block_bytes(ty) * 64];
    let (src, n) = (bytes.as_ptr().cast(), x.len());
    // SAFETY: pointers and lengths of live buffers.
    let status = unsafe { tq_dequantize_rows(ty, src, bytes.len(), 1, n, x.as_mut_ptr()) };
    assert_eq!(status, TQ_OK, "{}", last_error());
    x
}

fn round_trip(ty: u32, x: &[f32]) -> Vec<f32> {
    dequantize(ty, &quantize(ty, x).0)
}

/// Relative squared error of `y` for `x`.
fn error(x: &[f32], y: &[f32]) -> f64 {
    llama_turboquant::codec::distortion::relative_mse(x, y)
}

#[test]
fn sizes_and_names() {
    for ty in TurboType::ALL {
        let id = ty as u32;
        assert_eq!(tq_block_bytes(id), ty.block_bytes());
        // SAFETY: not null for a type that exists.
        assert_eq!(unsafe { CStr::from_ptr(tq_type_name(id)) }.to_str(), Ok(ty.name()));
        let mut bytes = 0;
        // SAFETY: a live number.
        assert_eq!(unsafe { tq_row_bytes(id, 576, &mut bytes) }, TQ_OK);
        assert_eq!(bytes, 9 * ty.block_bytes());
    }
    for id in [0, 1, 5, u32::MAX] {
        assert_eq!(tq_block_bytes(id), 0);
        assert!(tq_type_name(id).is_null());
    }
    // SAFETY: never null.
    let version = unsafe { CStr::from_ptr(tq_version()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    assert!(!tq_simd_name().is_null());
}

#[test]
fn refusals_say_why_and_write_nothing() {
    let x = [1.0f32; 128];
    let mut dst = [7u8; 68];
    let mut y = [7.0f32; 128];
    let (src, to) = (x.as_ptr(), dst.as_mut_ptr().cast::<c_void>());
    let (from, out) = (dst.as_ptr().cast::<c_void>(), y.as_mut_ptr());
    let odd = src.cast::<u8>().wrapping_add(1).cast::<f32>();
    let check = |status: tq_status, expected: tq_status, text: &str| {
        assert_eq!(status, expected, "{text}");
        assert!(last_error().contains(text), "`{}` without `{text}`", last_error());
    };
    let encode = |ty, x, rows, len, dst, bytes, expected, text: &str| {
        // SAFETY: every pointer is null, misaligned, or of a live buffer with the length that is told.
        check(
            unsafe { tq_quantize_rows(ty, x, rows, len, dst, bytes, null_mut()) },
            expected,
            text,
        );
    };
    let decode = |ty, src, bytes, rows, len, x, expected, text: &str| {
        // SAFETY: as above.
        check(unsafe { tq_dequantize_rows(ty, src, bytes, rows, len, x) }, expected, text);
    };
    encode(1, src, 1, 64, to, 68, TQ_ERROR_UNKNOWN_TYPE, "type 1 is unknown");
    encode(
        4,
        src,
        1,
        80,
        to,
        68,
        TQ_ERROR_ROW_LENGTH,
        "80 is not a multiple of 64: pad the row to 128",
    );
    encode(4, src, 1, usize::MAX, to, 68, TQ_ERROR_ROW_LENGTH, "is not a multiple of 64");
    encode(4, null(), 1, 64, to, 68, TQ_ERROR_NULL_POINTER, "x is null, but 64 values");
    encode(4, src, 1, 64, null_mut(), 68, TQ_ERROR_NULL_POINTER, "dst is null, but 34 values");
    encode(4, odd, 1, 64, to, 68, TQ_ERROR_MISALIGNED, "which is not a multiple of 4");
    encode(
        4,
        src,
        2,
        64,
        to,
        67,
        TQ_ERROR_BUFFER_TOO_SMALL,
        "dst has 67 bytes, but the rows take 68",
    );
    encode(4, src, usize::MAX, 64, to, 68, TQ_ERROR_TOO_LARGE, "rows of 64 values do not fit");
    encode(4, src, 1, usize::MAX / 64 * 64, to, 68, TQ_ERROR_TOO_LARGE, "do not fit");
    decode(7, from, 68, 1, 64, out, TQ_ERROR_UNKNOWN_TYPE, "type 7 is unknown");
    decode(2, from, 68, 2, 32, out, TQ_ERROR_ROW_LENGTH, "32 is not a multiple of 64");
    decode(2, null(), 68, 1, 64, out, TQ_ERROR_NULL_POINTER, "src is null, but 18 values");
    decode(2, from, 68, 1, 64, null_mut(), TQ_ERROR_NULL_POINTER, "x is null, but 64 values");
    decode(
        2,
        from,
        35,
        2,
        64,
        out,
        TQ_ERROR_BUFFER_TOO_SMALL,
        "src has 35 bytes, but the rows take 36",
    );
    // SAFETY: as above.
    unsafe {
        let status = tq_quantize_rows(4, src, 1, 64, to, 68, odd.cast_mut().cast());
        check(status, TQ_ERROR_MISALIGNED, "nonfinite is at address 0x");
        check(tq_row_bytes(4, 64, null_mut()), TQ_ERROR_NULL_POINTER, "row_bytes is null");
        check(tq_row_bytes(4, 63, null_mut()), TQ_ERROR_ROW_LENGTH, "length 63");
    }
    assert_eq!((dst, y), ([7; 68], [7.0; 128]));
}

#[test]
fn every_status_has_its_own_message() {
    let messages: std::collections::HashSet<_> = (0..=8)
        // SAFETY: never null.
        .map(|status| unsafe { CStr::from_ptr(tq_status_message(status)) })
        .collect();
    assert_eq!(messages.len(), 9, "eight statuses and the unknown one");
    assert_eq!(tq_status_message(-1), tq_status_message(99));
}

#[test]
fn nothing_to_do_needs_no_pointers() {
    // SAFETY: nothing is read or written.
    unsafe {
        assert_eq!(tq_quantize_rows(3, null(), 0, 64, null_mut(), 0, null_mut()), TQ_OK);
        assert_eq!(tq_quantize_rows(3, null(), 9, 0, null_mut(), 0, null_mut()), TQ_OK);
        assert_eq!(tq_dequantize_rows(3, null(), 0, 0, 64, null_mut()), TQ_OK);
    }
}

#[test]
fn room_that_is_left_stays_as_it_was() {
    let x = SplitMix64::new(1).gaussians(128);
    let mut dst = [7u8; 100];
    // An odd address: blocks have no alignment.
    let to = dst[1..].as_mut_ptr().cast();
    // SAFETY: live buffers, 99 bytes from `to`.
    assert_eq!(unsafe { tq_quantize_rows(4, x.as_ptr(), 2, 64, to, 99, null_mut()) }, TQ_OK);
    assert_eq!((dst[0], &dst[69..]), (7, &[7u8; 31][..]));
    assert_eq!(dst[1..69], quantize(4, &x).0);
}

#[test]
fn zeros_stay_zeros() {
    for ty in TYPES {
        for zero in [0.0, -0.0] {
            let (bytes, nonfinite) = quantize(ty, &[zero; 64]);
            assert_eq!((bytes, nonfinite), (vec![0; tq_block_bytes(ty)], 0));
            assert_eq!(round_trip(ty, &[zero; 64]), [0.0; 64]);
        }
    }
}

#[test]
fn huge_and_tiny_blocks_stay_finite() {
    let shape = SplitMix64::new(2).gaussians(64);
    let scaled = |factor: f32| shape.iter().map(|x| x * factor).collect::<Vec<_>>();
    for ty in TYPES {
        // Within half precision's range of scales the error does not depend on the magnitude.
        let usual = error(&shape, &round_trip(ty, &shape));
        for factor in [1e-2, 1e2, 1e4, 1e6] {
            let ratio = error(&scaled(factor), &round_trip(ty, &scaled(factor))) / usual;
            assert!((0.9..1.1).contains(&ratio), "turbo{ty} at {factor}: {ratio}");
        }
        // Beyond it the scale saturates, and what decodes is finite and of the right signs.
        for factor in [1e8, 1e20, 1e37] {
            let y = round_trip(ty, &scaled(factor));
            let peak = y.iter().fold(0f32, |peak, y| peak.max(y.abs()));
            assert!(peak.is_finite() && peak > 1e6, "turbo{ty} at {factor}: {peak}");
        }
        for extreme in [[f32::MAX; 64], [f32::MIN; 64]] {
            assert!(round_trip(ty, &extreme).iter().all(|y| y.is_finite()));
        }
        // Below it: zeros or next to nothing, never more than the block had to begin with.
        for factor in [1e-6, 1e-8, 1e-20, 1e-39, 1e-45] {
            let y = round_trip(ty, &scaled(factor));
            assert!(
                y.iter().all(|y| y.abs() <= 4.0 * factor.max(1e-7) * 4.0),
                "turbo{ty} {factor}"
            );
        }
    }
}

#[test]
fn values_that_are_not_finite_count_as_zeros() {
    let clean = SplitMix64::new(3).gaussians(192);
    for ty in TYPES {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut dirty, mut zeroed) = (clean.clone(), clean.clone());
            for i in [0, 70, 71, 127] {
                (dirty[i], zeroed[i]) = (bad, 0.0);
            }
            let (bytes, nonfinite) = quantize(ty, &dirty);
            assert_eq!(nonfinite, 4);
            // The same bytes: neither neighbours in the block nor other blocks notice.
            assert_eq!(bytes, quantize(ty, &zeroed).0);
        }
        let (bytes, nonfinite) = quantize(ty, &[f32::NAN; 64]);
        assert_eq!((bytes, nonfinite), (vec![0; tq_block_bytes(ty)], 64));
    }
}

#[test]
fn the_counter_adds_up_and_may_be_missing() {
    let x = [f32::NAN; 64];
    let (mut dst, mut counter) = ([0u8; 34], 100);
    for counter in [&mut counter as *mut u64, &mut counter, null_mut()] {
        // SAFETY: live buffers, and a counter that is null or live.
        let status =
            unsafe { tq_quantize_rows(4, x.as_ptr(), 1, 64, dst.as_mut_ptr().cast(), 34, counter) };
        assert_eq!(status, TQ_OK);
    }
    assert_eq!(counter, 228);
}

#[test]
fn threads_get_the_same_bytes() {
    let x = SplitMix64::new(4).gaussians(64 * 64);
    let expected = quantize(4, &x).0;
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| quantize(4, &x).0));
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), expected);
        }
    });
}

proptest! {
    #[test]
    fn any_bytes_decode(ty in 2u32..=4, blocks in 0usize..4, bytes in proptest::collection::vec(any::<u8>(), 4 * 34)) {
        let bytes = &bytes[..blocks * tq_block_bytes(ty)];
        let x = dequantize(ty, bytes);
        // Only a scale of NaN or infinity gives values that are not finite: no level is 0.
        for (x, block) in x.chunks_exact(64).zip(bytes.chunks_exact(tq_block_bytes(ty))) {
            let finite = block[1] & 0x7C != 0x7C;
            prop_assert!(x.iter().all(|x| x.is_finite() == finite));
        }
    }

    #[test]
    fn any_floats_encode(ty in 2u32..=4, bits in proptest::collection::vec(any::<u32>(), 64)) {
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let (bytes, nonfinite) = quantize(ty, &x);
        prop_assert_eq!(nonfinite, x.iter().filter(|x| !x.is_finite()).count() as u64);
        prop_assert!(dequantize(ty, &bytes).iter().all(|y| y.is_finite()));
    }
}
