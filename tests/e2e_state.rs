//! Saved states, shifted contexts and copied sequences of turbo caches.
#![cfg(feature = "llama")]

mod common;

use common::engine::{Context, Entry, Model, Options, context, label};
use common::models::{gemma, smollm2};
use common::state::{reseal, restore, restore_seq, save, save_seq, shift};
use common::stats::{kld, mean_kld};
use common::{F16, Q8_0, TEXT, TURBO2, TURBO3, TURBO4};
use llama_turboquant::llama::sys::{self, ggml_type};

const PAIRS: [(ggml_type, ggml_type); 4] =
    [(TURBO4, TURBO2), (TURBO3, TURBO3), (Q8_0, TURBO3), (TURBO4, F16)];
/// Tokens that are generated from a restored state.
const N_MORE: usize = 12;

#[test]
fn a_restored_state_continues_with_the_same_tokens() {
    for model in [smollm2(), gemma()] {
        let tokens = model.tokenize(TEXT);
        let (last, prompt) = tokens.split_last().expect("a text");
        let n = prompt.len();
        for pair in PAIRS {
            let mut first = context(model, Options::new(pair));
            first.prefill(prompt, 0, 0);
            let state = save(&first);
            let logits = first.prefill(&[*last], n, 0);
            let expected = first.greedy(logits.clone(), n + 1, 0, N_MORE);

            let mut second = context(model, Options::new(pair));
            let (read, log) = restore(&mut second, &state);
            assert_eq!(read, state.len(), "{log}");
            let restored = second.prefill(&[*last], n, 0);
            assert_eq!(restored, logits, "same cells, same sums: {}", label(pair));
            assert_eq!(second.greedy(restored, n + 1, 0, N_MORE), expected);
        }
    }
}

#[test]
fn a_restored_sequence_continues_with_the_same_tokens() {
    for model in [smollm2(), gemma()] {
        let tokens = model.tokenize(TEXT);
        let (last, prompt) = tokens.split_last().expect("a text");
        let n = prompt.len();
        for pair in PAIRS {
            let options = Options { n_seq: 2, n_ctx: 1024, ..Options::new(pair) };
            let mut first = context(model, options);
            first.prefill(prompt, 0, 0);
            let state = save_seq(&first, 0);
            let logits = first.prefill(&[*last], n, 0);
            let expected = first.greedy(logits, n + 1, 0, N_MORE);

            let mut second = context(model, options);
            let (read, log) = restore_seq(&mut second, &state, 1);
            assert_eq!(read, state.len(), "{log}");
            let logits = second.prefill(&[*last], n, 1);
            assert_eq!(second.greedy(logits, n + 1, 1, N_MORE), expected, "{}", label(pair));
        }
    }
}

