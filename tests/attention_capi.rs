//! `tq_flash_attn` as ggml calls it, against the Rust function that it stands for.
#![cfg(feature = "capi")]

#[path = "attention/case.rs"]
#[allow(dead_code)]
mod case;

use std::ffi::c_void;
use std::sync::Barrier;

use case::{Case, Data};
use llama_turboquant::attention::{self, KvType, Tensor};
use llama_turboquant::capi::attention::*;
use llama_turboquant::codec::TurboType::Turbo4;

fn tensor(tensor: &Tensor, id: i32) -> tq_fa_tensor {
    let ne = tensor.ne.map(|n| n as i64);
    tq_fa_tensor { data: tensor.data.cast(), r#type: id, pad: 0, ne, nb: tensor.nb }
}

fn absent() -> tq_fa_tensor {
    tq_fa_tensor { data: std::ptr::null(), r#type: 0, pad: 0, ne: [0; 4], nb: [0; 4] }
}

unsafe extern "C" fn wait(ctx: *mut c_void) {
    // SAFETY: the test passes its barrier.
    unsafe { &*ctx.cast::<Barrier>() }.wait();
}

#[test]
fn four_threads_through_c_agree_with_rust() {
    let turbo = KvType::Turbo(Turbo4);
    let case = Case { tokens: 3, n_kv: 500, ..Case::new(turbo, turbo, 64, 6, 2) };
    let data = Data::new(case);
    let expected = data.run(4, attention::active());

    let mut dst = vec![0.0f32; expected.len()];
    let args = data.args(&mut dst);
    let ne = [case.dv, case.heads, case.tokens, 1];
    let dst_tensor = Tensor {
        data: dst.as_ptr().cast(),
        ne,
        nb: [4, 4 * ne[0], 4 * ne[0] * ne[1], 4 * ne[0] * ne[1] * ne[2]],
    };
    let c_args = tq_fa_args {
        q: tensor(&args.q, TQ_KV_F32),
        k: tensor(&args.k, TQ_KV_TURBO4),
        v: tensor(&args.v, TQ_KV_TURBO4),
        mask: tensor(&args.mask.unwrap(), TQ_KV_F16),
        sinks: absent(),
        dst: tensor(&dst_tensor, TQ_KV_F32),
        scale: args.scale,
        max_bias: args.max_bias,
        logit_softcap: args.softcap,
    };
    // SAFETY: a valid pointer.
    let (one, four) = unsafe { (tq_flash_attn_wsize(&c_args, 1), tq_flash_attn_wsize(&c_args, 4)) };
    assert!(one < four);
    let mut work = vec![0u8; four];
    let barrier = Barrier::new(4);

    struct Shared<'a>(&'a tq_fa_args, *mut c_void, *mut c_void);
    // SAFETY: `tq_flash_attn` is made to be called by several threads with the same arguments.
    unsafe impl Sync for Shared<'_> {}
    let shared = &Shared(&c_args, work.as_mut_ptr().cast(), (&raw const barrier).cast_mut().cast());
    std::thread::scope(|scope| {
        for ith in 0..4 {
            scope.spawn(move || {
                let (wdata, ctx) = (shared.1, shared.2);
                let thread =
                    tq_fa_thread { ith, nth: 4, wdata, wsize: four, barrier: Some(wait), ctx };
                // SAFETY: tensors, work buffer and barrier outlive the scope.
                unsafe { tq_flash_attn(shared.0, &thread) };
            });
        }
    });
    assert_eq!(dst, expected);
}

#[test]
fn unsupported_combinations_are_refused() {
    let all =
        [TQ_KV_F32, TQ_KV_F16, TQ_KV_BF16, TQ_KV_Q8_0, TQ_KV_TURBO2, TQ_KV_TURBO3, TQ_KV_TURBO4];
    for k in all {
        for v in all {
            let turbo = k >= TQ_KV_TURBO2 || v >= TQ_KV_TURBO2;
            for (dk, dv) in [(64, 64), (128, 128), (192, 128), (256, 256), (512, 512), (576, 512)] {
                assert_eq!(tq_flash_attn_supported(k, v, dk, dv), turbo, "{k} {v} {dk} {dv}");
            }
        }
    }
    assert!(tq_flash_attn_supported(TQ_KV_Q8_0, TQ_KV_TURBO2, 96, 64));
    for (k, v, dk, dv) in [
        (TQ_KV_TURBO4, TQ_KV_TURBO4, 80, 80),
        (TQ_KV_TURBO4, TQ_KV_F16, 96, 96),
        (TQ_KV_Q8_0, TQ_KV_TURBO4, 80, 128),
        (TQ_KV_TURBO4, TQ_KV_TURBO4, 0, 64),
        (TQ_KV_TURBO4, TQ_KV_TURBO4, -64, 64),
        (7, TQ_KV_TURBO4, 64, 64),
        (-1, TQ_KV_TURBO4, 64, 64),
    ] {
        assert!(!tq_flash_attn_supported(k, v, dk, dv), "{k} {v} {dk} {dv}");
    }
}
