//! Saved states of caches with key scales: they are for contexts with the same scales.
#![cfg(feature = "llama")]

mod common;

use std::path::Path;

use common::TURBO4;
use common::calibration::{Calibration, RopePairs};
use common::engine::{Options, context};
use common::gguf::{Tiny, tokens, uniform};
use common::models::tiny;
use common::state::{reseal, restore, restore_seq, save, save_seq, serves};
use common::stats::kld;

const N: usize = 100;

fn options(kv_calib: Option<&Path>) -> Options<'_> {
    Options { kv_calib, ..Options::new((TURBO4, TURBO4)) }
}

/// The ids that a log has, of 16 digits each, but for those in the names of files.
fn ids(log: &str) -> Vec<&str> {
    let words =
        log.split('\'').step_by(2).flat_map(|text| text.split(|c: char| !c.is_ascii_hexdigit()));
    words.filter(|word| word.len() == 16).collect()
}

/// One cache, and two of which one has a sliding window.
#[test]
fn states_are_for_contexts_with_the_same_scales() {
    check(Tiny::new(64), RopePairs::Adjacent);
    check(Tiny { softcap: 1.0, ..Tiny::new(64) }, RopePairs::Halves);
}

fn check(model: Tiny, pairs: RopePairs) {
    let model = tiny(model);
    let fitted = Calibration::of(&model, 256);
    let mut seed = 7;
    let other = fitted.with_scales(pairs, || 2f32.powf(uniform(&mut seed)));
    let (fitted, other) = (fitted.path(), other.path());
    let all = [None, Some(&*fitted), Some(&*other)];

    for saved in all {
        let mut first = context(&model, options(saved));
        first.prefill(&tokens(N), 0, 0);
        let (state, seq_state) = (save(&first), save_seq(&first, 0));
        let logits = first.prefill(&[5], N, 0);

        for has in all {
            let mut second = context(&model, options(has));
            for (state, seq) in [(&state, None), (&seq_state, Some(0))] {
                let (read, log) = match seq {
                    None => restore(&mut second, state),
                    Some(seq) => restore_seq(&mut second, state, seq),
                };
                if has == saved {
                    assert_eq!(read, state.len(), "{log}");
                    // A sliding window's cells are put elsewhere: sums in another order.
                    assert!(kld(&logits, &second.prefill(&[5], N, 0)) <= 1e-6);
                } else {
                    assert_eq!(read, 0);
                    let n_ids = [saved, has].iter().flatten().count();
                    assert_eq!(ids(&log).len(), n_ids, "{log}");
                    assert_eq!(log.contains("none"), n_ids < 2, "{log}");
                    assert!(log.contains("--kv-calib"), "{log}");
                }
                serves(&mut second);
            }
        }
    }
}

/// The id is that of the scales: another file with the same will do.
#[test]
fn a_calibration_made_again_reads_the_states() {
    let model = tiny(Tiny::new(64));
    let [first, second] = [0, 1].map(|_| Calibration::of(&model, 256));
    let (first, second) = (first.path(), second.path());
    let mut saved = context(&model, options(Some(&first)));
    saved.prefill(&tokens(N), 0, 0);
    let state = save(&saved);
    let (read, log) = restore(&mut context(&model, options(Some(&second))), &state);
    assert_eq!(read, state.len(), "{log}");
}

/// The id follows the number of layers: a state that ends in it is refused as any that is cut.
#[test]
fn a_cut_state_is_refused() {
    let model = tiny(Tiny::new(64));
    let calibration = Calibration::of(&model, 256);
    let path = calibration.path();
    let mut first = context(&model, options(Some(&path)));
    first.prefill(&tokens(3), 0, 0);
    let state = save_seq(&first, 0);
    let mut second = context(&model, options(Some(&path)));
    for n in 0..state.len() {
        let mut cut = state[..n].to_vec();
        for resealed in [false, true] {
            if resealed {
                reseal(&mut cut);
            }
            let (read, log) = restore_seq(&mut second, &cut, 0);
            assert_eq!(read, 0, "{n} of {} bytes, resealed {resealed}", state.len());
            assert!(!log.is_empty());
        }
    }
    serves(&mut second);
    let (read, log) = restore_seq(&mut second, &state, 0);
    assert_eq!(read, state.len(), "{log}");
}
