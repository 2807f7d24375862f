use super::*;
use crate::calibrate::TEXT;
use crate::calibrate::tests::Data;
use std::ffi::CStr;
use std::ptr::{null, null_mut};

/// What a call wrote.
#[derive(Debug)]
struct Outcome {
    done: bool,
    scales: Vec<f32>,
    heads: Vec<tq_fit_head>,
    message: String,
}

const UNTOUCHED: tq_fit_head = tq_fit_head { power: -1.0, error_without: -1.0, error_with: -1.0 };

/// Fits data as C would, after `change`, with `n_error` bytes for the message.
fn call(
    data: &Data,
    n_error: usize,
    change: impl FnOnce(&mut tq_fit_layer, &mut tq_fit_queries),
) -> Outcome {
    let set = &data.sets[0];
    let mut queries = tq_fit_queries {
        q: set.q.as_ptr(),
        n_q: set.n_q,
        n_head: set.n_head,
        mask: set.mask.as_ptr(),
        sinks: set.sinks.as_ref().map_or(null(), |sinks| sinks.as_ptr()),
        scale: set.scale,
        softcap: set.softcap,
        max_bias: set.max_bias,
    };
    let (rope, n_rot) = match data.pairs {
        Pairs::None => (TQ_ROPE_NONE, 0),
        Pairs::Adjacent { n_rot } => (TQ_ROPE_ADJACENT, n_rot),
        Pairs::Halves { n_rot } => (TQ_ROPE_HALVES, n_rot),
    };
    let mut layer = tq_fit_layer {
        k: data.k.as_ptr(),
        v: data.v.as_ptr(),
        n_kv: data.n_kv,
        n_head_kv: data.n_head_kv,
        head_dim: data.head_dim,
        head_dim_v: data.head_dim_v,
        rope,
        n_rot,
        queries: null(),
        n_queries: 1,
    };
    change(&mut layer, &mut queries);
    if layer.n_queries > 0 {
        layer.queries = &queries;
    }
    let mut scales = vec![-1.0; data.n_head_kv * data.head_dim];
    let mut heads = vec![UNTOUCHED; data.n_head_kv];
    let mut error = vec![b'?'; n_error + 1];
    // SAFETY: arrays of the shapes that the structs say, or a size that is refused before it is used.
    let done = unsafe {
        let (scales, heads) = (scales.as_mut_ptr(), heads.as_mut_ptr());
        tq_fit_key_scales(&layer, 2, scales, heads, error.as_mut_ptr().cast(), n_error)
    };
    assert_eq!(error[n_error], b'?', "a byte behind the buffer");
    let message = match CStr::from_bytes_until_nul(&error) {
        Ok(message) => message.to_str().unwrap().to_owned(),
        Err(_) => String::new(),
    };
    Outcome { done, scales, heads, message }
}

/// A call that has to fail: its message. Nothing else is written.
fn refusal(change: impl FnOnce(&mut tq_fit_layer, &mut tq_fit_queries)) -> String {
    let outcome = call(&Data::new(4, 2, 1), 256, change);
    assert!(!outcome.done);
    assert!(outcome.scales.iter().all(|scale| *scale == -1.0));
    assert!(outcome.heads.iter().all(|head| *head == UNTOUCHED));
    outcome.message
}

#[test]
fn c_gets_what_rust_gets() {
    let wave = |channel: usize| (2.0 * (channel as f32).sin()).exp();
    let mut data = Data::new(80, 8, 1).stretch(wave, |_| 1.0);
    for pairs in [Pairs::None, Pairs::Adjacent { n_rot: 32 }, Pairs::Halves { n_rot: 32 }] {
        data.pairs = pairs;
        let fits = data.fit().unwrap();
        let outcome = call(&data, 64, |_, _| ());
        assert!(outcome.done, "{outcome:?}");
        assert_eq!(
            outcome.scales,
            fits.iter().flat_map(|fit| fit.scale.clone()).collect::<Vec<_>>()
        );
        for (head, fit) in outcome.heads.iter().zip(&fits) {
            assert_eq!(head.power, fit.candidate.unwrap().power);
            assert_eq!(head.error_without, fit.error_without as f32);
            assert_eq!(head.error_with, fit.error_with as f32);
        }
        assert_eq!(outcome.message, "");
        data.sets[0].sinks = Some(vec![1.0, 2.0, 3.0, 4.0]);
        data.sets[0].softcap = 2.0;
    }
    let outcome = call(&Data::new(1, 2, 1), 64, |_, queries| queries.scale = 0.0);
    assert!(!outcome.done && outcome.message.contains("sees no key"), "{outcome:?}");
}

