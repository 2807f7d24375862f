//! Every public function against every kind of model, in wrong orders too: each returns, with a typed error where the
//! kind does not allow it. Worth a run under AddressSanitizer (docs/development.md).

mod models;

use std::path::Path;
use std::sync::Arc;

use llama_turboquant::llama::calibrate::{CalibrateOptions, calibrate};
use llama_turboquant::llama::{
    Batch, CacheType, ChatMessage, ChatSession, ChatTemplate, Context, ContextError, ContextParams,
    DecodeError, Dry, FlashAttention, GenerateOptions, KvCalibration, KvFitKind, Lora, Model,
    ModelProbe, OutputError, Penalties, Pooling, Sampler, Token,
};

use crate::common::gguf::tokens;
use models::{Kind, N_CTX};

const POOLINGS: [Pooling; 6] =
    [Pooling::Model, Pooling::None, Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Rank];

fn params() -> ContextParams {
    ContextParams::default().n_ctx(256).n_batch(64).n_ubatch(64).n_threads(1)
}

/// What contexts are made with.
fn settings() -> Vec<ContextParams> {
    let two = || params().n_seq_max(2);
    let mut settings = vec![
        params(),
        params().flash_attention(FlashAttention::Off),
        two(),
        two().kv_unified(true),
        params().n_batch(64).n_ubatch(16),
    ];
    for pooling in POOLINGS {
        settings.push(two().kv_unified(true).embeddings(true).pooling(pooling));
        settings.push(params().pooling(pooling));
    }
    settings
}

fn each_kind(check: impl Fn(Kind, &Arc<Model>, &Path)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for kind in Kind::ALL {
        eprintln!("{kind:?}");
        check(kind, &kind.load(dir.path()), dir.path());
    }
}

fn batch(tokens: &[Token], pos: u32, seq: u32) -> Batch {
    let mut batch = Batch::new(tokens.len(), 1);
    for (pos, &token) in (pos..).zip(tokens) {
        batch.add(token, pos, &[seq], true).expect("room");
    }
    batch
}

#[test]
fn encoding_and_decoding_are_for_models_that_can() {
    each_kind(|kind, model, _| {
        assert_eq!(model.has_decoder(), kind != Kind::HalfOfT5);
        let mut context = Context::new(model, &params()).expect("a context");
        let text = batch(&tokens(5), 0, 0);
        if kind == Kind::EncoderDecoder {
            assert_eq!(context.decode(&text), Err(DecodeError::NotEncoded { seq: 0 }));
            assert_eq!(context.append(&tokens(5), 0), Err(DecodeError::NotEncoded { seq: 0 }));
        }
        let encoded = context.encode(&text);
        if !kind.encodes() {
            assert_eq!(encoded, Err(DecodeError::NoEncoder));
        } else {
            encoded.unwrap_or_else(|e| panic!("{kind:?} encodes: {e}"));
            assert_eq!(context.last_logits(), Err(OutputError::NoLogits), "{kind:?}");
        }
        context.decode(&text).unwrap_or_else(|e| panic!("{kind:?} decodes: {e}"));
        let n = if kind.remembers() { 5 } else { 0 };
        assert_eq!(context.seq_len(0), n, "{kind:?}");
        if kind.remembers() {
            let logits = context.last_logits().expect("logits");
            assert!(logits.iter().all(|logit| logit.is_finite()), "{kind:?}");
        } else {
            assert_eq!(context.last_logits(), Err(OutputError::NoLogits), "{kind:?}");
        }
    });
}

#[test]
fn a_decoder_sees_what_was_encoded_for_its_sequence() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = Kind::EncoderDecoder.load(dir.path());
    let error = Context::new(&model, &params().n_seq_max(2)).expect_err("its caches are apart");
    assert_eq!(error, ContextError::EncoderSequences { n_seq_max: 2 });
    let error = Context::new(&model, &params().embeddings(true).pooling(Pooling::Mean));
    assert_eq!(error.expect_err("the decoder needs all"), ContextError::EncoderPooling);

    let params = params().n_seq_max(2).kv_unified(true);
    let mut context = Context::new(&model, &params).expect("a context");
    context.encode(&batch(&tokens(7), 0, 1)).expect("it encodes");
    assert_eq!(context.append(&[0], 0), Err(DecodeError::NotEncoded { seq: 0 }));
    context.append(&[0], 1).expect("it decodes");
    let first = context.last_logits().expect("logits").to_vec();
    assert!(first.iter().all(|logit| logit.is_finite()));

    // Longer than the first, and of both.
    let mut both = Batch::new(40, 2);
    for (i, token) in (0..).zip(tokens(40)) {
        both.add(token, i, &[0, 1], true).expect("room");
    }
    context.clear().expect("it clears");
    context.encode(&both).expect("it encodes");
    let mut logits = |seq| {
        context.append(&[0], seq).expect("it decodes");
        context.last_logits().expect("logits").to_vec()
    };
    let [a, b] = [0, 1].map(&mut logits);
    assert_eq!(a, b);
    assert_ne!(a, first, "what it sees is what was encoded last");

    let failed = context.encode(&batch(&[], 0, 0));
    assert_eq!(failed, Err(DecodeError::Empty));
    context.append(&[0], 0).expect("what was encoded is still there");
}

