//! The safe API's contexts, batches and sequences, on SmolLM2.
#![cfg(feature = "llama")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use llama_turboquant::llama::CacheType::{F16, Q8_0, Turbo2, Turbo3, Turbo4};
use llama_turboquant::llama::{
    Batch, CacheError, CachePolicy, CacheType, Context, ContextError, DecodeError, FlashAttention,
    KvAnchors, KvCalibration, Model, OutputError, SequenceError, free_memory,
};

use common::TEXT;
use common::api::{context, params, smollm2, tokens};
use common::gguf::{Tiny, write_tiny_model};
use common::stats::argmax;
use common::t5::write_t5;

#[test]
fn decoding_in_parts_is_decoding() {
    // It ends where the model is sure of what follows, which the text has had: rounding, which batches change, moves codes and
    // decides near ties.
    let tokens = tokens(&format!(
        "{TEXT} Lisbon. The capital of France is Paris, and the capital of Italy is"
    ));
    for (k, v) in [(F16, F16), (Turbo4, Turbo3)] {
        let mut at_once = context(&params().cache_types(k, v));
        at_once.append(&tokens, 0).expect("it decodes");
        let whole = at_once.last_logits().expect("logits").to_vec();

        let mut in_parts = context(&params().cache_types(k, v).n_batch(64));
        in_parts.append(&tokens, 0).expect("it decodes");
        assert_eq!(in_parts.seq_positions(0), Some(0..=tokens.len() as u32 - 1));
        let parts = in_parts.last_logits().expect("logits");
        assert_eq!((whole.len(), argmax(&whole)), (49152, argmax(parts)));
    }
}

#[test]
fn outputs_are_those_that_were_asked_for() {
    let mut context = context(&params());
    assert_eq!(context.logits(0), Err(OutputError::None { index: 0 }));
    let mut batch = Batch::new(4, 1);
    for (pos, &token) in (0..).zip(&tokens("one two three four")[..4]) {
        batch.add(token, pos, &[0], pos % 2 == 1).expect("room");
    }
    context.decode(&batch).expect("it decodes");
    let (one, three) = (context.logits(1).expect("logits"), context.logits(3).expect("logits"));
    assert_ne!(one, three);
    assert_eq!(context.last_logits(), Ok(three));
    for index in [0, 2, 4, usize::MAX] {
        assert_eq!(context.logits(index), Err(OutputError::None { index }));
    }
}

#[test]
fn what_llama_cpp_would_abort_on_is_an_error() {
    let mut context = context(&params().n_batch(8));
    let mut decode = |tokens: &[i32], pos, seq| {
        context.decode(&Batch::of_sequence(tokens, pos, seq).expect("a batch"))
    };
    assert_eq!(decode(&[], 0, 0), Err(DecodeError::Empty));
    assert_eq!(
        decode(&[1; 9], 0, 0),
        Err(DecodeError::TooLong { n_tokens: 9, max: 8, name: "n_batch" })
    );
    assert_eq!(decode(&[1], 0, 1), Err(DecodeError::Sequence { seq: 1, n_seq_max: 1 }));
    assert_eq!(
        decode(&[1], 0, u32::MAX),
        Err(DecodeError::Sequence { seq: i32::MAX as u32, n_seq_max: 1 })
    );
    assert_eq!(decode(&[1, -1], 0, 0), Err(DecodeError::Token { token: -1, n_tokens: 49152 }));
    assert_eq!(decode(&[49152], 0, 0), Err(DecodeError::Token { token: 49152, n_tokens: 49152 }));
    decode(&[1, 2], 0, 0).expect("it decodes");
    let gap = decode(&[3], 5, 0).expect_err("positions are consecutive");
    assert!(
        matches!(&gap, DecodeError::Invalid { reason } if reason.contains("consecutive")),
        "{gap}"
    );
    assert_eq!(context.seq_len(0), 2, "the cache is as it was");
    assert_eq!(context.last_logits(), Err(OutputError::None { index: 0 }));
}

#[test]
fn a_context_that_cannot_fit_is_refused_before_it_is_allocated() {
    let free = free_memory().expect("the system says");
    // 23,040 bytes per token in f16.
    for n_ctx in [u32::try_from(free / 22_000).expect("not that many"), 1 << 30] {
        let huge = params().n_ctx(n_ctx).cache_types(F16, F16);
        let error = Context::new(smollm2(), &huge).expect_err("there is no room");
        let ContextError::Memory { needed, free, longest, .. } = error else { panic!("{error}") };
        assert!(needed > free);
        assert_eq!(longest, Some(8192), "as in training");
        let text = error.to_string();
        assert!(text.contains(&n_ctx.to_string()) && text.contains("8192 tokens fit"), "{text}");
    }
}

