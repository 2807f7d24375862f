//! The safe API's generation of text, on SmolLM2.
#![cfg(feature = "llama")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use llama_turboquant::llama::CacheType::{Turbo3, Turbo4};
use llama_turboquant::llama::{DecodeError, Finish, GenerateError, GenerateOptions, Sampler};

use common::api::{context, params, smollm2, tokens};
use common::stats::argmax;

const PROMPT: &str = "The capital of France is";

fn greedy() -> Sampler {
    Sampler::greedy(smollm2()).expect("a sampler")
}

/// The text that some options generate greedily, and why it ended.
fn generate(prompt: &str, options: GenerateOptions<'_>) -> (String, Finish) {
    let (mut context, mut sampler) = (context(&params()), greedy());
    let mut generation = context.generate(&tokens(prompt), &mut sampler, options);
    let text = generation.text().expect("a text");
    (text, generation.finish().expect("it has ended").clone())
}

#[test]
fn a_generation_is_what_decoding_step_by_step_yields() {
    let mut by_hand = context(&params().cache_types(Turbo4, Turbo3));
    let mut expected = Vec::new();
    let mut next = tokens(PROMPT);
    for _ in 0..24 {
        by_hand.append(&next, 0).expect("it decodes");
        next = vec![argmax(by_hand.last_logits().expect("logits"))];
        expected.extend(&next);
    }
    let mut context = context(&params().cache_types(Turbo4, Turbo3));
    let mut sampler = greedy();
    let options = GenerateOptions::default().max_tokens(24).ignore_eog(true);
    let mut generation = context.generate(&tokens(PROMPT), &mut sampler, options);
    let pieces: Vec<String> =
        generation.by_ref().map(|piece| piece.expect("a piece").text).collect();
    assert_eq!(generation.tokens(), expected);
    assert_eq!(generation.finish(), Some(&Finish::MaxTokens));
    assert!(generation.next().is_none(), "over is over");
    assert_eq!(Ok(pieces.concat()), smollm2().vocab().detokenize(&expected, false));
    assert!(pieces.concat().starts_with(" Paris"), "{}", pieces.concat());

    let timings = generation.timings();
    assert_eq!((timings.n_prompt, timings.n_decoded), (5, 23));
    assert!(timings.prompt_per_second() > 0.0 && timings.decode_per_second() > 0.0);
    assert!(timings.to_first_token.expect("there is one") >= timings.prompt);
    // All but the last token are in the context.
    drop(generation);
    assert_eq!(context.seq_len(0), 5 + 23);
}

#[test]
fn stop_strings_end_it_wherever_they_are() {
    let (whole, _) = generate(PROMPT, GenerateOptions::default().max_tokens(24));
    for (from, to) in [(0, 3), (4, 9), (10, 25), (8, 9)] {
        let stop = &whole[from..to];
        let options = GenerateOptions::default().max_tokens(24).stop("never that").stop(stop);
        let (text, finish) = generate(PROMPT, options);
        assert_eq!(
            (text.as_str(), finish),
            (&whole[..whole.find(stop).expect("it is")], Finish::Stop(stop.into()))
        );
    }
    // What looks like one and is none is text.
    let (from, to) = (whole.len() - 4, whole.len());
    let options = GenerateOptions::default().max_tokens(24).stop(format!("{}?", &whole[from..to]));
    assert_eq!(generate(PROMPT, options), (whole, Finish::MaxTokens));
}

#[test]
fn pieces_are_whole_characters() {
    const TEXT: &str = "世界, 👩‍🚀 é!";
    let (mut context, prompt) = (context(&params()), tokens("Say:"));
    let grammar = format!("root ::= \"{TEXT}\"");
    let mut sampler =
        Sampler::builder(smollm2()).grammar(&grammar, "root").greedy().expect("a sampler");
    let mut generation = context.generate(&prompt, &mut sampler, GenerateOptions::default());
    let pieces: Vec<String> =
        generation.by_ref().map(|piece| piece.expect("a piece").text).collect();
    assert_eq!(pieces.concat(), TEXT);
    assert!(matches!(generation.finish(), Some(Finish::EndOfGeneration(_))));
    assert!(generation.tokens().len() > pieces.len() + 1, "a character of several tokens");
}

#[test]
fn it_is_cancelled_between_tokens_and_within_a_prompt() {
    let flag = AtomicBool::new(false);
    let mut n = 0;
    let cancel = || {
        n += 1;
        flag.store(n > 3, Ordering::Relaxed);
        flag.load(Ordering::Relaxed)
    };
    let (mut context, mut sampler) = (context(&params()), greedy());
    let mut generation =
        context.generate(&tokens(PROMPT), &mut sampler, GenerateOptions::default().cancel(cancel));
    generation.text().expect("a text");
    assert_eq!((generation.tokens().len(), generation.finish()), (3, Some(&Finish::Cancelled)));
    drop(generation);

    let abort = context.abort_flag();
    abort.store(true, Ordering::Relaxed);
    let mut generation = context.generate(&[5; 100], &mut sampler, GenerateOptions::default());
    assert_eq!(generation.text().as_deref(), Ok(""));
    assert_eq!(generation.finish(), Some(&Finish::Cancelled));
}

#[test]
fn logprobs_are_those_of_the_model() {
    let (mut context, mut sampler) = (context(&params()), greedy());
    let options = GenerateOptions::default().max_tokens(8).logprobs(3);
    let mut generation = context.generate(&tokens(PROMPT), &mut sampler, options);
    let pieces: Vec<_> = generation.by_ref().map(|piece| piece.expect("a piece")).collect();
    let logprobs: Vec<_> = pieces.iter().flat_map(|piece| &piece.logprobs).collect();
    assert_eq!(logprobs.iter().map(|l| l.token).collect::<Vec<_>>(), generation.tokens());
    for l in logprobs {
        assert!(l.logprob <= 0.0 && l.top.len() == 3, "{l:?}");
        assert_eq!(l.top[0], (l.token, l.logprob), "greedy takes the likeliest");
        assert!(l.top.is_sorted_by(|a, b| a.1 >= b.1), "{l:?}");
    }
}

#[test]
fn errors_end_it() {
    let (mut small, mut sampler) = (context(&params().n_ctx(256)), greedy());
    let options = GenerateOptions::default().ignore_eog(true);
    let mut generation = small.generate(&[5; 250], &mut sampler, options);
    let error = generation.text().expect_err("the context is full");
    assert_eq!(error, GenerateError::Decode(DecodeError::NoRoom { n_tokens: 1, n_ctx: 256 }));
    assert_eq!((generation.tokens().len(), generation.finish()), (7, Some(&Finish::Error)));
    assert!(generation.next().is_none());
    drop(generation);

    let mut generation = small.generate(&[], &mut sampler, GenerateOptions::default());
    assert_eq!(generation.next(), Some(Err(GenerateError::Decode(DecodeError::Empty))));
    assert!(generation.next().is_none());
}
