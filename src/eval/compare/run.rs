//! Generating and feeding.

use std::sync::Arc;

use super::{CompareError, CompareOptions, Divergence, PairRun};
use crate::eval::divergence::{Compared, Prediction, Summary};
use crate::eval::room;
use crate::eval::run::Progress;
use crate::llama::{
    CachePolicy, CacheType, Context, Finish, GenerateOptions, Model, Sampler, SamplerError,
    Timings, Token, Utf8Stream, VocabError,
};

/// Generates text behind a prompt with each pair of types for K and V, of which the first is the reference, and feeds
/// the reference's tokens to each: what it would have said in each place, beside the reference.
///
/// All of it is decoded as a program does, token by token. The reference's logits are kept: `n_predict * n_vocab`
/// floats. `progress` is told of each token, and returns whether to go on. Errors: [`CompareError`].
pub fn compare(
    model: &Arc<Model>,
    prompt: &[Token],
    pairs: &[(CachePolicy, CachePolicy)],
    options: &CompareOptions,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<Vec<PairRun>, CompareError> {
    match (pairs, prompt, options.n_predict) {
        ([] | [_], ..) => return Err(CompareError::Pairs { n: pairs.len() }),
        (_, [], _) => return Err(CompareError::Empty),
        (.., 0) => return Err(CompareError::NoTokens),
        _ => options.cache.check(model, pairs)?,
    }
    room::check(options.n_predict, model.vocab().n_tokens())?;
    let n_ctx = prompt.len() + options.n_predict;
    let f16 = CachePolicy::new(CacheType::F16);
    let f16 = Context::new(model, &options.cache.plain().params(n_ctx, &f16, &f16))?;
    let f16_bytes = f16.memory_use()?.kv() as f64;
    drop(f16);

    let mut base: Vec<Vec<f32>> = Vec::new();
    let mut runs: Vec<PairRun> = Vec::new();
    for (i, (k, v)) in pairs.iter().enumerate() {
        // Half of a pair's steps are its own text, half the reference's.
        let total = 2 * pairs.len() * options.n_predict;
        let mut step = |part: usize, n: usize| {
            progress(Progress { done: (2 * i + part) * options.n_predict + n, total })
        };
        let plain = i == 0 && !k.has_exceptions() && !k.base().is_quantized();
        let cache = if plain { options.cache.plain() } else { options.cache.clone() };
        let mut context = Context::new(model, &cache.params(n_ctx, k, v))?;
        let memory = context.memory_use()?;
        let fit = context.kv_fit();
        let own = generate(&mut context, prompt, options, |n| step(0, n))?;

        let expected = runs.first().map_or(&own.tokens, |reference| &reference.tokens);
        let mut places = Vec::with_capacity(expected.len());
        feed(&mut context, prompt, expected, |place, logits| {
            if !step(1, place) {
                return Err(CompareError::Stopped);
            }
            if i == 0 {
                base.push(logits.to_vec());
            }
            let error = || CompareError::NotANumber { k: k.clone(), v: v.clone() };
            let reference = Prediction::new(&base[place]).ok_or_else(error)?;
            let other = Prediction::new(logits).ok_or_else(error)?;
            let token = expected[place].unsigned_abs() as usize;
            places.push(Compared::new(&reference, &other, token));
            Ok(())
        })?;
        runs.push(PairRun {
            divergence: divergence(model, expected, &own.tokens)?,
            summary: Summary::new(&places).expect("a text has a token or more"),
            k: k.clone(),
            v: v.clone(),
            tokens: own.tokens,
            text: own.text,
            finish: own.finish,
            places,
            tokens_per_second: own.timings.decode_per_second(),
            memory,
            fit,
            bits_per_value: 16.0 * memory.kv() as f64 / f16_bytes,
        });
    }
    Ok(runs)
}

/// What a pair generates by itself.
struct Own {
    tokens: Vec<Token>,
    text: String,
    finish: Finish,
    timings: Timings,
}

/// `step` is told of each token, and returns whether to go on.
fn generate(
    context: &mut Context,
    prompt: &[Token],
    options: &CompareOptions,
    mut step: impl FnMut(usize) -> bool,
) -> Result<Own, CompareError> {
    let mut sampler = sampler(context.model(), options)?;
    let mut n = 0;
    let settings = GenerateOptions::default().max_tokens(options.n_predict).cancel(|| {
        n += 1;
        !step(n - 1)
    });
    let mut generation = context.generate(prompt, &mut sampler, settings);
    let text = generation.text()?;
    match generation.finish().cloned() {
        None | Some(Finish::Cancelled) => Err(CompareError::Stopped),
        Some(finish) => Ok(Own {
            tokens: generation.tokens().to_vec(),
            text,
            finish,
            timings: generation.timings(),
        }),
    }
}

/// Draws as `turboquant run` does by default.
fn sampler(model: &Arc<Model>, options: &CompareOptions) -> Result<Sampler, SamplerError> {
    if options.temperature <= 0.0 {
        return Sampler::greedy(model);
    }
    let steps = Sampler::builder(model).top_k(40).top_p(0.95, 1).min_p(0.05, 1);
    steps.temperature(options.temperature).dist(options.seed)
}

/// Decodes a prompt and tokens behind it into an empty context; `at` gets the logits before each of them.
fn feed(
    context: &mut Context,
    prompt: &[Token],
    tokens: &[Token],
    mut at: impl FnMut(usize, &[f32]) -> Result<(), CompareError>,
) -> Result<(), CompareError> {
    context.clear()?;
    context.append(prompt, 0)?;
    for (place, token) in tokens.iter().enumerate() {
        at(place, context.last_logits()?)?;
        if place + 1 < tokens.len() {
            context.append(&[*token], 0)?;
        }
    }
    Ok(())
}

/// Both end at a token that ends texts, or are of the same length.
fn divergence(
    model: &Model,
    expected: &[Token],
    found: &[Token],
) -> Result<Option<Divergence>, VocabError> {
    let Some(index) = expected.iter().zip(found).position(|(a, b)| a != b) else {
        return Ok(None);
    };
    let vocab = model.vocab();
    let mut same = Vec::new();
    expected[..index].iter().try_for_each(|&token| vocab.piece_into(token, false, &mut same))?;
    let text = |token: Token| Ok::<_, VocabError>(readable(vocab.piece(token, true)?));
    Ok(Some(Divergence {
        index,
        byte: Utf8Stream::new().push(&same).len(),
        expected: text(expected[index])?,
        found: text(found[index])?,
    }))
}

/// A token's text; bytes, where it is a part of a character.
fn readable(piece: Vec<u8>) -> String {
    let bytes = |piece: Vec<u8>| piece.iter().map(|byte| format!("<0x{byte:02X}>")).collect();
    String::from_utf8(piece).unwrap_or_else(|e| bytes(e.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_are_bytes() {
        assert_eq!(readable(" é".into()), " é");
        assert_eq!(readable(vec![0xe2, 0x82]), "<0xE2><0x82>");
    }
}