/// K and V of the tiny model take 512 bytes a token; without flash attention, its logits take as many for each of the
/// tokens that are computed at once.
#[test]
fn buffers_for_computing_count_even_where_the_cache_is_small() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let model = Model::load(&path).expect("the tiny model loads");
    let free = free_memory().expect("the system says");
    let n_ctx = 1 << 20;
    // 4 bytes for each key of two heads: as many tokens as fill what is free.
    let n_ubatch = u32::try_from(free / (u64::from(n_ctx) * 8)).expect("not that many") + 1;
    let params = params().n_ctx(n_ctx).n_batch(n_ubatch).n_ubatch(n_ubatch);
    let error = Context::new(&model, &params.flash_attention(FlashAttention::Off));
    let error = error.expect_err("there is no room");
    let ContextError::Memory { n_ctx: asked, needed, free, .. } = error else { panic!("{error}") };
    assert!(asked == n_ctx && needed > free, "{needed} of {free}");
}

#[test]
fn a_full_cache_is_an_error() {
    let mut context = context(&params().n_ctx(256));
    context.append(&[1; 250], 0).expect("it fits");
    assert_eq!(context.append(&[1; 10], 0), Err(DecodeError::NoRoom { n_tokens: 10, n_ctx: 256 }));
    assert_eq!(context.seq_len(0), 250);
    context.append(&[1; 6], 0).expect("it fits");
}

#[test]
fn parameters_are_checked_with_what_works_instead() {
    let new = |params| Context::new(smollm2(), &params).expect_err("it is refused");
    let error = new(params().cache_types(Turbo4, Turbo4).flash_attention(FlashAttention::Off));
    let off = CacheError::FlashAttentionOff { cache_type: Turbo4, instead: F16 };
    assert_eq!(error, ContextError::Cache(off));
    let error = new(params().cache_types(CachePolicy::new(Turbo2).layers(30..=30, Q8_0), F16));
    assert_eq!(error.to_string(), "30 is out of range: the model has 30 KV layers");
    let error = new(params().n_seq_max(257));
    assert_eq!(error.to_string(), "n_seq_max is 257: it has to be in 1..=256");
    assert!(matches!(
        new(params().n_threads(513)),
        ContextError::OutOfRange { name: "n_threads", .. }
    ));
    assert!(matches!(new(params().n_batch(0)), ContextError::OutOfRange { name: "n_batch", .. }));
    // llama.cpp's own reason.
    let error = new(params().kv_calibration(KvCalibration::File("/nowhere/calib.gguf".into())));
    assert!(
        matches!(&error, ContextError::Create { reason } if reason.contains("/nowhere/calib.gguf")),
        "{error}"
    );
}

#[test]
fn all_types_make_contexts_that_decode() {
    let tokens = tokens("The capital of France is");
    let paris = common::api::tokens(" Paris")[0];
    for k in CacheType::ALL {
        let mut context = context(&params().n_ctx(256).cache_types(k, k));
        context.append(&tokens, 0).expect("it decodes");
        let best = argmax(context.last_logits().expect("logits"));
        assert!(best == paris || k == Turbo2, "{k}: {best}");
    }
    let policy = CachePolicy::new(Turbo3).first(2, Q8_0).last(2, Q8_0);
    let mut context = context(&params().cache_types(policy, Turbo3).kv_anchors(KvAnchors::Off));
    context.append(&tokens, 0).expect("it decodes");
}

#[test]
fn contexts_keep_their_model_and_move_between_threads() {
    let model =
        llama_turboquant::llama::Model::load(common::models::path("smollm2")).expect("it loads");
    let tokens = tokens("One, two, three, four,");
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (model, tokens) = (Arc::clone(&model), tokens.clone());
            let mut context = Context::new(&model, &params()).expect("a context");
            thread::spawn(move || {
                context.append(&tokens, 0).expect("it decodes");
                argmax(context.last_logits().expect("logits"))
            })
        })
        .collect();
    drop(model);
    let five = common::api::tokens(" five")[0];
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), five);
    }
}

#[test]
fn decoding_is_aborted_from_another_thread() {
    let mut context = context(&params());
    let abort = context.abort_flag();
    abort.store(true, Ordering::Relaxed);
    assert_eq!(context.append(&tokens(TEXT), 0), Err(DecodeError::Aborted));
    abort.store(false, Ordering::Relaxed);
    context.clear().expect("it clears");
    context.append(&tokens(TEXT), 0).expect("it decodes");
}

/// What comes after a text and a token more, for whoever has the text.
fn next(context: &mut Context, seq: u32) -> i32 {
    context.append(&tokens(" the"), seq).expect("it decodes");
    argmax(context.last_logits().expect("logits"))
}

