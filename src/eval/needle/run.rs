//! Asking.

use std::sync::Arc;

use super::trial::{Haystack, Question, haystacks};
use super::{NeedleCell, NeedleError, NeedleOptions, NeedlePair, NeedleTrial};
use crate::eval::divergence::Prediction;
use crate::eval::run::Progress;
use crate::eval::settings::N_UBATCH;
use crate::llama::{
    Batch, CachePolicy, Context, GenerateOptions, Model, Sampler, Token, VocabError,
};

/// Tokens that an answer may have more than the right one.
const MORE: usize = 4;

/// Asks for needles in haystacks made of `text`, with each pair of types for K and V.
///
/// A haystack is decoded from an empty cache, and copied for each question about it. `progress` is told of tokens, and
/// returns whether to go on. What cannot be asked is found before anything is run. Errors: [`NeedleError`].
pub fn needle(
    model: &Arc<Model>,
    text: &str,
    pairs: &[(CachePolicy, CachePolicy)],
    options: &NeedleOptions,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<Vec<NeedlePair>, NeedleError> {
    if pairs.is_empty() {
        return Err(NeedleError::Nothing { what: "pairs of types" });
    }
    options.cache.check(model, pairs)?;
    let options = &without_repetitions(options);
    let haystacks = haystacks(model, text, options)?;
    let longest = haystacks.iter().map(Haystack::len).max().unwrap_or(0);
    let of_one = |haystack: &Haystack| {
        let questions = haystack.questions.iter().map(|q| q.rest.len() + q.answer.len());
        haystack.prefix.len() + questions.sum::<usize>()
    };
    let total = pairs.len() * haystacks.iter().map(of_one).sum::<usize>();
    let mut done = 0;
    let mut step = |n: usize| {
        done += n;
        if progress(Progress { done, total }) { Ok(()) } else { Err(NeedleError::Stopped) }
    };

    let mut results = Vec::with_capacity(pairs.len());
    for (k, v) in pairs {
        let mut context = Context::new(model, &options.cache.params(longest + MORE, k, v))?;
        let mut reader = Reader { k, v, context: &mut context };
        let mut cells = cells(options);
        for haystack in &haystacks {
            let state = reader.read(&haystack.prefix, &mut step)?;
            for question in &haystack.questions {
                let trial = reader.ask(haystack.prefix.len(), question, &state)?;
                let of_question = |cell: &&mut NeedleCell| {
                    (cell.mode, cell.length, cell.depth)
                        == (haystack.mode, haystack.length, question.depth)
                };
                let cell = cells.iter_mut().find(of_question).expect("a cell of each question");
                cell.trials.push(trial);
                step(question.rest.len() + question.answer.len())?;
            }
        }
        results.push(NeedlePair { k: k.clone(), v: v.clone(), cells });
    }
    Ok(results)
}

/// Each mode, length and depth once.
fn without_repetitions(options: &NeedleOptions) -> NeedleOptions {
    fn once<T: PartialEq + Copy>(values: &[T]) -> Vec<T> {
        let is_first = |(i, value): &(usize, &T)| !values[..*i].contains(value);
        values.iter().enumerate().filter(is_first).map(|(_, value)| *value).collect()
    }
    NeedleOptions {
        modes: once(&options.modes),
        lengths: once(&options.lengths),
        depths: once(&options.depths),
        ..options.clone()
    }
}

/// Cells without trials.
fn cells(options: &NeedleOptions) -> Vec<NeedleCell> {
    let mut cells = Vec::new();
    for &mode in &options.modes {
        for &length in &options.lengths {
            let cell = |&depth| NeedleCell { mode, length, depth, trials: Vec::new() };
            cells.extend(options.depths.iter().map(cell));
        }
    }
    cells
}

/// A context with a pair of types.
struct Reader<'a> {
    k: &'a CachePolicy,
    v: &'a CachePolicy,
    context: &'a mut Context,
}

