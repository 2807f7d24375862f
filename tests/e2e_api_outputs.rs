//! The safe API's embeddings, adapters and sizes, on SmolLM2.
#![cfg(feature = "llama")]

mod common;

use std::path::Path;
use std::sync::Arc;

use llama_turboquant::llama::CacheType::{F16, Turbo3, Turbo4};
use llama_turboquant::llama::{
    Batch, Context, ContextParams, DecodeError, EmbedError, KvAnchors, KvCalibration, Lora,
    LoraError, Model, OutputError, Pooling,
};

use common::TEXT;
use common::api::{context, params, smollm2, tokens};
use common::gguf_file::{Gguf, Tensor, string};
use common::stats::kld;

fn embedding_params() -> ContextParams {
    params().embeddings(true).n_seq_max(4).kv_unified(true)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn pooled_embeddings_are_those_of_their_texts() {
    let texts: Vec<_> =
        ["The cat sat on the mat.", "A kitten was sitting on the rug.", TEXT, "It is."]
            .map(tokens)
            .into();
    let poolings = [Pooling::Mean, Pooling::Last, Pooling::Cls];
    for (pooling, unified) in poolings.into_iter().flat_map(|p| [(p, true), (p, false)]) {
        let mut context = context(&embedding_params().pooling(pooling).kv_unified(unified));
        let together = context.embed(&texts, true).expect("embeddings");
        assert_eq!(context.seq_positions(0), None);
        for (text, embedding) in texts.iter().zip(&together) {
            assert_eq!(embedding.len(), 576);
            assert!((dot(embedding, embedding) - 1.0).abs() < 1e-4);
            let alone = context.embed(&[text], true).expect("embeddings").remove(0);
            assert!(dot(&alone, embedding) > 0.99, "{pooling:?}: {}", dot(&alone, embedding));
        }
        if pooling == Pooling::Mean {
            let [cat, kitten, long, _] = &together[..] else { unreachable!() };
            assert!(dot(cat, kitten) > dot(cat, long), "texts alike are near each other");
        }
    }
}

#[test]
fn the_pooled_embedding_is_the_mean_of_the_tokens() {
    let text = tokens("The cat sat on the mat.");
    let mut batch = Batch::new(text.len(), 1);
    for (pos, &token) in (0..).zip(&text) {
        batch.add(token, pos, &[0], true).expect("room");
    }
    let mut by_token = context(&embedding_params().pooling(Pooling::None));
    by_token.decode(&batch).expect("it decodes");
    let mut mean = vec![0.0; 576];
    for i in 0..text.len() {
        let embedding = by_token.embedding(i).expect("an embedding");
        mean.iter_mut().zip(embedding).for_each(|(m, e)| *m += e / text.len() as f32);
    }
    assert_eq!(by_token.seq_embedding(0), Err(OutputError::NotPooled));
    let mut pooled = context(&embedding_params().pooling(Pooling::Mean));
    let embedding = pooled.embed(&[&text], false).expect("embeddings").remove(0);
    let difference: f32 = mean.iter().zip(&embedding).map(|(a, b)| (a - b).abs()).sum();
    assert!(difference < 1e-2 * dot(&mean, &mean).sqrt() * 24.0, "{difference}");
}

#[test]
fn embeddings_that_are_not_there_are_errors() {
    let text = tokens("The cat");
    let mut none = context(&params());
    none.append(&text, 0).expect("it decodes");
    assert_eq!(none.embedding(1), Err(OutputError::NoEmbeddings));
    assert_eq!(none.embed(&[&text], true), Err(EmbedError::Output(OutputError::NoEmbeddings)));

    let mut pooled = context(&embedding_params().pooling(Pooling::Mean).n_ubatch(64));
    assert_eq!(pooled.seq_embedding(0), Err(OutputError::None { index: 0 }));
    let long = vec![5; 65];
    let error = pooled.embed(&[&text, &long], true);
    assert_eq!(error, Err(EmbedError::TooLong { index: 1, n_tokens: 65, max: 64 }));
    assert_eq!(pooled.embed(&[&text, &vec![]], true), Err(EmbedError::Decode(DecodeError::Empty)));
    pooled.embed(&[&text], true).expect("embeddings");
    assert_eq!(pooled.embedding(0), Err(OutputError::Pooled));
    assert_eq!(pooled.seq_embedding(3), Err(OutputError::None { index: 3 }));
}

/// An adapter of rank 2 on the first layer's queries and the last one's output.
fn write_lora(path: &Path, n_embd: u64) {
    let text = |s: &str| [&8u32.to_le_bytes()[..], &string(s)].concat();
    let float = |x: f32| [6u32.to_le_bytes(), x.to_le_bytes()].concat();
    let metadata = [
        ("general.type", text("adapter")),
        ("general.architecture", text("llama")),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", float(2.0)),
    ];
    let wave = |n: u64| (0..n).map(|i| (i as f32 * 0.7).sin() * 0.6);
    let tensors = ["blk.0.attn_q", "blk.29.attn_output"].into_iter().flat_map(|name| {
        [
            Tensor::f32(format!("{name}.weight.lora_a"), vec![n_embd, 2], wave(2 * n_embd)),
            Tensor::f32(format!("{name}.weight.lora_b"), vec![2, n_embd], wave(2 * n_embd)),
        ]
    });
    let metadata = metadata.map(|(key, value)| (key.to_string(), value)).into();
    Gguf { metadata, tensors: tensors.collect() }.write(path);
}

fn logits(context: &mut Context) -> Vec<f32> {
    context.clear().expect("it clears");
    context.append(&tokens(TEXT), 0).expect("it decodes");
    context.last_logits().expect("logits").to_vec()
}

#[test]
fn adapters_change_what_a_context_computes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("lora.gguf");
    write_lora(&path, 576);
    let lora = Lora::load(smollm2(), &path).expect("it loads");
    assert_eq!(lora.meta("adapter.type").as_deref(), Some("lora"));
    let (mut context, mut other) = (context(&params()), context(&params()));
    let plain = logits(&mut context);
    context.set_loras(&[(Arc::clone(&lora), 1.0)]).expect("it is set");
    let changed = logits(&mut context);
    assert!(kld(&plain, &changed) > 0.01, "KLD {}", kld(&plain, &changed));
    assert_eq!(logits(&mut other), plain, "other contexts are as they were");
    context.set_loras(&[(Arc::clone(&lora), 0.0)]).expect("it is set");
    assert_eq!(logits(&mut context), plain);
    context.set_loras(&[(lora, 1.0)]).expect("it is set");
    assert_eq!(logits(&mut context), changed, "the context keeps the adapter");
    context.set_loras(&[]).expect("it is removed");
    assert_eq!(logits(&mut context), plain);
}

