//! The safe API's models and vocabularies, on SmolLM2; and, in `kinds`, all of it on tiny models of every kind.
#![cfg(feature = "llama")]

mod common;
mod kinds;
mod nesting;

use std::fs;

use llama_turboquant::llama::{
    CacheType, Context, ContextError, ContextParams, Model, ModelError, ModelProbe, VocabError,
    VocabKind,
};

use common::api::smollm2;
use common::models::path;

const TEXT: &str = "Grüße, 世界! 👩‍🚀 naïve café — \"quotes\" and\n\ttabs, 12345.";

#[test]
fn a_model_says_what_it_is() {
    let model = smollm2();
    assert_eq!((model.n_layer(), model.n_embd(), model.n_embd_out()), (30, 576, 576));
    assert_eq!((model.n_head(), model.n_head_kv(), model.head_dim()), (9, 3, 64));
    assert_eq!((model.n_ctx_train(), model.n_swa(), model.kv_layers().len()), (8192, 0, 30));
    assert!((90_000_000..110_000_000).contains(&model.size()), "{} bytes", model.size());
    assert!((130_000_000..170_000_000).contains(&model.n_params()), "{} values", model.n_params());
    assert!(model.description().starts_with("llama "), "{}", model.description());
    assert!(model.has_decoder() && !model.has_encoder() && !model.is_recurrent());
}

#[test]
fn metadata_is_found_by_key_and_listed() {
    let model = smollm2();
    assert_eq!(model.meta("general.architecture").as_deref(), Some("llama"));
    assert_eq!(model.meta("no.such.key"), None);
    assert_eq!(model.meta("a\0b"), None);
    assert!(model.metadata().any(|(key, value)| key == "llama.block_count" && value == "30"));
    // Longer than the first buffer.
    let template = model.chat_template().expect("an instruct model has one");
    assert_eq!(model.meta("tokenizer.chat_template").as_deref(), Some(template));
}

#[test]
fn what_is_no_model_is_an_error_with_the_reason() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let missing = Model::load(dir.path().join("none.gguf")).expect_err("not there");
    assert!(matches!(missing, ModelError::NoFile { .. }), "{missing}");
    let folder = Model::load(dir.path()).expect_err("not a file");
    assert!(matches!(folder, ModelError::Folder { .. }), "{folder}");

    let garbage = dir.path().join("garbage.gguf");
    fs::write(&garbage, [7u8; 4096]).expect("a file");
    let error = Model::load(&garbage).expect_err("no GGUF");
    let ModelError::Load { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("magic"), "{reason}");

    let cut = dir.path().join("cut.gguf");
    let model = fs::read(path("smollm2")).expect("the model's file");
    fs::write(&cut, &model[..model.len() / 2]).expect("a file");
    let error = Model::load(&cut).expect_err("half a model");
    assert!(matches!(&error, ModelError::Load { reason, .. } if !reason.is_empty()), "{error}");
}

