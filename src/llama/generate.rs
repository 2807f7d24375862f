//! Generating text.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::chat_prompt::ChatPrompt;
use super::context::Context;
use super::error::{DecodeError, GenerateError};
use super::logprobs::TokenLogprob;
use super::sampler::Sampler;
use super::stop::{Stopped, Stops};
use super::timings::Timings;
use super::utf8::Utf8Stream;
use super::{SeqId, Token};

/// When to stop, and what to tell of each token.
///
/// ```
/// use llama_turboquant::llama::GenerateOptions;
///
/// let options = GenerateOptions::default().max_tokens(64).stop("\n\n");
/// ```
#[must_use]
pub struct GenerateOptions<'a> {
    seq: SeqId,
    max_tokens: usize,
    stops: Vec<String>,
    special: bool,
    preserved: Vec<Token>,
    ignore_eog: bool,
    logprobs: Option<usize>,
    cancel: Option<Box<dyn FnMut() -> bool + 'a>>,
}

impl Default for GenerateOptions<'_> {
    fn default() -> Self {
        Self {
            seq: 0,
            max_tokens: usize::MAX,
            stops: Vec::new(),
            special: false,
            preserved: Vec::new(),
            ignore_eog: false,
            logprobs: None,
            cancel: None,
        }
    }
}

impl<'a> GenerateOptions<'a> {
    /// The sequence that prompt and answer are appended to. Default: 0.
    pub fn sequence(self, seq: SeqId) -> Self {
        Self { seq, ..self }
    }

    /// Tokens at most. Default: until the model ends, or the context is full, which is an error.
    pub fn max_tokens(self, n: usize) -> Self {
        Self { max_tokens: n, ..self }
    }

    /// A text to stop at, which is not part of the answer; one more with each call.
    pub fn stop(mut self, stop: impl Into<String>) -> Self {
        self.stops.push(stop.into());
        self
    }

    /// Whether special tokens are part of the text. Default: no.
    pub fn special(self, special: bool) -> Self {
        Self { special, ..self }
    }

    /// Special tokens that are part of the text all the same; more with each call. Default: none.
    pub fn preserve(mut self, tokens: impl IntoIterator<Item = Token>) -> Self {
        self.preserved.extend(tokens);
        self
    }

    /// What the answer to a prompt needs: its stop strings, and the tokens of its syntax in the text.
    pub fn chat(mut self, prompt: &ChatPrompt) -> Self {
        self.stops.extend_from_slice(prompt.stops());
        self.preserve(prompt.preserved_tokens().iter().copied())
    }

    /// Whether to go on behind the tokens that end a generation. Default: no.
    pub fn ignore_eog(self, ignore: bool) -> Self {
        Self { ignore_eog: ignore, ..self }
    }

    /// Tells the log-probability of each token, and those of the `n_top` most likely ones in its place. They are
    /// the model's, before the sampler. Default: no.
    pub fn logprobs(self, n_top: usize) -> Self {
        Self { logprobs: Some(n_top), ..self }
    }

    /// Is asked before each token whether to stop. What is set from other threads may be an
    /// [`AtomicBool`](std::sync::atomic::AtomicBool): `cancel(|| flag.load(Ordering::Relaxed))`. To stop while a
    /// prompt is decoded there is [`Context::abort_flag`].
    pub fn cancel<'b>(self, cancel: impl FnMut() -> bool + 'b) -> GenerateOptions<'b>
    where
        'a: 'b,
    {
        GenerateOptions { cancel: Some(Box::new(cancel)), ..self }
    }
}

impl GenerateOptions<'_> {
    /// [`GenerateOptions::max_tokens`], if less than `n`.
    pub(super) fn max_tokens_or(&self, n: usize) -> usize {
        self.max_tokens.min(n)
    }

    /// No more tokens than `n`.
    pub(super) fn at_most(self, n: usize) -> Self {
        let max_tokens = self.max_tokens_or(n);
        Self { max_tokens, ..self }
    }
}

impl fmt::Debug for GenerateOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateOptions")
            .field("seq", &self.seq)
            .field("max_tokens", &self.max_tokens)
            .field("stops", &self.stops)
            .finish_non_exhaustive()
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// The model ended it, by this token.
    EndOfGeneration(Token),
    /// A stop string.
    Stop(String),
    /// As many tokens as were asked for.
    MaxTokens,
    /// [`GenerateOptions::cancel`] or [`Context::abort_flag`].
    Cancelled,
    /// An error, which the iterator has returned.
    Error,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Piece {
    /// Whole characters, in no stop string. Empty only with log-probabilities.
    pub text: String,
    /// One per token since the last piece, if they were asked for. Of a token whose text is held back they come
    /// before it.
    pub logprobs: Vec<TokenLogprob>,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A text that is being generated: an iterator over its pieces.
///
/// The context has the prompt and all tokens of the answer but the last, which is not decoded.
pub struct Generation<'a> {
    context: &'a mut Context,
    sampler: &'a mut Sampler,
    options: GenerateOptions<'a>,
    /// The prompt, until it is decoded.
    prompt: Vec<Token>,
    tokens: Vec<Token>,
    utf8: Utf8Stream,
    stops: Stops,
    bytes: Vec<u8>,
    timings: Timings,
    begin: Option<Instant>,
    finish: Option<Finish>,
}

