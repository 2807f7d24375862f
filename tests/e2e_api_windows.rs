//! The safe API over two caches in one, on Gemma 3: layers with a sliding window have one of their own.
#![cfg(feature = "llama")]

mod common;

use llama_turboquant::llama::CacheType::{Q8_0, Turbo3, Turbo4};
use llama_turboquant::llama::{
    CachePolicy, Context, ContextParams, GenerateOptions, Model, Sampler,
};

use common::TEXT;
use common::models::path;
use common::stats::kld;

#[test]
fn windows_are_decoded_copied_saved_and_shifted() {
    let model = Model::load(path("gemma")).expect("it loads");
    assert_eq!((model.n_layer(), model.head_dim(), model.n_swa()), (18, 256, 512));
    assert_eq!(model.kv_layers().iter().filter(|layer| !layer.sliding_window).count(), 3);

    let k = CachePolicy::new(Turbo4).first(1, Q8_0);
    let params = ContextParams::default().n_ctx(4096).n_seq_max(2).cache_types(k, Turbo3);
    let small = Context::new(&model, &params.clone().swa_full(false)).expect("a context");
    let mut context = Context::new(&model, &params).expect("a context");
    let [all, window] = [&context, &small].map(|c| c.memory_use().expect("sizes"));
    assert!(window.k < all.k && window.v < all.v && window.v > 0, "{window:?} {all:?}");

    let tokens = model.vocab().tokenize(TEXT, true, false).expect("tokens");
    context.append(&tokens, 0).expect("it decodes");
    context.seq_copy(0, 1, ..).expect("a copy");
    let state = context.state().expect("a state");
    let mut restored = Context::new(&model, &params).expect("a context");
    restored.set_state(&state).expect("it is restored");

    let next = |context: &mut Context, seq| {
        let last = &tokens[tokens.len() - 1..];
        context.append(last, seq).expect("it decodes");
        context.last_logits().expect("logits").to_vec()
    };
    let logits = next(&mut context, 0);
    assert_eq!(next(&mut context, 1), logits);
    assert_eq!(next(&mut restored, 0), logits);

    // A shift that waits is in the state.
    context.seq_remove(0, 10..30).expect("it is removed");
    context.seq_shift(0, 30.., -20).expect("it shifts");
    restored.set_state(&context.state().expect("a state")).expect("it is restored");
    let kld = kld(&next(&mut context, 0), &next(&mut restored, 0));
    assert!(kld < 0.05, "KLD {kld}");

    // A cleared context is as a new one.
    context.clear().expect("it clears");
    let mut new = Context::new(&model, &params).expect("a context");
    let [cleared, new] = [&mut context, &mut new].map(|context| {
        let mut sampler = Sampler::greedy(&model).expect("a sampler");
        let options = GenerateOptions::default().max_tokens(8);
        context.generate(&tokens, &mut sampler, options).text().expect("a text")
    });
    assert_eq!(cleared, new);
    assert!(cleared.contains("Lisbon"), "{cleared}");
}