#[test]
fn positions_end_where_learned_ones_do() {
    each_kind(|kind, model, _| {
        let learned = matches!(kind, Kind::LearnedPositions | Kind::Encoder);
        let n_ctx = u32::try_from(N_CTX).expect("a small number");
        let params = params().n_ctx(2 * n_ctx).n_batch(2 * n_ctx).n_ubatch(2 * n_ctx);
        let mut context = Context::new(model, &params).expect("a context");
        let text = tokens(n_ctx as usize + 1);
        if kind == Kind::EncoderDecoder {
            context.encode(&batch(&text, 0, 0)).expect("it encodes");
        }
        let whole = context.decode(&batch(&text, 0, 0));
        let expected = match learned {
            true => Err(DecodeError::Position { pos: n_ctx, n_pos: n_ctx }),
            false => Ok(()),
        };
        assert_eq!(whole, expected, "{kind:?}");
        if learned {
            context.decode(&batch(&text[..n_ctx as usize], 0, 0)).expect("it decodes");
        }
    });
}

/// Encoders have no cache, and what cannot be run by itself has none either: each says nothing, or why.
#[test]
fn scales_are_for_models_that_can_be_run() {
    each_kind(|kind, model, _| {
        let turbo = || params().cache_types(CacheType::Turbo4, CacheType::F16);
        let fitted = matches!(kind, Kind::Decoder | Kind::LearnedPositions | Kind::Hybrid);
        for params in [turbo(), turbo().embeddings(true).n_seq_max(2).kv_unified(true)] {
            let context = Context::new(model, &params).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            let kind_of_fit = context.kv_fit().map(|fit| fit.kind);
            assert_eq!(kind_of_fit, fitted.then_some(KvFitKind::Quick), "{kind:?}");
        }
        let none = [
            params(),
            params().cache_types(CacheType::Q8_0, CacheType::F16),
            turbo().kv_calibration(KvCalibration::Off),
        ];
        for params in none {
            let context = Context::new(model, &params).expect("a context");
            assert_eq!(context.kv_fit(), None, "{kind:?}");
        }
        // What is asked for is made, or refused.
        let asked = params().kv_calibration(KvCalibration::Auto);
        match Context::new(model, &asked) {
            Ok(context) => assert!(fitted && context.kv_fit().is_some(), "{kind:?}"),
            Err(error) => {
                assert!(!fitted && error.to_string().contains("key scales"), "{kind:?}: {error}");
            }
        }
    });
}

#[test]
fn any_function_in_any_order_returns() {
    each_kind(|kind, model, dir| {
        ask(model, dir);
        for (i, params) in settings().iter().enumerate() {
            match Context::new(model, params) {
                Ok(mut context) => exercise(&mut context, dir),
                Err(e) => eprintln!("{kind:?}, setting {i}: {e}"),
            }
            if let Ok(context) = Context::new(model, params) {
                chat(context);
            }
        }
    });
}

/// What models, vocabularies and samplers are asked.
fn ask(model: &Arc<Model>, dir: &Path) {
    let vocab = model.vocab();
    let _ = (model.chat_template(), model.metadata().count(), model.kv_layers(), model.n_swa());
    let _ = (model.head_dim(), model.n_embd_out(), model.description(), model.n_params());
    let _ = vocab.detokenize(&vocab.tokenize("Ab", true, true).expect("tokens"), true);
    let _ = (vocab.bos(), vocab.eot(), vocab.mask(), vocab.fim_pre(), vocab.adds_eos());
    for token in [-1, 0, 2, 258, 259] {
        let _ = (vocab.piece(token, true), vocab.text(token), vocab.is_eog(token));
    }
    let probe = ModelProbe::open(model.path()).expect("it opens");
    for params in settings() {
        let _ = probe.memory_use(&params);
    }
    let _ = probe.longest_context(&params(), 1 << 20);
    let _ = Lora::load(model, model.path());
    let out = dir.join("scales.gguf");
    let mut options = CalibrateOptions::default();
    options.n_tokens = 256;
    options.n_threads = 1;
    let _ = calibrate(model.path(), &out, &options, |_| true, |_| {});
}

fn sampler(model: &Arc<Model>) -> Sampler {
    let grammar = r#"root ::= [a-z]* | "\u00e9""#;
    Sampler::builder(model)
        .grammar(grammar, "root")
        .penalties(Penalties::default())
        .dry(&Dry { multiplier: 0.5, ..Dry::default() })
        .top_k(5)
        .dist(7)
        .expect("a sampler")
}