#[test]
fn scales_of_one_have_the_power_zero() {
    let mut data = Data::new(80, 4, 2);
    data.k.fill(1.0);
    let outcome = call(&data, 0, |_, _| ());
    assert!(outcome.done && outcome.scales == [1.0; 128]);
    let head = tq_fit_head { power: 0.0, error_without: 0.0, error_with: 0.0 };
    assert_eq!(outcome.heads, [head; 2]);
}

#[test]
fn null_pointers_are_refused() {
    assert!(refusal(|layer, _| layer.k = null()).starts_with("k is null, but 512 values"));
    assert!(refusal(|layer, _| layer.v = null()).starts_with("v is null, but 512 values"));
    assert!(refusal(|_, queries| queries.q = null()).starts_with("q is null, but 512 values"));
    assert!(refusal(|_, queries| queries.mask = null()).starts_with("mask is null, but 8 values"));
    let odd = |data: *const f32| data.wrapping_byte_add(1);
    assert!(refusal(|layer, _| layer.k = odd(layer.k)).contains("not a multiple of 4"));

    let data = Data::new(4, 2, 1);
    let mut error = [b'?'; 64];
    let mut check = |layer: *const tq_fit_layer, scales, heads, threads, expected: &str| {
        // SAFETY: null, or valid.
        let done = unsafe {
            tq_fit_key_scales(layer, threads, scales, heads, error.as_mut_ptr().cast(), 64)
        };
        let message = CStr::from_bytes_until_nul(&error).unwrap().to_str().unwrap();
        assert!(!done && message.starts_with(expected), "{message}");
    };
    check(null(), null_mut(), null_mut(), 1, "layer is null");
    call(&data, 0, |layer, queries| {
        layer.queries = queries;
        let (mut scales, mut heads) = ([0.0; 128], [UNTOUCHED; 2]);
        check(layer, null_mut(), heads.as_mut_ptr(), 1, "scales is null, but 128 values");
        check(layer, scales.as_mut_ptr(), null_mut(), 1, "heads is null, but 2 values");
        check(layer, scales.as_mut_ptr(), heads.as_mut_ptr(), 0, "n_threads is 0");
        layer.queries = null();
        check(layer, scales.as_mut_ptr(), heads.as_mut_ptr(), 1, "queries is null, but 1 values");
    });
}

#[test]
fn bad_shapes_are_refused() {
    assert_eq!(refusal(|layer, _| layer.n_kv = 0), "n_kv is 0");
    assert_eq!(refusal(|layer, _| layer.n_head_kv = 0), "n_head_kv is 0");
    assert_eq!(refusal(|layer, _| layer.head_dim = 0), "head_dim is 0");
    assert_eq!(refusal(|layer, _| layer.head_dim_v = 0), "head_dim_v is 0");
    assert_eq!(refusal(|layer, _| layer.n_queries = 0), "the number of sets of queries is 0");
    assert!(refusal(|_, queries| queries.n_q = 0).contains("has 0 queries"));
    assert!(refusal(|_, queries| queries.n_head = 0).starts_with("n_head 0 of queries[0]"));
    assert_eq!(refusal(|layer, _| layer.rope = 3), "rope 3 is none of TQ_ROPE_*");
    let rope = refusal(|layer, _| (layer.rope, layer.n_rot) = (TQ_ROPE_HALVES, 65));
    assert!(rope.starts_with("n_rot 65"), "{rope}");
    let huge = refusal(|layer, _| layer.n_kv = usize::MAX);
    assert!(huge.ends_with("would not fit the address space"), "{huge}");
    let huge = refusal(|layer, _| layer.n_queries = usize::MAX);
    assert_eq!(huge, "queries would not fit the address space");
    assert!(refusal(|_, queries| queries.scale = f32::NAN).starts_with("scale of queries[0]"));
}

#[test]
fn messages_are_cut_to_their_buffer() {
    let message = |n_error: usize| call(&Data::new(4, 2, 1), n_error, |layer, _| layer.n_kv = 0);
    assert_eq!(message(10).message, "n_kv is 0");
    assert_eq!(message(5).message, "n_kv");
    assert_eq!(message(1).message, "");
    assert!(!message(0).done);
    // SAFETY: null pointers alone.
    assert!(!unsafe { tq_fit_key_scales(null(), 1, null_mut(), null_mut(), null_mut(), 9) });
}

#[test]
fn the_text_ends_with_a_nul() {
    let mut n_bytes = 0;
    // SAFETY: valid for a write; the text ends with a NUL.
    let text = unsafe { CStr::from_ptr(tq_calibration_text(&mut n_bytes)) };
    assert_eq!(text.to_str(), Ok(TEXT));
    assert_eq!(n_bytes, TEXT.len());
    // SAFETY: null is allowed.
    assert_eq!(unsafe { tq_calibration_text(null_mut()) }, text.as_ptr());
}
