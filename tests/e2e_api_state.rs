//! The safe API's states, in bytes and in files, on SmolLM2.
#![cfg(feature = "llama")]

mod common;
#[path = "state/damage.rs"]
mod damage;

use std::fs;
use std::path::Path;
use std::process::Command;

use llama_turboquant::llama::CacheType::{F16, Turbo3, Turbo4};
use llama_turboquant::llama::{Context, ContextParams, Model, StateError};

use common::TEXT;
use common::api::{context, params, tokens};
use common::gguf::{Tiny, write_tiny_model};
use common::state::{HEAD, reseal};
use common::stats::kld;

/// The logits after one token more.
fn next(context: &mut Context, seq: u32) -> Vec<f32> {
    context.append(&tokens(" the"), seq).expect("it decodes");
    context.last_logits().expect("logits").to_vec()
}

fn turbo() -> ContextParams {
    params().n_seq_max(2).cache_types(Turbo4, Turbo3)
}

/// A context that has decoded the text as sequence 0.
fn filled(params: &ContextParams) -> Context {
    let mut context = context(params);
    context.append(&tokens(TEXT), 0).expect("it decodes");
    context
}

#[test]
fn a_restored_context_goes_on_as_the_saved_one() {
    for params in [turbo(), turbo().kv_unified(true), params()] {
        let mut saved = filled(&params);
        let state = saved.state().expect("a state");
        let mut restored = context(&params);
        restored.append(&[1, 2, 3], 0).expect("it decodes");
        restored.set_state(&state).expect("it is restored");
        assert_eq!(restored.seq_positions(0), saved.seq_positions(0));
        assert_eq!(next(&mut restored, 0), next(&mut saved, 0));
    }
}

#[test]
fn a_sequence_is_restored_as_another() {
    let mut context = filled(&turbo().kv_unified(true));
    let state = context.seq_state(0).expect("a state");
    context.set_seq_state(1, &state).expect("it is restored");
    assert_eq!(context.seq_positions(1), context.seq_positions(0));
    // Other cells, and sums in another order.
    let kld = kld(&next(&mut context, 0), &next(&mut context, 1));
    assert!(kld < 0.02, "KLD {kld}");
    assert!(matches!(context.seq_state(2), Err(StateError::Sequence { seq: 2, n_seq_max: 2 })));
    assert!(matches!(context.set_seq_state(9, &state), Err(StateError::Sequence { .. })));
}

#[test]
fn shifts_that_wait_for_a_decode_are_in_the_state() {
    for k in [F16, Turbo4] {
        let params = params().cache_types(k, F16);
        let mut saved = filled(&params);
        saved.seq_remove(0, 10..30).expect("it is removed");
        saved.seq_shift(0, 30.., -20).expect("it shifts");
        let state = saved.state().expect("a state");
        let mut restored = context(&params);
        restored.set_state(&state).expect("it is restored");
        let kld = kld(&next(&mut saved, 0), &next(&mut restored, 0));
        assert!(kld < 0.02, "{k}: KLD {kld}");
    }
}

#[test]
fn what_is_no_state_is_refused_and_leaves_nothing() {
    let mut saved = filled(&turbo());
    let state = saved.state().expect("a state");
    let mut longer = state.clone();
    longer.push(0);
    let other_types = filled(&params().n_seq_max(2)).state().expect("a state");
    for bad in [&[][..], &[7; 100], &state[..state.len() / 2], &longer, &other_types] {
        let mut context = filled(&turbo());
        let error = context.set_state(bad).expect_err("it is refused");
        assert!(matches!(&error, StateError::Restore { reason } if !reason.is_empty()), "{error}");
        assert_eq!(context.seq_positions(0), None);
        context.set_state(&state).expect("the context is still good");
    }
    let error = filled(&turbo()).set_state(&other_types).expect_err("other types").to_string();
    assert!(error.contains("turbo4") && error.contains("f16"), "{error}");
}

