//! What is decoded: haystacks and the questions about them.

use std::sync::Arc;

use super::haystack::{Hay, largest};
use super::secret::{self, N_KEYS_MAX, Secret};
use super::{NeedleError, NeedleMode, NeedleOptions};
use crate::llama::{Model, Token, Vocab, VocabError};

/// A haystack, and what is asked.
pub struct Haystack {
    pub mode: NeedleMode,
    pub length: u32,
    /// What all questions begin with: the haystack itself, mostly.
    pub prefix: Vec<Token>,
    pub questions: Vec<Question>,
}

/// One question.
pub struct Question {
    /// 0 to 100.
    pub depth: f64,
    pub secret: Secret,
    /// What comes behind the prefix, a token at least.
    pub rest: Vec<Token>,
    /// The right answer.
    pub answer: Vec<Token>,
}

impl Haystack {
    /// Tokens with the longest question and its answer.
    pub fn len(&self) -> usize {
        let question = |q: &Question| q.rest.len() + q.answer.len();
        self.prefix.len() + self.questions.iter().map(question).max().unwrap_or(0)
    }
}

/// All haystacks, by mode, length, trial and, in mode single, depth.
pub fn haystacks(
    model: &Arc<Model>,
    text: &str,
    options: &NeedleOptions,
) -> Result<Vec<Haystack>, NeedleError> {
    check(model, options)?;
    let vocab = model.vocab();
    let count =
        |text: &str| -> Result<usize, VocabError> { Ok(vocab.tokenize(text, false, false)?.len()) };
    let hay = Hay::new(text, count)?.ok_or(NeedleError::EmptyText)?;
    let mut all = Vec::new();
    for &mode in &options.modes {
        for &length in &options.lengths {
            for trial in 0..options.n_trials {
                match mode {
                    NeedleMode::Single => {
                        for depth in options.depths.chunks(1) {
                            all.push(haystack(vocab, &hay, options, depth, mode, length, trial)?);
                        }
                    }
                    NeedleMode::Multi => {
                        let depths = &options.depths;
                        all.push(haystack(vocab, &hay, options, depths, mode, length, trial)?);
                    }
                }
            }
        }
    }
    Ok(all)
}

fn check(model: &Arc<Model>, options: &NeedleOptions) -> Result<(), NeedleError> {
    let n_depths = options.depths.len();
    for (what, n) in [
        ("lengths", options.lengths.len()),
        ("depths", n_depths),
        ("modes", options.modes.len()),
        ("trials", options.n_trials),
    ] {
        if n == 0 {
            return Err(NeedleError::Nothing { what });
        }
    }
    if let Some(&depth) = options.depths.iter().find(|depth| !(0.0..=100.0).contains(*depth)) {
        return Err(NeedleError::Depth { depth });
    }
    let n_keys = options.n_keys;
    if options.modes.contains(&NeedleMode::Multi) && !(n_depths..=N_KEYS_MAX).contains(&n_keys) {
        return Err(NeedleError::Keys { n_keys, n_depths, max: N_KEYS_MAX });
    }
    let n_ctx_train = model.n_ctx_train();
    match options.lengths.iter().find(|&&length| length > n_ctx_train && !options.beyond) {
        Some(&length) => Err(NeedleError::Beyond { length, n_ctx_train }),
        None if model.vocab().adds_eos() => Err(NeedleError::AddsEos),
        None => Ok(()),
    }
}

/// A haystack with secrets at these depths, 0 to 100, of each of which is asked.
fn haystack(
    vocab: Vocab<'_>,
    hay: &Hay,
    options: &NeedleOptions,
    depths: &[f64],
    mode: NeedleMode,
    length: u32,
    trial: usize,
) -> Result<Haystack, NeedleError> {
    let mut rng = secret::rng(options.seed, mode, length, trial);
    let start = (rng.next_u64() % hay.len() as u64) as usize;
    let fractions: Vec<f64> = depths.iter().map(|depth| depth / 100.0).collect();
    let n_keys = if mode == NeedleMode::Multi { options.n_keys } else { 1 };
    let secrets = secret::draw(&mut rng, n_keys);
    let places = secret::spread(&fractions, n_keys);
    let needles: Vec<_> = places.into_iter().zip(secrets.iter().map(Secret::sentence)).collect();

    // The longest prompt of `n` sentences.
    let prompts = |n: usize| -> Result<Vec<Vec<Token>>, VocabError> {
        let text = hay.with_needles(start, n, &needles);
        let asked = secrets.iter().take(depths.len());
        let prompt =
            |secret: &Secret| vocab.tokenize(&(text.clone() + &secret.question()), true, false);
        asked.map(prompt).collect()
    };
    let longest = |prompts: &[Vec<Token>]| prompts.iter().map(Vec::len).max().unwrap_or(0);
    let fits = |n| -> Result<bool, VocabError> { Ok(longest(&prompts(n)?) <= length as usize) };
    let Some(n) = largest(fits)? else {
        return Err(NeedleError::TooShort { length, needed: longest(&prompts(1)?), mode });
    };

    let text = hay.with_needles(start, n, &needles);
    let mut asked = Vec::new();
    for (&depth, secret) in depths.iter().zip(&secrets) {
        let prompt = text.clone() + &secret.question();
        let with_answer = vocab.tokenize(&(prompt.clone() + &secret.answer()), true, false)?;
        // Where the answer's first letters are of a token with the prompt's last, that is part of the answer.
        let prompt = vocab.tokenize(&prompt, true, false)?;
        let answer = common(&prompt, &with_answer);
        asked.push((depth, secret, with_answer, answer));
    }
    let of_all = |n: usize, other: &(_, _, Vec<Token>, usize)| n.min(common(&asked[0].2, &other.2));
    let shared = asked.iter().fold(usize::MAX, of_all);
    // A token of each question is left to decode.
    let shared = asked.iter().fold(shared, |n, (.., answer)| n.min(answer - 1));
    let question = |(depth, secret, tokens, answer): &(f64, &Secret, Vec<Token>, usize)| Question {
        depth: *depth,
        secret: (*secret).clone(),
        rest: tokens[shared..*answer].to_vec(),
        answer: tokens[*answer..].to_vec(),
    };
    Ok(Haystack {
        mode,
        length,
        prefix: asked[0].2[..shared].to_vec(),
        questions: asked.iter().map(question).collect(),
    })
}

/// Tokens that both begin with.
fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
