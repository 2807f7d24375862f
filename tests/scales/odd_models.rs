//! Quick fits of models that are out of the ordinary: each is made, or there is none for a stated reason.

use std::path::Path;
use std::sync::Arc;

use super::common::gguf::{
    N_VOCAB, Tiny, boolean, float, floats, ints, text, texts, uint, uints, write_random,
    write_tiny_model,
};
use super::common::gguf_file::{Gguf, Tensor};
use super::{make_new, new_model, normalise_heads, params, turbo4};
use llama_turboquant::llama::{
    CacheType, Context, ContextParams, KvCalibration, KvFit, KvFitKind, Model,
};

fn fit(model: &Arc<Model>, params: &ContextParams) -> Option<KvFit> {
    let mut context = Context::new(model, params).expect("a context");
    context.append(&[5, 6, 7], 0).expect("it decodes");
    context.kv_fit()
}

/// A model of a test's own, from what `write` and `change` make of a file.
fn written(write: impl FnOnce(&Path), change: impl FnOnce(&mut Gguf)) -> Arc<Model> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    write(&path);
    make_new(&path, change);
    Model::builder(&path).mmap(false).load().expect("the model loads")
}

/// The default has none, and what is asked for is refused with all of `words`.
#[track_caller]
fn assert_none(model: &Arc<Model>, params: ContextParams, words: &[&str]) {
    assert_eq!(Context::new(model, &params).expect("a context").kv_fit(), None);
    let asked = params.kv_calibration(KvCalibration::Auto);
    let error = Context::new(model, &asked).expect_err("refused").to_string();
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

#[track_caller]
fn assert_quick(model: &Arc<Model>, what: &str) {
    assert_eq!(fit(model, &turbo4()).map(|fit| fit.kind), Some(KvFitKind::Quick), "{what}");
}

fn tiny(model: Tiny) -> impl FnOnce(&Path) {
    move |path| write_tiny_model(path, model)
}

#[test]
fn short_training_contexts_are_run_whole() {
    for (n, enough) in [(1, false), (127, false), (128, true), (200, true), (257, true)] {
        let model = written(tiny(Tiny::new(64)), |file| file.set("llama.context_length", uint(n)));
        match enough {
            true => assert_quick(&model, &format!("{n} tokens")),
            false => assert_none(&model, turbo4(), &["128 are needed", &format!("has {n}")]),
        }
    }
}

#[test]
fn every_head_dim_that_is_rotated_is_fitted() {
    for head_dim in [40, 64, 80, 96, 112, 128, 192, 256, 512] {
        let model = written(tiny(Tiny::new(head_dim)), |_| ());
        assert_quick(&model, &format!("head_dim {head_dim}"));
    }
}

/// Nor do the weights of norms help keys that are not rotated. Measured with heads of 96, K of q4_0 and scales: 0.26 for 0.13.
#[test]
fn keys_that_are_not_rotated_have_none() {
    for norms in [false, true] {
        let model = written(tiny(Tiny::new(96)), |file| {
            if norms {
                normalise_heads(file, 96);
            }
        });
        let q8_0 = || params().cache_types(CacheType::Q8_0, CacheType::F16);
        let possible = q8_0().kv_calibration(KvCalibration::IfPossible);
        assert_eq!(fit(&model, &possible), None, "with norms: {norms}");
        assert_none(&model, q8_0(), &["head_dim 96", "multiple of 64"]);
        // Nothing is lost in floats, and padded keys are rotated.
        let f16 = params().cache_types(CacheType::F16, CacheType::F16);
        for good in [f16.kv_calibration(KvCalibration::Auto), turbo4()] {
            assert_eq!(fit(&model, &good).map(|fit| fit.kind), Some(KvFitKind::Quick));
        }
    }
}

/// Heads of KV and of queries differ between layers, and one layer has none.
#[test]
fn layers_may_differ_in_heads() {
    let (n, ff, head_dim) = (128, 64, 64);
    let heads = [(2, 2), (2, 1), (0, 0), (4, 2)];
    let model = written(
        |path| {
            let keys = vec![
                ("context_length", uint(512)),
                ("embedding_length", uint(n)),
                ("block_count", uint(4)),
                ("feed_forward_length", uint(ff)),
                ("attention.head_count", uints(heads.map(|(q, _)| q))),
                ("attention.head_count_kv", uints(heads.map(|(_, kv)| kv))),
                ("attention.key_length", uint(head_dim)),
                ("attention.value_length", uint(head_dim)),
                ("rope.dimension_count", uint(head_dim)),
                ("attention.layer_norm_rms_epsilon", float(1e-5)),
            ];
            let mut tensors =
                vec![("token_embd".to_string(), vec![n, N_VOCAB]), ("output_norm".into(), vec![n])];
            for (il, (q, kv)) in heads.into_iter().enumerate() {
                let mut layer = |name: &str, shape: Vec<u64>| {
                    tensors.push((format!("blk.{il}.{name}"), shape));
                };
                let (q, kv) = (u64::from(q) * head_dim, u64::from(kv) * head_dim);
                if kv > 0 {
                    layer("attn_norm", vec![n]);
                    layer("attn_q", vec![n, q]);
                    layer("attn_k", vec![n, kv]);
                    layer("attn_v", vec![n, kv]);
                    layer("attn_output", vec![q, n]);
                }
                layer("ffn_norm", vec![n]);
                layer("ffn_gate", vec![n, ff]);
                layer("ffn_up", vec![n, ff]);
                layer("ffn_down", vec![ff, n]);
            }
            let tensor = |(name, shape)| (format!("{name}.weight"), shape, 0.3);
            write_random(path, "deci", keys, tensors.into_iter().map(tensor));
        },
        |_| (),
    );
    let fit = fit(&model, &turbo4()).expect("key scales");
    let file = Gguf::read(&fit.source.expect("a file"));
    let shapes: Vec<_> = file
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.shape.get(1).copied().unwrap_or(1)))
        .collect();
    assert_eq!(shapes, [("blk.0.k_scale", 2), ("blk.1.k_scale", 1), ("blk.3.k_scale", 2)]);
}