#[test]
fn loading_reports_progress_and_stops() {
    let mut seen = Vec::new();
    let builder = Model::builder(path("smollm2")).mmap(false);
    builder
        .progress(|done| {
            seen.push(done);
            true
        })
        .load()
        .expect("it loads");
    assert!(seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");

    let error = Model::builder(path("smollm2")).progress(|_| false).load().expect_err("stopped");
    assert!(matches!(error, ModelError::Stopped { .. }), "{error}");
}

#[test]
fn a_vocabulary_alone_makes_no_context() {
    let model = Model::builder(path("smollm2")).vocab_only(true).load().expect("it loads");
    assert_eq!(
        model.vocab().tokenize(TEXT, true, false),
        smollm2().vocab().tokenize(TEXT, true, false)
    );
    let error = Context::new(&model, &ContextParams::default()).expect_err("no weights");
    assert_eq!(error, ContextError::VocabOnly);
}

#[test]
fn texts_survive_tokens() {
    let vocab = smollm2().vocab();
    assert_eq!((vocab.kind(), vocab.n_tokens()), (VocabKind::Bpe, 49152));
    let long = TEXT.repeat(50);
    for text in ["", "a", TEXT, &long] {
        let tokens = vocab.tokenize(text, false, false).expect("tokens");
        assert_eq!(vocab.detokenize(&tokens, false).as_deref(), Ok(text));
        let mut stream = llama_turboquant::llama::Utf8Stream::new();
        let piece = |&token| vocab.piece(token, false).expect("a piece");
        let streamed: String = tokens.iter().map(|token| stream.push(&piece(token))).collect();
        assert_eq!(streamed, text);
    }
}

#[test]
fn special_tokens_are_parsed_and_shown_if_wanted() {
    let vocab = smollm2().vocab();
    let end = vocab.eos().expect("an end of the answer");
    assert!(vocab.is_eog(end) && vocab.is_control(end));
    assert_eq!(vocab.tokenize("<|im_end|>", false, true), Ok(vec![end]));
    assert!(vocab.tokenize("<|im_end|>", false, false).expect("tokens").len() > 1);
    assert_eq!(vocab.piece(end, true).as_deref(), Ok(b"<|im_end|>".as_slice()));
    assert_eq!(vocab.piece(end, false).as_deref(), Ok(b"".as_slice()));
    assert_eq!(vocab.text(end).as_deref(), Some("<|im_end|>"));
}

#[test]
fn tokens_that_are_none_are_errors() {
    let vocab = smollm2().vocab();
    for token in [-1, 49152, i32::MIN, i32::MAX] {
        let error = VocabError::Token { token, n_tokens: 49152 };
        assert_eq!(vocab.piece(token, true), Err(error.clone()));
        assert_eq!(vocab.detokenize(&[0, token], true), Err(error));
        assert_eq!(vocab.text(token), None);
        assert!(!vocab.is_eog(token) && !vocab.is_control(token));
    }
}

#[test]
fn a_probe_tells_what_a_model_tells_and_takes() {
    for name in ["smollm2", "gemma"] {
        let probe = ModelProbe::open(path(name)).expect("it opens");
        let model = Model::load(path(name)).expect("it loads");
        assert_eq!(probe.model().kv_layers(), model.kv_layers());
        assert_eq!(probe.model().description(), model.description());
        assert_eq!(probe.model().size(), model.size());
        for (k, v) in [(CacheType::F16, CacheType::F16), (CacheType::Turbo4, CacheType::Turbo3)] {
            let params = ContextParams::default().n_ctx(1024).n_threads(1).cache_types(k, v);
            let context = Context::new(&model, &params).expect("a context");
            let (expected, probed) =
                (context.memory_use().expect("sizes"), probe.memory_use(&params).expect("sizes"));
            assert_eq!((probed.k, probed.v, probed.state), (expected.k, expected.v, 0), "{name}");
            let ratio = |a: u64, b: u64| a as f64 / b as f64;
            let (model, compute) =
                (ratio(probed.model, expected.model), ratio(probed.compute, expected.compute));
            // Of a file that is mapped, what lies between weights counts, too.
            assert!((0.9..1.01).contains(&model), "{name}: {probed:?} {expected:?}");
            assert!((0.98..1.02).contains(&compute), "{name}: {probed:?} {expected:?}");
        }
    }
}

#[test]
fn the_longest_context_is_the_longest_that_fits() {
    let probe = ModelProbe::open(path("smollm2")).expect("it opens");
    let params = ContextParams::default().cache_types(CacheType::Turbo4, CacheType::Turbo4);
    let total = |n_ctx| probe.memory_use(&params.clone().n_ctx(n_ctx)).expect("sizes").total();
    assert_eq!(probe.longest_context(&params, total(2560)), Ok(Some(2560)));
    assert_eq!(probe.longest_context(&params, total(2560) - 1), Ok(Some(2304)));
    assert_eq!(probe.longest_context(&params, u64::MAX), Ok(Some(8192)));
    assert_eq!(probe.longest_context(&params, total(256) - 1), Ok(None));
}
