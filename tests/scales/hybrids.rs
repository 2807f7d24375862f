//! Hybrids: layers that attend have scales, recurrent ones have no keys, and states have both.

use super::common::calibration::{Calibration, RopePairs};
use super::common::engine::{Model, Options, context};
use super::common::gguf::{tokens, uniform};
use super::common::gguf_file::Gguf;
use super::common::hybrid::{ATTENDS, write_jamba, write_qwen35};
use super::common::models::written;
use super::common::state::{restore, restore_seq, save, save_seq};
use super::common::stats::kld;
use super::common::steps::divergence;
use super::common::{F16, TURBO4};
use super::{N, both, options, sys};

fn cases() -> [(&'static str, RopePairs, Model); 2] {
    [
        ("jamba", RopePairs::Adjacent, written(write_jamba)), // no RoPE: any will do
        ("qwen35", RopePairs::Halves, written(write_qwen35)),
    ]
}

#[test]
fn only_layers_that_attend_have_scales() {
    for (name, _, model) in cases() {
        let calibration = Calibration::of(&model, 256);
        let file = Gguf::read(&calibration.path());
        let names: Vec<_> = file.tensors.iter().map(|tensor| tensor.name.clone()).collect();
        assert_eq!(names, [format!("blk.{ATTENDS}.k_scale")], "{name}");
    }
}

/// Through a prompt, tokens one by one, and restored states.
#[test]
fn any_scales_leave_f16_as_it_is() {
    for (name, pairs, model) in cases() {
        let mut seed = 7;
        let calibration =
            Calibration::of(&model, 256).with_scales(pairs, || 4f32.powf(uniform(&mut seed)));
        for anchors in [sys::LLAMA_KV_ANCHORS_OFF, sys::LLAMA_KV_ANCHORS_ON] {
            let options = Options { anchors, ..options(F16, F16) };
            let [with, without] = both(&model, options, &calibration);
            let mean = divergence(name, &with, &without);
            assert!(mean <= 2e-5, "{name}: a mean KLD of {mean:.1e}");
        }
    }
}

#[test]
fn fitted_scales_leave_turbo4_close() {
    for (name, _, model) in cases() {
        let calibration = Calibration::of(&model, 256);
        let f16 = options(F16, F16);
        let turbo4 =
            Options { k: TURBO4, anchors: sys::LLAMA_KV_ANCHORS_AUTO, ..options(TURBO4, F16) };
        let [with, without] = both(&model, turbo4, &calibration);
        let [_, exact] = both(&model, f16, &calibration);
        let (with, without) = (divergence(name, &with, &exact), divergence(name, &without, &exact));
        assert!(without > 1e-4, "{name}: {without:.1e} with turbo4 says nothing");
        assert!(with <= 2.0 * without, "{name}: {without:.1e}, {with:.1e} with scales");
    }
}

/// A state carries the id, beside what recurrent layers remember.
#[test]
fn states_are_for_contexts_with_the_same_scales() {
    for (name, _, model) in cases() {
        let calibration = Calibration::of(&model, 256);
        let path = calibration.path();
        let with = Options { kv_calib: Some(&path), ..Options::new((TURBO4, TURBO4)) };
        let without = Options { kv_calib: None, ..with };
        for (saved, other) in [(with, without), (without, with)] {
            let mut first = context(&model, saved);
            first.prefill(&tokens(N.0), 0, 0);
            let (state, seq_state) = (save(&first), save_seq(&first, 0));
            let logits = first.prefill(&[5], N.0, 0);

            let mut second = context(&model, other);
            for (read, log) in
                [restore(&mut second, &state), restore_seq(&mut second, &seq_state, 0)]
            {
                assert_eq!(read, 0, "{name}");
                assert!(log.contains("--kv-calib"), "{name}: {log}");
            }
            for whole in [true, false] {
                let mut third = context(&model, saved);
                let (read, log) = match whole {
                    true => restore(&mut third, &state),
                    false => restore_seq(&mut third, &seq_state, 0),
                };
                assert_eq!(
                    read,
                    if whole { state.len() } else { seq_state.len() },
                    "{name}: {log}"
                );
                let again = third.prefill(&[5], N.0, 0);
                assert!(kld(&logits, &again) <= 1e-6, "{name}: {:.1e}", kld(&logits, &again));
            }
        }
    }
}