/// All that a context can be asked, before, between and after decodes that succeed or fail.
fn exercise(context: &mut Context, dir: &Path) {
    let text = tokens(9);
    outputs(context);
    sequences(context);
    states(context, dir);
    let _ = context.decode(&batch(&text, 0, 0));
    outputs(context);
    states(context, dir);
    let _ = context.encode(&batch(&text, 0, 0));
    outputs(context);
    let _ = context.decode(&batch(&text, 9, 0));
    let _ = context.decode(&batch(&text[..1], 3, 0));
    sequences(context);
    outputs(context);
    states(context, dir);
    shared(context);
    let _ = context.embed(&[&text[..], &text[..3], &text[..1]], true);
    outputs(context);
    let _ = context.clear();
    outputs(context);
    generate(context);
    let _ = context.encode(&batch(&text, 0, 0));
    generate(context);
    let _ = context.set_loras(&[]);
    context.set_n_threads(0, 600);
    let _ = (context.memory_use(), context.synchronize(), format!("{context:?}"));
    outputs(context);
}

fn outputs(context: &Context) {
    for index in [0, 1, 8, 70, usize::MAX] {
        let _ =
            (context.logits(index).map(<[f32]>::len), context.embedding(index).map(<[f32]>::len));
    }
    for seq in [0, 1, 2, u32::MAX] {
        let _ = context.seq_embedding(seq).map(|values| values.iter().sum::<f32>());
    }
    let _ = context.last_logits().map(|values| values.iter().sum::<f32>());
    let mut sampler = sampler(context.model());
    let _ = (sampler.sample(context), sampler.sample_at(context, 8));
    let _ = (sampler.accept(300), sampler.accept(2), sampler.accept_prompt(&[3, 999]));
    let _ = (sampler.reset(), sampler.try_clone().map(|mut clone| clone.sample(context)));
}

fn sequences(context: &mut Context) {
    let _ = (context.seq_positions(0), context.seq_len(1), context.can_shift());
    let _ = (context.seq_copy(0, 1, ..), context.seq_copy(0, 1, 2..4), context.seq_copy(1, 0, ..1));
    let _ = (context.seq_shift(0, 2.., 3), context.seq_shift(1, .., -1));
    let _ = (context.seq_remove(0, 2..4), context.seq_remove(1, 1..), context.seq_remove(2, ..));
    let _ = context.append(&tokens(2), 0);
    let _ = context.seq_keep(0);
}

fn states(context: &mut Context, dir: &Path) {
    let file = dir.join("state");
    if let Ok(state) = context.state() {
        let _ = context.set_state(&state[..state.len() / 2]);
        let _ = context.set_state(&state);
    }
    for seq in 0..2 {
        if let Ok(state) = context.seq_state(seq) {
            let _ = (context.set_seq_state(0, &state), context.set_seq_state(1, &state));
        }
        let _ = context.save_seq_state(seq, &file, &[3, 4]);
        let _ = context.load_seq_state(seq, &file);
    }
    let _ = (context.save_state(&file, &[3]), context.load_state(&file));
}

/// Tokens of several sequences at once, in unusual orders and with gaps.
fn shared(context: &mut Context) {
    for seqs in [&[0u32, 1][..], &[1, 0], &[1], &[0, 0]] {
        for positions in [[0, 1, 2], [2, 1, 0], [0, 0, 0], [100, 101, 103]] {
            let mut batch = Batch::new(6, 2);
            for pos in positions {
                batch.add(5, pos, seqs, pos == 1).expect("room");
                batch.add(6, pos, &[0], pos == 2).expect("room");
            }
            let _ = (context.encode(&batch), context.decode(&batch));
            outputs(context);
        }
        let _ = context.clear();
    }
}

fn generate(context: &mut Context) {
    let mut sampler = sampler(context.model());
    let options = || GenerateOptions::default().max_tokens(3).logprobs(2);
    let _ = context.generate(&tokens(4), &mut sampler, options()).text();
    let _ = context.generate(&[], &mut sampler, options().sequence(1)).text();
    let _ = context.generate(&tokens(4), &mut sampler, options().sequence(9)).text();
}

fn chat(context: Context) {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let template = ChatTemplate::new(context.model(), source).expect("a template");
    let mut sampler = Sampler::greedy(context.model()).expect("a sampler");
    let mut chat = ChatSession::new(context, template, vec![ChatMessage::system("Be brief.")]);
    for _ in 0..2 {
        let _ = chat.ask("Ab?", &mut sampler, GenerateOptions::default().max_tokens(3), |_| {});
    }
    chat.clear();
}

#[test]
fn logits_and_embeddings_are_those_of_the_kind() {
    each_kind(|kind, model, _| {
        let params = params().embeddings(true).pooling(Pooling::None);
        let mut context = Context::new(model, &params).expect("a context");
        let text = batch(&tokens(4), 0, 0);
        if kind.encodes() {
            context.encode(&text).expect("it encodes");
        } else {
            context.decode(&text).expect("it decodes");
        }
        let embedding = context.embedding(3).expect("an embedding");
        assert_eq!(embedding.len(), 128);
        assert!(embedding.iter().any(|&x| x != 0.0), "{kind:?}");
        assert!(embedding.iter().all(|x| x.is_finite()), "{kind:?}");
        // Of classification heads, which none of these has.
        let rank = Context::new(model, &self::params().embeddings(true).pooling(Pooling::Rank));
        assert!(rank.is_err(), "{kind:?}");
    });
}