impl Context {
    /// Generates text behind a prompt, which is appended to what the sequence has; nothing is done before the first
    /// piece is asked for.
    ///
    /// The iterator's errors: [`GenerateError`].
    ///
    /// ```no_run
    /// # use llama_turboquant::llama::{Context, ContextParams, GenerateOptions, Model, Sampler};
    /// # let model = Model::load("model.gguf")?;
    /// # let mut context = Context::new(&model, &ContextParams::default())?;
    /// let prompt = model.vocab().tokenize("The capital of France is", true, false)?;
    /// let mut sampler = Sampler::greedy(&model)?;
    /// for piece in context.generate(&prompt, &mut sampler, GenerateOptions::default().max_tokens(32)) {
    ///     print!("{}", piece?);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate<'a>(
        &'a mut self,
        prompt: &[Token],
        sampler: &'a mut Sampler,
        options: GenerateOptions<'a>,
    ) -> Generation<'a> {
        Generation {
            stops: Stops::new(&options.stops),
            context: self,
            sampler,
            options,
            prompt: prompt.to_vec(),
            tokens: Vec::new(),
            utf8: Utf8Stream::new(),
            bytes: Vec::new(),
            timings: Timings::default(),
            begin: None,
            finish: None,
        }
    }
}

impl Generation<'_> {
    /// The tokens that were chosen so far, with the one that ended it.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Why it ended; None: it has not.
    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// What it took so far.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// All pieces that are left in one text. Errors: [`GenerateError`]; what was generated before is lost.
    pub fn text(&mut self) -> Result<String, GenerateError> {
        self.try_fold(String::new(), |text, piece| Ok(text + &piece?.text))
    }

    /// Generates tokens until there is a piece to return.
    fn piece(&mut self) -> Result<Piece, GenerateError> {
        let mut piece = Piece::default();
        let begin = *self.begin.get_or_insert_with(Instant::now);
        while self.finish.is_none() {
            if self.is_over() {
                break;
            }
            match self.decode() {
                Ok(()) => {}
                Err(DecodeError::Aborted) => {
                    self.finish = Some(Finish::Cancelled);
                    break;
                }
                Err(e) => return Err(e.into()),
            }
            let sampling = Instant::now();
            let token = self.sampler.sample(self.context)?;
            self.timings.sample += sampling.elapsed();
            if let Some(n_top) = self.options.logprobs {
                piece.logprobs.push(TokenLogprob::new(self.context.last_logits()?, token, n_top));
            }
            self.tokens.push(token);
            self.timings.to_first_token.get_or_insert_with(|| begin.elapsed());
            self.take(token, &mut piece.text)?;
            if !piece.text.is_empty() || !piece.logprobs.is_empty() {
                return Ok(piece);
            }
        }
        // Behind a stop string there is nothing; else what was held back is text.
        if !matches!(self.finish, Some(Finish::Stop(_) | Finish::Error)) {
            let rest = self.utf8.finish();
            self.push(&rest, &mut piece.text);
            piece.text.push_str(&self.stops.finish());
        }
        Ok(piece)
    }

    /// Whether to stop before the next token.
    fn is_over(&mut self) -> bool {
        let cancelled = self.options.cancel.as_mut().is_some_and(|cancel| cancel());
        if cancelled || self.context.abort_flag().load(Ordering::Relaxed) {
            self.finish = Some(Finish::Cancelled);
        } else if self.tokens.len() >= self.options.max_tokens {
            self.finish = Some(Finish::MaxTokens);
        }
        self.finish.is_some()
    }

    /// Decodes what the next token follows on: the prompt, then the last token.
    fn decode(&mut self) -> Result<(), DecodeError> {
        let start = Instant::now();
        match self.tokens.last() {
            None => {
                let prompt = std::mem::take(&mut self.prompt);
                self.context.append(&prompt, self.options.seq)?;
                self.context.synchronize()?;
                self.timings.n_prompt = prompt.len();
                self.timings.prompt = start.elapsed();
                // Out of range they would not have been decoded.
                let _ = self.sampler.accept_prompt(&prompt);
            }
            Some(&token) => {
                self.context.append(&[token], self.options.seq)?;
                self.context.synchronize()?;
                self.timings.n_decoded += 1;
                self.timings.decode += start.elapsed();
            }
        }
        Ok(())
    }

    /// Adds a token's text.
    fn take(&mut self, token: Token, text: &mut String) -> Result<(), GenerateError> {
        let vocab = self.context.model().vocab();
        let special = self.options.special || self.options.preserved.contains(&token);
        if vocab.is_eog(token) && !self.options.ignore_eog {
            self.finish = Some(Finish::EndOfGeneration(token));
            if !special {
                return Ok(());
            }
        }
        self.bytes.clear();
        vocab.piece_into(token, special, &mut self.bytes)?;
        let new = self.utf8.push(&self.bytes);
        self.push(&new, text);
        Ok(())
    }

    /// Adds text, as far as it may not be of a stop string.
    fn push(&mut self, new: &str, text: &mut String) {
        match self.stops.push(new) {
            Stopped::No(new) => text.push_str(&new),
            Stopped::By(new, stop) => {
                text.push_str(&new);
                self.finish = Some(Finish::Stop(stop));
            }
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.piece() {
            Ok(piece) if piece == Piece::default() => None,
            Err(e) => {
                self.finish = Some(Finish::Error);
                Some(Err(e))
            }
            piece => Some(piece),
        }
    }
}

impl fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("tokens", &self.tokens.len())
            .field("finish", &self.finish)
            .finish_non_exhaustive()
    }
}