#[test]
fn a_state_of_other_types_is_refused() {
    let model = smollm2();
    let tokens = model.tokenize(TEXT);
    let mut saved = context(model, Options::new((TURBO4, TURBO2)));
    saved.prefill(&tokens, 0, 0);
    let (state, seq_state) = (save(&saved), save_seq(&saved, 0));

    for (pair, cache, was, is) in [
        ((TURBO3, TURBO2), "K cache", "turbo4", "turbo3"),
        ((F16, TURBO2), "K cache", "turbo4", "f16"),
        ((TURBO4, TURBO4), "V cache", "turbo2", "turbo4"),
        ((TURBO4, Q8_0), "V cache", "turbo2", "q8_0"),
    ] {
        let mut other = context(model, Options::new(pair));
        for (read, log) in [restore(&mut other, &state), restore_seq(&mut other, &seq_state, 0)] {
            assert_eq!(read, 0, "{}: {log}", label(pair));
            for word in [cache, was, is] {
                assert!(log.contains(word), "no {word:?} in: {log}");
            }
        }
        // It still serves.
        // SAFETY: the memory belongs to the context.
        unsafe { sys::llama_memory_clear(other.memory(), true) };
        assert!(other.prefill(&tokens, 0, 0).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_state_of_f16_is_refused_by_turbo() {
    let model = smollm2();
    let mut saved = context(model, Options::new((F16, F16)));
    saved.prefill(&model.tokenize(TEXT), 0, 0);
    let state = save(&saved);
    let (read, log) = restore(&mut context(model, Options::new((TURBO4, TURBO4))), &state);
    assert_eq!(read, 0);
    assert!(log.contains("f16") && log.contains("turbo4"), "{log}");
}

#[test]
fn a_cut_state_is_refused() {
    let model = smollm2();
    let mut saved = context(model, Options::new((TURBO4, TURBO2)));
    saved.prefill(&model.tokenize(TEXT), 0, 0);
    let state = save(&saved);
    for n in [0, 3, 100, state.len() / 2, state.len() - 1] {
        let mut other = context(model, Options::new((TURBO4, TURBO2)));
        let mut cut = state[..n].to_vec();
        for resealed in [false, true] {
            if resealed {
                reseal(&mut cut);
            }
            let (read, log) = restore(&mut other, &cut);
            assert_eq!(read, 0, "{n} of {} bytes, resealed {resealed}", state.len());
            assert!(!log.is_empty());
        }
    }
}

/// Logits after each of the last [`N_LAST`] tokens: before a shift, after it, and after eight more.
fn around_shifts(
    model: &Model,
    tokens: &[i32],
    pair: (ggml_type, ggml_type),
) -> [Vec<Vec<f32>>; 3] {
    const CUT: usize = 4;
    let mut context = context(model, Options::new(pair));
    let (prompt, last) = tokens.split_at(tokens.len() - N_LAST);
    context.prefill(prompt, 0, 0);
    // What the last tokens leave in the cache is removed again.
    let look = |context: &mut Context, pos| {
        let entry = |(i, &token)| Entry { token, pos: pos + i, seq: 0, output: true };
        let logits = context.decode(&last.iter().enumerate().map(entry).collect::<Vec<_>>());
        // SAFETY: the memory belongs to the context.
        assert!(unsafe { sys::llama_memory_seq_rm(context.memory(), 0, pos as i32, -1) });
        logits
    };
    let mut pos = prompt.len();
    let before = look(&mut context, pos);
    shift(&mut context, 4, 8 * CUT);
    pos -= 8 * CUT;
    let after = look(&mut context, pos);
    for _ in 0..8 {
        // The shift itself waits for the next decode.
        shift(&mut context, 4, CUT);
        pos -= CUT;
        context.prefill(&last[..1], pos, 0);
        pos += 1;
    }
    [before, after, look(&mut context, pos)]
}

/// Tokens over which a divergence is averaged: a single one's spreads tenfold.
const N_LAST: usize = 48;

#[test]
fn a_shifted_context_stays_close_to_f16() {
    for (model, name) in [(smollm2(), "SmolLM2"), (gemma(), "Gemma")] {
        let tokens = model.tokenize(TEXT);
        let exact = around_shifts(model, &tokens, (F16, F16));
        // A shift decodes K, turns it and encodes it again: every one adds the type's own error. The
        // limits are about 1.6 times what the worse of the two models showed.
        for (pair, limits) in [
            ((Q8_0, Q8_0), [0.01, 0.01, 0.015]),
            ((TURBO4, TURBO4), [0.1, 0.15, 0.4]),
            ((TURBO4, TURBO2), [0.22, 0.25, 0.75]),
            ((TURBO3, TURBO3), [0.5, 0.7, 1.0]),
            ((TURBO2, TURBO2), [2.8, 2.9, 4.0]),
        ] {
            let shifted = around_shifts(model, &tokens, pair);
            let mean = |(p, q): (&Vec<_>, &Vec<_>)| mean_kld(p, q);
            let klds: Vec<f64> = exact.iter().zip(&shifted).map(mean).collect();
            let report = format!("{name} {}: {klds:.4?}", label(pair));
            println!("{report}");
            assert!(klds.iter().zip(limits).all(|(&kld, limit)| kld <= limit), "{report}");
        }
    }
}

#[test]
fn copied_sequences_decode_as_one_alone() {
    let model = smollm2();
    let tokens = model.tokenize(TEXT);
    let n = tokens.len();
    let endings =
        ["Lisbon", "red", "nine", "the"].map(|word| *model.tokenize(word).last().expect("a token"));
    for unified in [false, true] {
        for pair in PAIRS {
            let options = Options { n_seq: 4, n_ctx: 2048, unified, ..Options::new(pair) };
            let mut together = context(model, options);
            together.prefill(&tokens, 0, 0);
            for seq in 1..4 {
                // SAFETY: the memory belongs to the context.
                unsafe { sys::llama_memory_seq_cp(together.memory(), 0, seq, -1, -1) };
            }
            let batch: Vec<_> = endings
                .iter()
                .zip(0..)
                .map(|(&token, seq)| Entry { token, pos: n, seq, output: true })
                .collect();
            let logits = together.decode(&batch);
            // As many key anchors: fewer serve more cells each, and make other codes.
            let n_ctx = if unified { options.n_ctx } else { options.n_ctx / options.n_seq };
            let mut alone = context(model, Options { n_ctx, ..Options::new(pair) });
            alone.prefill(&tokens, 0, 0);
            for (&ending, together) in endings.iter().zip(&logits) {
                let kld = kld(&alone.prefill(&[ending], n, 0), together);
                let report = format!("{}, unified {unified}: KLD {kld:.2e}", label(pair));
                println!("{report}");
                // One cache for all puts the cells elsewhere: sums in another order.
                assert!(kld <= if unified { 0.1 } else { 1e-3 }, "{report}");
                // SAFETY: the memory belongs to the context.
                assert!(unsafe { sys::llama_memory_seq_rm(alone.memory(), 0, n as i32, -1) });
            }
        }
    }
}