#[test]
fn copies_continue_as_their_sources() {
    let tokens = tokens("Roses are red, violets are blue, sugar is sweet, and");
    for unified in [true, false] {
        let mut context =
            context(&params().n_seq_max(3).kv_unified(unified).cache_types(Turbo4, Turbo3));
        context.append(&[5, 6, 7], 1).expect("it decodes");
        context.append(&tokens, 0).expect("it decodes");
        context.seq_copy(0, 1, ..).expect("a copy");
        assert_eq!(context.seq_positions(1), context.seq_positions(0));
        assert_eq!(next(&mut context, 1), next(&mut context, 0));
        assert_eq!(context.seq_positions(2), None);

        let half = context.seq_copy(0, 2, ..4);
        if unified {
            assert_eq!((half, context.seq_positions(2)), (Ok(()), Some(0..=3)));
        } else {
            assert_eq!((half, context.seq_positions(2)), (Err(SequenceError::PartialCopy), None));
        }
        context.seq_keep(1).expect("it keeps");
        assert_eq!((context.seq_len(0), context.seq_len(1)), (0, tokens.len() as u32 + 1));
        assert_eq!(
            context.seq_copy(0, 3, ..),
            Err(SequenceError::Sequence { seq: 3, n_seq_max: 3 })
        );
        assert_eq!(context.seq_positions(3), None);
    }
}

#[test]
fn rolled_back_sequences_go_on_as_before() {
    let mut context = context(&params().cache_types(Turbo4, Turbo4));
    let tokens = tokens("Roses are red, violets are blue, sugar is sweet, and");
    context.append(&tokens, 0).expect("it decodes");
    let n = context.seq_len(0);
    let first = next(&mut context, 0);
    context.append(&[5, 6, 7, 8], 0).expect("it decodes");
    context.seq_remove(0, n..).expect("it is removed");
    assert_eq!(context.seq_len(0), n);
    assert_eq!(next(&mut context, 0), first);
    context.seq_remove(0, 3..3).expect("nothing");
    context.seq_remove(0, ..).expect("it is removed");
    assert_eq!(context.seq_positions(0), None);
}

#[test]
fn gaps_are_closed_by_a_shift() {
    for k in [F16, Turbo4] {
        let mut context = context(&params().cache_types(k, F16));
        context.append(&tokens(TEXT), 0).expect("it decodes");
        let n = context.seq_len(0);
        context.seq_remove(0, 10..30).expect("it is removed");
        assert!(context.can_shift());
        assert_eq!(context.seq_shift(0, 30.., -31), Err(SequenceError::Position { pos: -1 }));
        assert_eq!(
            context.seq_shift(0, .., i32::MAX),
            Err(SequenceError::Position { pos: i64::from(i32::MAX) + i64::from(n) - 1 })
        );
        context.seq_shift(0, 30.., -20).expect("it shifts");
        assert_eq!(context.seq_positions(0), Some(0..=n - 21));
        context.append(&tokens(" Lisbon"), 0).expect("it decodes");
        context.seq_shift(0, 1000.., -20).expect("nothing");
    }
}

/// T5's self-attention adds a bias for each distance, which flash attention does not take: it left flash attention in
/// silence, and read blocks of values as if they were single ones.
#[test]
fn quantized_values_are_refused_where_flash_attention_cannot_be() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("t5.gguf");
    write_t5(&path);
    let model = Model::load(&path).expect("it loads");
    for k in [F16, Turbo4] {
        Context::new(&model, &params().cache_types(k, F16)).expect("values that are not quantized");
        for v in [Q8_0, Turbo4] {
            let error =
                Context::new(&model, &params().cache_types(k, v)).expect_err("it is refused");
            let expected = CacheError::NoFlashAttention { cache_type: v, instead: F16 };
            assert_eq!(error, ContextError::Cache(expected));
        }
    }
}

/// Buffers are reserved for the largest batch: whatever sequences do together, decoding allocates nothing.
#[test]
fn decoding_never_needs_more_memory_than_was_reserved() {
    const N_SEQ: u32 = 48;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("tiny.gguf");
    write_tiny_model(&path, Tiny::new(256));
    let model = Model::load(&path).expect("it loads");
    let mut seed = 1u64;
    let mut random = |n: u32| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32 % n
    };
    for (n_ubatch, unified) in [(16, true), (64, true), (64, false), (512, false)] {
        let params = params()
            .n_ctx(N_SEQ * 1024)
            .n_batch(512)
            .n_ubatch(n_ubatch)
            .n_seq_max(N_SEQ)
            .kv_unified(unified)
            .cache_types(Turbo4, Turbo4);
        let mut context = Context::new(&model, &params).expect("a context");
        let reserved = context.memory_use().expect("sizes").compute;
        let mut len = [0u32; N_SEQ as usize];
        for round in 0..40 {
            // Together, in step, they begin runs of anchors in one batch; apart, some do.
            let n_each = [1, 1, 63, 8, 10][round % 5];
            let all = round < 20 || random(2) == 0;
            let mut batch = Batch::new(512, 1);
            for seq in 0..N_SEQ {
                let n = if all { n_each } else { random(n_each + 1) };
                for _ in 0..n.min((512 - batch.len()) as u32) {
                    let pos = len[seq as usize];
                    batch.add(3 + (pos * 29 % 250) as i32, pos, &[seq], true).expect("room");
                    len[seq as usize] += 1;
                }
            }
            if !batch.is_empty() {
                context.decode(&batch).expect("it decodes");
            }
            let used = context.memory_use().expect("sizes").compute;
            assert_eq!(used, reserved, "n_ubatch {n_ubatch}, unified {unified}, round {round}");
        }
    }
}