/// nemotron_h: a layer recurs, attends or feeds forward, and the last may have heads by the metadata.
#[test]
fn layers_that_feed_forward_have_no_keys() {
    let (n, ff, heads) = (128, 64, [0, 2, 2]);
    let (inner, state, ssm_heads) = (2 * n, 16, 4);
    let model = written(
        |path| {
            let keys = vec![
                ("context_length", uint(512)),
                ("embedding_length", uint(n)),
                ("block_count", uint(3)),
                ("feed_forward_length", uints([0, 0, ff as u32])),
                ("attention.head_count", uint(2)),
                ("attention.head_count_kv", uints(heads)),
                ("attention.key_length", uint(n / 2)),
                ("attention.value_length", uint(n / 2)),
                ("attention.layer_norm_epsilon", float(1e-5)),
                ("attention.layer_norm_rms_epsilon", float(1e-5)),
                ("ssm.conv_kernel", uint(4)),
                ("ssm.inner_size", uint(inner)),
                ("ssm.state_size", uint(state)),
                ("ssm.time_step_rank", uint(ssm_heads)),
                ("ssm.group_count", uint(1)),
            ];
            let conv = inner + 2 * state;
            let mut tensors = vec![
                ("token_embd.weight".to_string(), vec![n, N_VOCAB]),
                ("output_norm.weight".into(), vec![n]),
            ];
            let layers: [&[(&str, &[u64])]; 3] = [
                &[
                    ("ssm_in.weight", &[n, inner + conv + ssm_heads]),
                    ("ssm_conv1d.weight", &[4, conv]),
                    ("ssm_conv1d.bias", &[conv]),
                    ("ssm_dt.bias", &[ssm_heads]),
                    ("ssm_a", &[1, ssm_heads]),
                    ("ssm_d", &[1, ssm_heads]),
                    ("ssm_norm.weight", &[inner, 1]),
                    ("ssm_out.weight", &[inner, n]),
                ],
                &[
                    ("attn_q.weight", &[n, n]),
                    ("attn_k.weight", &[n, n]),
                    ("attn_v.weight", &[n, n]),
                    ("attn_output.weight", &[n, n]),
                ],
                &[("ffn_up.weight", &[n, ff]), ("ffn_down.weight", &[ff, n])],
            ];
            for (il, layer) in layers.into_iter().enumerate() {
                tensors.push((format!("blk.{il}.attn_norm.weight"), vec![n]));
                let layer =
                    layer.iter().map(|(name, shape)| (format!("blk.{il}.{name}"), shape.to_vec()));
                tensors.extend(layer);
            }
            let tensor = |(name, shape)| (name, shape, 0.3);
            write_random(path, "nemotron_h", keys, tensors.into_iter().map(tensor));
        },
        |_| (),
    );
    assert_eq!(model.kv_layers().iter().map(|layer| layer.layer).collect::<Vec<_>>(), [1]);
    assert_quick(&model, "nemotron_h");
}

/// Of gemma2 the first layer alone, which has the window.
#[test]
fn models_of_windows_alone_are_fitted() {
    let model = written(tiny(Tiny { softcap: 1.0, ..Tiny::new(64) }), |file| {
        file.set("gemma2.block_count", uint(1));
        file.tensors.retain(|tensor| !tensor.name.starts_with("blk.1."));
    });
    assert!(model.kv_layers().iter().all(|layer| layer.sliding_window));
    assert_quick(&model, "windows");
}