/// Scales are those of the base model, and as exact with an adapter as without. Weights are quantized, which makes of
/// the last bits of a key some 0.003.
#[test]
fn adapters_and_scales_go_together() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("lora.gguf");
    write_lora(&path, 576);
    let lora = Lora::load(smollm2(), &path).expect("it loads");
    let [off, auto] = [KvCalibration::Off, KvCalibration::Auto].map(|calibration| {
        let mut context = context(&params().kv_calibration(calibration));
        context.set_loras(&[(Arc::clone(&lora), 1.0)]).expect("it is set");
        (context.kv_fit().is_some(), logits(&mut context))
    });
    assert_eq!((off.0, auto.0), (false, true));
    assert!(kld(&off.1, &auto.1) < 0.02, "KLD {}", kld(&off.1, &auto.1));
    // By default a turbo context has the same.
    let fit = |params: &ContextParams| context(params).kv_fit().map(|fit| fit.id);
    let turbo = fit(&params().cache_types(Turbo4, Turbo3));
    assert!(turbo.is_some() && turbo == fit(&params().kv_calibration(KvCalibration::Auto)));
}

#[test]
fn adapters_that_do_not_fit_are_errors() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let load = |path: &Path| Lora::load(smollm2(), path).expect_err("it does not fit");
    let wrong = dir.path().join("wrong.gguf");
    write_lora(&wrong, 128);
    let error = load(&wrong);
    assert!(
        matches!(&error, LoraError::Load { reason, .. } if reason.contains("shape")),
        "{error}"
    );
    let error = load(&dir.path().join("none.gguf"));
    assert!(matches!(&error, LoraError::Load { reason, .. } if reason.contains("open")), "{error}");
    let error = load(&common::models::path("smollm2"));
    assert!(
        matches!(&error, LoraError::Load { reason, .. } if reason.contains("adapter")),
        "{error}"
    );

    let path = dir.path().join("lora.gguf");
    write_lora(&path, 576);
    let again = Model::load(common::models::path("smollm2")).expect("it loads");
    let other = Lora::load(&again, &path).expect("it loads");
    let lora = Lora::load(smollm2(), &path).expect("it loads");
    let mut context = context(&params());
    assert_eq!(context.set_loras(&[(other, 1.0)]), Err(LoraError::OtherModel));
    let nan = context.set_loras(&[(Arc::clone(&lora), f32::NAN)]);
    assert!(matches!(nan, Err(LoraError::Scale { .. })));
    assert_eq!(context.set_loras(&[(Arc::clone(&lora), 1.0), (lora, 2.0)]), Err(LoraError::Twice));
}

#[test]
fn sizes_of_keys_and_values_are_told_apart() {
    let values = 30 * 192 * 512; // layers, values of all heads, cells
    let used = |params: &ContextParams| context(params).memory_use().expect("sizes");
    let f16 = used(&params());
    assert_eq!((f16.k, f16.v, f16.state), (values * 2, values * 2, 0));
    assert!(f16.model >= smollm2().size() && f16.compute > 0, "{f16:?}");

    let turbo = params().cache_types(Turbo4, Turbo3);
    let without = used(&turbo.clone().kv_anchors(KvAnchors::Off));
    assert_eq!((without.k, without.v), (values * 34 / 64, values * 26 / 64));
    let with = used(&turbo);
    assert_eq!(
        (with.k - without.k, with.v),
        (values / 64 * 2, without.v),
        "an F16 vector per 64 cells"
    );
    assert_eq!(with.kv(), with.k + with.v);
    assert_eq!(used(&params().cache_types(F16, Turbo3)).v, without.v);
}