impl Reader<'_> {
    /// Decodes a text from an empty cache, and returns what the context then remembers.
    fn read(
        &mut self,
        tokens: &[Token],
        step: &mut impl FnMut(usize) -> Result<(), NeedleError>,
    ) -> Result<Vec<u8>, NeedleError> {
        self.context.clear()?;
        for part in tokens.chunks(N_UBATCH as usize) {
            self.context.append(part, 0)?;
            step(part.len())?;
        }
        Ok(self.context.seq_state(0)?)
    }

    /// Asks a question behind a text of `n` tokens.
    fn ask(
        &mut self,
        n: usize,
        question: &Question,
        state: &[u8],
    ) -> Result<NeedleTrial, NeedleError> {
        let (rest, answer) = (&question.rest, &question.answer);
        self.context.set_seq_state(0, state)?;
        let mut batch = Batch::new(rest.len() + answer.len(), 1);
        for (i, &token) in rest.iter().chain(answer).enumerate() {
            let pos = u32::try_from(n + i).unwrap_or(u32::MAX);
            batch.add(token, pos, &[0], i + 1 >= rest.len())?;
        }
        self.context.decode(&batch)?;
        let mut log_prob = 0.0;
        let mut right = true;
        for (i, &token) in answer.iter().enumerate() {
            let prediction = self.prediction(rest.len() - 1 + i)?;
            let token = token.unsigned_abs() as usize;
            log_prob += prediction.log_prob(token) / answer.len() as f64;
            right &= prediction.top() == token;
        }
        let next = self.prediction(rest.len() - 1 + answer.len())?.top();
        let ends = !self.begins_with_digit(next)?;
        let code = &question.secret.code;
        // What is most likely token by token is then known.
        let answer = match right && ends {
            true => code.clone(),
            false => self.answer(question, state)?,
        };
        Ok(NeedleTrial {
            n_prompt: n + rest.len(),
            name: question.secret.name.into(),
            code: code.clone(),
            answer,
            log_prob,
        })
    }

    fn prediction(&self, index: usize) -> Result<Prediction<'_>, NeedleError> {
        let error = || NeedleError::NotANumber { k: self.k.clone(), v: self.v.clone() };
        Prediction::new(self.context.logits(index)?).ok_or_else(error)
    }

    fn begins_with_digit(&self, token: usize) -> Result<bool, VocabError> {
        let token = Token::try_from(token).unwrap_or(Token::MAX);
        let piece = self.context.model().vocab().piece(token, false)?;
        Ok(piece.first().is_some_and(u8::is_ascii_digit))
    }

    /// What the model answers: its first digits, or all of it if it has none.
    fn answer(&mut self, question: &Question, state: &[u8]) -> Result<String, NeedleError> {
        self.context.set_seq_state(0, state)?;
        let mut sampler = Sampler::greedy(self.context.model())?;
        let options = GenerateOptions::default().max_tokens(question.answer.len() + MORE);
        let text = self.context.generate(&question.rest, &mut sampler, options).text()?;
        Ok(digits(&text).to_owned())
    }
}

/// The first digits of a text, or all of it if it has none.
fn digits(text: &str) -> &str {
    let text = text.trim();
    let Some(begin) = text.find(|c: char| c.is_ascii_digit()) else { return text };
    let rest = &text[begin..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    &rest[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_repetitions() {
        let mut options = NeedleOptions::default();
        (options.lengths, options.depths) = (vec![512, 256, 512], vec![50.0, 50.0, 0.0]);
        let places: Vec<_> = cells(&without_repetitions(&options))
            .iter()
            .map(|cell| (cell.mode.name(), cell.length, cell.depth))
            .collect();
        assert_eq!(places.len(), 8);
        assert_eq!(
            places[..3],
            [("single", 512, 50.0), ("single", 512, 0.0), ("single", 256, 50.0)]
        );
        assert_eq!(places[4].0, "multi");
    }

    #[test]
    fn an_answer_is_its_first_digits() {
        assert_eq!(digits(" 1234567.\n89"), "1234567");
        assert_eq!(digits("the code 12"), "12");
        assert_eq!(digits(" not known. "), "not known.");
        assert_eq!(digits(""), "");
    }
}