#[test]
fn numbers_that_are_none_are_not_fitted_to() {
    let model = written(tiny(Tiny::new(64)), |file| {
        let weights = &mut file.tensor("blk.0.attn_k.weight").data;
        weights[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_none(&model, turbo4(), &["NaN"]);
}

/// A vocabulary of unigrams with these tokens after the special ones.
fn unigrams<'a>(file: &mut Gguf, tokens: impl Iterator<Item = &'a str>) {
    let special = ["<pad>", "</s>", "<unk>"];
    let mut all: Vec<String> = special.into_iter().chain(tokens).map(String::from).collect();
    all.extend((all.len() as u64..N_VOCAB).map(|i| format!("<unused{i}>")));
    let types = (0..all.len()).map(|i| [3, 3, 2].get(i).copied().unwrap_or(1));
    file.set("tokenizer.ggml.model", text("t5"));
    file.set("tokenizer.ggml.token_type", ints(types));
    file.set("tokenizer.ggml.scores", floats((0..all.len()).map(|_| -1.0)));
    file.set("tokenizer.ggml.tokens", texts(&all));
    file.metadata.retain(|(key, _)| key != "tokenizer.ggml.bos_token_id");
    file.set("tokenizer.ggml.eos_token_id", uint(1));
}

const LETTERS: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x", "y", "z",
];

/// llama.cpp aborts when it shall add a token that the vocabulary lacks.
#[test]
fn a_vocabulary_may_lack_the_token_that_begins_a_text() {
    let model = written(tiny(Tiny::new(64)), |file| {
        unigrams(file, LETTERS.into_iter().chain(["▁", "."]));
        file.set("tokenizer.ggml.add_bos_token", boolean(true));
    });
    assert_quick(&model, "no BOS");
}

/// Nothing is to be learnt of a row of unknown tokens.
#[test]
fn vocabularies_that_are_not_for_texts_have_none() {
    let model = written(tiny(Tiny::new(64)), |file| {
        unigrams(file, ["A", "C", "G", "T", "N", "▁", "e", "a"].into_iter());
    });
    assert_none(&model, turbo4(), &["not made for texts", "turboquant calibrate -f"]);
}

#[test]
fn a_vocabulary_that_cannot_spell_the_text_is_named() {
    let model = written(tiny(Tiny::new(64)), |file| {
        let tokens = (0..N_VOCAB).map(|i| format!("{}", i + 100));
        file.set("tokenizer.ggml.tokens", texts(tokens));
        file.set("tokenizer.ggml.token_type", ints((0..N_VOCAB).map(|_| 1)));
    });
    assert_none(&model, turbo4(), &["no tokens for some of the text's characters"]);
}

/// How weights are loaded changes nothing.
#[test]
fn fits_are_the_same_whatever_the_way_of_loading() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    new_model(&path, |_| ());
    let mapped = Model::builder(&path).mmap(true).load().expect("the model loads");
    let read = Model::builder(&path).mmap(false).n_gpu_layers(0).load().expect("the model loads");
    let first = fit(&mapped, &turbo4().n_threads(1)).expect("key scales");
    std::fs::remove_file(first.source.as_ref().expect("a file")).expect("our file");
    // Another process would fit anew; this one would remember.
    let out = dir.path().join("scales.gguf");
    let mut options = super::n_tokens(256);
    options.n_gpu_layers = Some(0);
    super::calibrate(&path, &out, &options, |_| true, |_| ()).expect("a calibration");
    let of_file = turbo4().kv_calibration(KvCalibration::File(out));
    assert_eq!(fit(&read, &of_file).map(|fit| fit.id), Some(first.id));
}

/// The scales of weights are a part of their quantization.
#[test]
fn scales_of_weights_are_not_in_the_fingerprint() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [plain, scaled] = ["plain.gguf", "scaled.gguf"].map(|name| dir.path().join(name));
    new_model(&plain, |_| ());
    let mut file = Gguf::read(&plain);
    for name in ["blk.0.attn_q.scale", "blk.0.ffn_up.input_scale"] {
        file.tensors.push(Tensor::f32(name.into(), vec![1], [1.0].into_iter()));
    }
    file.write(&scaled);
    let fits = [&plain, &scaled].map(|path| {
        let model = Model::load(path).expect("the model loads");
        fit(&model, &turbo4()).expect("key scales")
    });
    assert_eq!(fits[0], fits[1]);
}

/// OLMo's norms have no weights: models of its shape have the same vectors, namely none.
#[test]
fn models_without_vectors_are_told_apart_by_name() {
    let olmo = |name: &str| {
        written(tiny(Tiny::new(64)), |file| {
            file.set_arch("llama", "olmo");
            file.set("general.name", text(name));
            file.set("olmo.attention.layer_norm_epsilon", float(1e-5));
            file.tensors.retain(|tensor| !tensor.name.ends_with("norm.weight"));
        })
    };
    let [a, b] = ["OLMo one", "OLMo two"]
        .map(|name| fit(&olmo(name), &turbo4()).expect("key scales").source.expect("a file"));
    assert_ne!(a, b);
}
