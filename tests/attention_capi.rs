//! `tq_flash_attn` as ggml calls it, against the Rust function that it stands for.
#![cfg(feature = "capi")]

#[path = "attention/case.rs"]
#[allow(dead_code)]
mod case;

use std::ffi::c_void;
use std::process::Command;
use std::sync::Barrier;

use case::{Case, Data, Ids};
use llama_turboquant::attention::{self, KvType, Tensor};
use llama_turboquant::capi::attention::*;
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};

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

fn id(ty: KvType) -> i32 {
    match ty {
        KvType::F32 => TQ_KV_F32,
        KvType::F16 => TQ_KV_F16,
        KvType::Bf16 => TQ_KV_BF16,
        KvType::Q8_0 => TQ_KV_Q8_0,
        KvType::Turbo(Turbo2) => TQ_KV_TURBO2,
        KvType::Turbo(Turbo3) => TQ_KV_TURBO3,
        KvType::Turbo(Turbo4) => TQ_KV_TURBO4,
    }
}

/// The operands of a case, as C has them.
fn c_args(data: &Data, dst: &mut [f32]) -> tq_fa_args {
    let case = data.case;
    let args = data.args(dst);
    let ne = [case.dv, case.heads, case.tokens, case.batches];
    let dst_tensor = Tensor {
        data: args.dst.cast_const().cast(),
        ne,
        nb: [4, 4 * ne[0], 4 * ne[0] * ne[1], 4 * ne[0] * ne[1] * ne[2]],
    };
    tq_fa_args {
        q: tensor(&args.q, TQ_KV_F32),
        k: tensor(&args.k, id(args.type_k)),
        v: tensor(&args.v, id(args.type_v)),
        mask: tensor(&args.mask.unwrap(), TQ_KV_F16),
        sinks: absent(),
        anchors: args.anchors.map_or_else(absent, |a| tensor(&a.table, TQ_KV_F16)),
        anchor_ids: args.anchors.map_or_else(absent, |a| tensor(&a.ids, TQ_KV_I32)),
        dst: tensor(&dst_tensor, TQ_KV_F32),
        scale: args.scale,
        max_bias: args.max_bias,
        logit_softcap: args.softcap,
    }
}