#[test]
fn files_have_the_tokens_with_them() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, part) = (dir.path().join("whole.bin"), dir.path().join("part.bin"));
    let all = tokens(TEXT);
    let mut saved = filled(&turbo());
    saved.save_state(&whole, &all).expect("it is saved");
    saved.save_seq_state(0, &part, &all[..7]).expect("it is saved");

    let mut restored = context(&turbo());
    assert_eq!(restored.load_state(&whole).expect("it is loaded"), all);
    assert_eq!(restored.load_seq_state(1, &part).expect("it is loaded"), all[..7]);
    let logits = next(&mut saved, 0);
    assert_eq!(next(&mut restored, 0), logits);
    assert_eq!(next(&mut restored, 1), logits);
    // Nothing else is left behind.
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 2);

    // Each is refused as the other.
    assert!(matches!(restored.load_state(&part), Err(StateError::Format { .. })));
    assert!(matches!(restored.load_seq_state(0, &whole), Err(StateError::Format { .. })));
    let missing = dir.path().join("none");
    assert!(matches!(restored.load_state(&missing), Err(StateError::Io { .. })));
    assert!(matches!(restored.save_state(missing.join("none"), &[]), Err(StateError::Io { .. })));
    assert_eq!(next(&mut restored, 1).len(), 49152, "a refused file changes nothing");
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.bin");
    let all = tokens(TEXT);
    filled(&turbo()).save_state(&path, &all).expect("it is saved");
    let good = fs::read(&path).expect("the file");
    let mut context = context(&turbo());
    let mut many_tokens = good.clone();
    many_tokens[8..12].fill(0xff);
    let mut other_version = good.clone();
    other_version[4] ^= 1;
    for bad in
        [&good[..8], &good[..14], &good[..good.len() - 1], &many_tokens, &other_version, b"text"]
    {
        fs::write(&path, bad).expect("a file");
        let error = context.load_state(&path).expect_err("it is refused");
        assert!(matches!(error, StateError::Format { .. } | StateError::Restore { .. }), "{error}");
    }
    fs::write(&path, &good).expect("a file");
    context.load_state(&path).expect("the context is still good");
}

/// Files of this process may not grow beyond 64 blocks, as on a full disk.
#[test]
#[ignore = "run by the test below"]
fn save_without_room() {
    let dir = std::env::var_os("TQ_TEST_DIR").expect("set by the test below");
    let path = Path::new(&dir).join("state.bin");
    let error = filled(&turbo()).save_state(&path, &[1, 2, 3]).expect_err("there is no room");
    let failed = matches!(error, StateError::Short { .. } | StateError::Save { .. });
    assert!(failed, "{error}");
}

#[test]
#[cfg(unix)]
fn the_old_file_survives_a_full_disk() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.bin");
    fs::write(&path, "the old file").expect("a file");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact save_without_room --ignored";
    // Output into pipes: a log that is longer than the limit could not be written to, either.
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().expect("this program"))
        .env("TQ_TEST_DIR", dir.path())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(fs::read(&path).expect("the old file"), b"the old file");
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 1, "no temporary is left");
}

/// Any bytes are safe: what of them is a state is restored, all else refused, and the context goes on.
#[test]
fn damaged_states_harm_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let model = Model::load(&path).expect("it loads");
    let rounds: usize =
        std::env::var("TQ_TEST_ROUNDS").map_or(100, |n| n.parse().expect("a number"));
    let mut seed = 1u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    for (k, unified) in [(F16, false), (Turbo4, false), (Turbo3, true)] {
        let params = params().n_ctx(256).n_seq_max(2).kv_unified(unified).cache_types(k, k);
        let mut context = Context::new(&model, &params).expect("a context");
        let prompt: Vec<_> = (0..90).map(|i| 3 + i % 200).collect();
        context.append(&prompt, 0).expect("it decodes");
        context.append(&prompt[..30], 1).expect("it decodes");
        let good = [context.state().expect("a state"), context.seq_state(0).expect("a state")];
        for _ in 0..rounds {
            let of_sequence = random(2) == 1;
            let mut state = good[usize::from(of_sequence)].clone();
            // Mostly where the cells are described.
            let range =
                if random(4) == 0 { state.len() } else { state.len().min(64 + random(1500)) };
            for _ in 0..1 + random(4) {
                state[random(range)] = [0, 0xff, 0x80, random(256) as u8][random(4)];
            }
            if random(8) == 0 {
                state.truncate(random(state.len()));
            }
            // Half of them pass for whole.
            if state.len() > HEAD && random(2) == 0 {
                reseal(&mut state);
            }
            let restored = match of_sequence {
                true => context.set_seq_state(1, &state),
                false => context.set_state(&state),
            };
            if restored.is_err() {
                assert_eq!(context.seq_len(1), 0);
            }
            for seq in 0..2 {
                let _ = context.append(&[5, 6], seq);
            }
            let _ = context.seq_remove(0, 5..);
            let _ = context.state().expect("it can be saved");
        }
        context.set_state(&good[0]).expect("the context is still good");
        context.append(&[5, 6], 0).expect("it decodes");
        assert!(context.last_logits().expect("logits").iter().all(|x| x.is_finite()));
    }
}
