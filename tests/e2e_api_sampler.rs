//! The safe API's samplers, on SmolLM2.
#![cfg(feature = "llama")]

mod common;

use std::collections::HashSet;

use llama_turboquant::llama::{
    Context, Dry, OutputError, Penalties, Sampler, SamplerBuilder, SamplerError,
};

use common::api::{context, params, smollm2, tokens};
use common::stats::argmax;

const YES_OR_NO: &str = "root ::= \"yes\" | \"no\"";

fn builder() -> SamplerBuilder {
    Sampler::builder(smollm2())
}

/// A context that has read a sentence that may go on in many ways.
fn read() -> Context {
    let mut context = context(&params());
    context.append(&tokens("My favourite thing in the world is"), 0).expect("it decodes");
    context
}

fn logits(context: &Context) -> Vec<f32> {
    context.last_logits().expect("logits").to_vec()
}

/// Tokens that a sampler chooses from the same logits again and again.
fn draws(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<i32> {
    (0..n).map(|_| sampler.sample_logits(logits).expect("a token")).collect()
}

#[test]
fn greedy_takes_the_most_likely() {
    let context = read();
    let best = argmax(&logits(&context));
    let mut alone = Sampler::greedy(smollm2()).expect("a sampler");
    let mut in_chain = builder().top_k(5).greedy().expect("a sampler");
    let mut one = builder().top_k(1).dist(7).expect("a sampler");
    let mut cold = builder().temperature(0.0).dist(7).expect("a sampler");
    for sampler in [&mut alone, &mut in_chain, &mut one, &mut cold] {
        assert_eq!(sampler.sample(&context), Ok(best));
        assert_eq!(sampler.sample_at(&context, 6), Ok(best));
        let error = SamplerError::Output(OutputError::None { index: 5 });
        assert_eq!(sampler.sample_at(&context, 5), Err(error));
    }
}

#[test]
fn seeds_decide_what_is_drawn() {
    let logits = logits(&read());
    let new = |seed| builder().temperature(1.5).dist(seed).expect("a sampler");
    let (mut a, mut b) = (new(1), new(1));
    let drawn = draws(&mut a, &logits, 20);
    assert_eq!(draws(&mut b, &logits, 20), drawn);
    assert_ne!(draws(&mut new(2), &logits, 20), drawn);
    // A clone goes on as its source, and a reset one begins anew.
    let mut clone = a.try_clone().expect("a clone");
    assert_eq!(draws(&mut clone, &logits, 20), draws(&mut a, &logits, 20));
    a.reset().expect("it resets");
    assert_eq!(draws(&mut a, &logits, 20), drawn);
}

#[test]
fn every_step_leaves_tokens_to_draw() {
    let logits = logits(&read());
    let dry = Dry { multiplier: 0.8, ..Dry::default() };
    let steps: [(&str, SamplerBuilder); 10] = [
        ("top_k", builder().top_k(40)),
        ("top_p", builder().top_p(0.9, 1)),
        ("min_p", builder().min_p(0.05, 1)),
        ("typical", builder().typical(0.9, 1)),
        ("top_n_sigma", builder().top_n_sigma(1.0)),
        ("xtc", builder().xtc(1.0, 0.1, 1, 3)),
        ("dynamic_temperature", builder().dynamic_temperature(1.0, 0.5, 1.0)),
        ("penalties", builder().penalties(Penalties { repeat: 1.1, ..Penalties::default() })),
        ("dry", builder().dry(&dry)),
        (
            "all",
            builder()
                .dry(&dry)
                .top_k(100)
                .typical(0.9, 1)
                .top_p(0.9, 1)
                .min_p(0.01, 1)
                .temperature(0.7),
        ),
    ];
    for (name, step) in steps {
        let drawn = draws(&mut step.dist(5).expect(name), &logits, 30);
        assert!(drawn.iter().all(|token| (0..49152).contains(token)), "{name}: {drawn:?}");
    }
    for mut sampler in [
        builder().temperature(0.9).mirostat(5, 5.0, 0.1, 100).expect("a sampler"),
        builder().temperature(0.9).mirostat_v2(5, 5.0, 0.1).expect("a sampler"),
    ] {
        let drawn: HashSet<_> = draws(&mut sampler, &logits, 30).into_iter().collect();
        assert!(drawn.len() > 3, "{drawn:?}");
    }
}

#[test]
fn penalties_count_prompts_and_answers() {
    let logits = logits(&read());
    let best = argmax(&logits);
    let penalties = Penalties { presence: 100.0, ..Penalties::default() };
    let mut sampler = builder().penalties(penalties).greedy().expect("a sampler");
    let drawn = draws(&mut sampler, &logits, 10);
    assert_eq!((drawn[0], drawn.iter().collect::<HashSet<_>>().len()), (best, 10));
    sampler.reset().expect("it resets");
    sampler.accept_prompt(&[best]).expect("it counts");
    assert_eq!(draws(&mut sampler, &logits, 1), drawn[1..2]);
}

#[test]
fn biases_forbid_tokens() {
    let logits = logits(&read());
    let best = argmax(&logits);
    let mut sampler =
        builder().logit_bias(&[(best, f32::NEG_INFINITY)]).greedy().expect("a sampler");
    assert_ne!(draws(&mut sampler, &logits, 1), [best]);
    let all: Vec<_> = (0..49152).map(|token| (token, f32::NEG_INFINITY)).collect();
    let mut none = builder().logit_bias(&all).dist(1).expect("a sampler");
    assert_eq!(none.sample_logits(&logits), Err(SamplerError::NoCandidate));
}

#[test]
fn grammars_decide_what_is_possible() {
    let context = read();
    let vocab = smollm2().vocab();
    for mut sampler in [
        builder().grammar(YES_OR_NO, "root").greedy().expect("a sampler"),
        builder().temperature(2.0).grammar(YES_OR_NO, "root").dist(3).expect("a sampler"),
    ] {
        let mut text = Vec::new();
        while let Ok(token) = sampler.sample(&context) {
            if vocab.is_eog(token) {
                break;
            }
            vocab.piece_into(token, false, &mut text).expect("a piece");
        }
        assert!(text == b"yes" || text == b"no", "{}", String::from_utf8_lossy(&text));
    }
    let mut sampler = builder().grammar(YES_OR_NO, "root").greedy().expect("a sampler");
    let maybe = tokens("maybe")[0];
    assert_eq!(sampler.accept(maybe), Err(SamplerError::Rejected { token: maybe }));
    let end = vocab.eos().expect("an end");
    assert_eq!(sampler.accept(end), Err(SamplerError::Rejected { token: end }), "it is not over");
    sampler.accept(tokens("yes")[0]).expect("it may begin so");
    sampler.accept_prompt(&[maybe]).expect("a prompt is no answer");
}

#[test]
fn bad_grammars_are_errors() {
    let new = |grammar, root| builder().grammar(grammar, root).greedy().expect_err("it is bad");
    for (grammar, root) in [
        ("root ::= \"a", "root"),
        ("root ::= nowhere", "root"),
        ("root := \"a\"", "root"),
        ("root ::= \"a\"", "start"),
        ("root ::= root \"a\" | \"b\"", "root"),
        ("  ", "root"),
    ] {
        let error = new(grammar, root);
        assert!(
            matches!(&error, SamplerError::Grammar { reason } if !reason.is_empty()),
            "{grammar}: {error}"
        );
    }
    let error = new("root ::= nowhere", "root").to_string();
    assert!(error.contains("nowhere"), "{error}");
    assert_eq!(new("a\0b", "root"), SamplerError::Nul { name: "grammar" });
}

#[test]
fn numbers_are_checked() {
    let error = builder().temperature(f32::NAN).top_k(3).dist(1).expect_err("no number");
    assert!(matches!(error, SamplerError::Number { name: "temperature", .. }), "{error}");
    let penalties = Penalties { repeat: 0.0, ..Penalties::default() };
    let error = builder().penalties(penalties).greedy().expect_err("no factor");
    assert_eq!(error, SamplerError::Number { name: "penalties", value: 0.0 });
    let error = builder().logit_bias(&[(49152, 1.0)]).greedy().expect_err("no token");
    assert_eq!(error, SamplerError::Token { token: 49152, n_tokens: 49152 });
    let error = builder().logit_bias(&[(1, f32::INFINITY)]).greedy().expect_err("no bias");
    assert!(matches!(error, SamplerError::Number { name: "logit_bias", .. }), "{error}");

    let mut sampler = Sampler::greedy(smollm2()).expect("a sampler");
    assert_eq!(sampler.accept(-1), Err(SamplerError::Token { token: -1, n_tokens: 49152 }));
    assert_eq!(
        sampler.sample_logits(&[0.0; 7]),
        Err(SamplerError::Logits { n: 7, n_tokens: 49152 })
    );
    let mut logits = vec![0.0; 49152];
    logits[5] = f32::NAN;
    assert_eq!(sampler.sample_logits(&logits), Err(SamplerError::NotANumber));
    assert_eq!(sampler.sample_logits(&[f32::NEG_INFINITY; 49152]), Err(SamplerError::NoCandidate));
}