fn check_four_threads(case: Case) {
    let data = Data::new(case);
    let expected = data.run(4, attention::active());
    let mut dst = vec![0.0f32; expected.len()];
    let c_args = c_args(&data, &mut dst);
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
fn four_threads_through_c_agree_with_rust() {
    let turbo = KvType::Turbo(Turbo4);
    let case = Case { tokens: 3, n_kv: 500, ..Case::new(turbo, turbo, 64, 6, 2) };
    check_four_threads(case);
    check_four_threads(Case { ids: Ids::Runs, ..case });
    check_four_threads(Case { type_k: KvType::F16, type_v: KvType::F16, ids: Ids::Runs, ..case });
}

#[test]
fn a_graph_that_is_only_planned_has_null_data() {
    let case = Case { ids: Ids::Runs, ..Case::new(KvType::F16, KvType::F16, 64, 6, 2) };
    let data = Data::new(case);
    let mut dst = vec![0.0; case.heads * case.dv];
    let mut args = c_args(&data, &mut dst);
    // SAFETY: a valid pointer.
    let allocated = unsafe { tq_flash_attn_wsize(&args, 4) };
    let tq_fa_args { q, k, v, mask, anchors, anchor_ids, dst, .. } = &mut args;
    for tensor in [q, k, v, mask, anchors, anchor_ids, dst] {
        tensor.data = std::ptr::null();
    }
    // SAFETY: as above.
    assert_eq!(unsafe { tq_flash_attn_wsize(&args, 4) }, allocated);
}

/// Set for a process that this test starts to break the contract: which breach.
const BREACH: &str = "TQ_TEST_BREACH";

/// What is wrong, how it comes about, and what `tq_flash_attn` says before it aborts.
#[allow(clippy::type_complexity)]
const BREACHES: [(&str, fn(&mut tq_fa_args), &str); 11] = [
    ("ids-absent", |args| args.anchor_ids = absent(), "anchor_ids has not: anchors need both"),
    ("table-absent", |args| args.anchors = absent(), "anchors has not: anchors need both"),
    ("both-absent", |args| (args.anchors, args.anchor_ids) = (absent(), absent()), "neither"),
    ("ids-type", |args| args.anchor_ids.r#type = TQ_KV_F32, "anchor_ids has type id 0, expected 7"),
    ("table-type", |args| args.anchors.r#type = TQ_KV_F32, "anchors has type id 0, expected 1"),
    ("k-type", |args| args.k.r#type = TQ_KV_I32, "type id 7 is none"),
    ("ids-null", |args| args.anchor_ids.data = std::ptr::null(), "anchor_ids is null"),
    ("table-null", |args| args.anchors.data = std::ptr::null(), "anchors is null"),
    ("dims", |args| args.anchors.ne[0] = 32, "head_dim of anchors and K: 32 and 64"),
    ("heads", |args| args.anchors.ne[2] = 6, "heads of anchors and K: 6 and 2"),
    ("cells", |args| args.anchor_ids.ne[0] = 255, "cells of anchor_ids and K: 255 and 256"),
];

#[test]
fn broken_contracts_about_anchors_end_the_process() {
    if let Ok(breach) = std::env::var(BREACH) {
        let case = Case { ids: Ids::Runs, ..Case::new(KvType::F16, KvType::F16, 64, 6, 2) };
        let data = Data::new(case);
        let mut dst = vec![0.0; case.heads * case.dv];
        let mut args = c_args(&data, &mut dst);
        // SAFETY: a valid pointer.
        let wsize = unsafe { tq_flash_attn_wsize(&args, 1) };
        let mut work = vec![0u8; wsize];
        let (_, break_contract, _) = BREACHES.iter().find(|(name, ..)| *name == breach).unwrap();
        break_contract(&mut args);
        let (wdata, ctx) = (work.as_mut_ptr().cast(), std::ptr::null_mut());
        let thread = tq_fa_thread { ith: 0, nth: 1, wdata, wsize, barrier: None, ctx };
        // SAFETY: what is not null is valid.
        unsafe { tq_flash_attn(&args, &thread) };
        return;
    }
    for (breach, _, message) in BREACHES {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "broken_contracts_about_anchors_end_the_process", "--nocapture"])
            .env(BREACH, breach)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{breach} is taken");
        assert!(said.contains("tq_flash_attn: ") && said.contains(message), "{breach}: {said}");
    }
}

#[test]
fn unsupported_combinations_are_refused() {
    let all =
        [TQ_KV_F32, TQ_KV_F16, TQ_KV_BF16, TQ_KV_Q8_0, TQ_KV_TURBO2, TQ_KV_TURBO3, TQ_KV_TURBO4];
    for k in all {
        for v in all {
            let turbo = k >= TQ_KV_TURBO2 || v >= TQ_KV_TURBO2;
            for (dk, dv) in [(64, 64), (128, 128), (192, 128), (256, 256), (512, 512), (576, 512)] {
                let supported = |anchors| tq_flash_attn_supported(k, v, dk, dv, anchors);
                assert_eq!(supported(false), turbo, "{k} {v} {dk} {dv}");
                assert!(supported(true), "{k} {v} {dk} {dv}");
            }
        }
    }
    assert!(tq_flash_attn_supported(TQ_KV_Q8_0, TQ_KV_TURBO2, 96, 64, false));
    for (k, v, dk, dv) in [
        (TQ_KV_TURBO4, TQ_KV_TURBO4, 80, 80),
        (TQ_KV_TURBO4, TQ_KV_F16, 96, 96),
        (TQ_KV_Q8_0, TQ_KV_TURBO4, 80, 128),
        (TQ_KV_TURBO4, TQ_KV_TURBO4, 0, 64),
        (TQ_KV_TURBO4, TQ_KV_TURBO4, -64, 64),
        (TQ_KV_I32, TQ_KV_TURBO4, 64, 64),
        (TQ_KV_TURBO4, TQ_KV_I32, 64, 64),
        (-1, TQ_KV_TURBO4, 64, 64),
    ] {
        for anchors in [false, true] {
            let supported = tq_flash_attn_supported(k, v, dk, dv, anchors);
            assert!(!supported, "{k} {v} {dk} {dv} {anchors}");
        }
    }
}
