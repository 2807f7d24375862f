//! Needles in a haystack: secrets hidden in a long text, for which a model is asked.
//!
//! In mode [`NeedleMode::Single`] a haystack has one secret, in [`NeedleMode::Multi`] several with different names, of
//! which one is asked for. A cell is a place in haystacks of a length; it is tried several times, with other names,
//! codes and texts. All pairs of types get the same haystacks.
//!
//! It is a test of what a model can do at all. Between cache types it hardly tells: a model that finds a needle finds
//! it with coarse caches, too. [`evaluate`](super::evaluate) does.

mod haystack;
mod run;
mod secret;
mod trial;

pub use run::needle;

use super::settings::{CacheSettings, PairError};
use crate::llama::{
    BatchError, CachePolicy, ContextError, DecodeError, Exception, GenerateError, OutputError,
    SamplerError, SequenceError, StateError, VocabError,
};

/// How many secrets a haystack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedleMode {
    /// One.
    Single,
    /// [`NeedleOptions::n_keys`].
    Multi,
}

impl NeedleMode {
    /// `single` or `multi`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
        }
    }
}

/// What is hidden where, and how contexts are made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NeedleOptions {
    /// Tokens of prompts, question included. Default: 512, 1024 and 2048.
    pub lengths: Vec<u32>,
    /// Where secrets are, 0 (the beginning) to 100 (the end). Default: 0, 25, 50, 75 and 100.
    pub depths: Vec<f64>,
    /// Default: both.
    pub modes: Vec<NeedleMode>,
    /// Secrets of a haystack in mode multi, as many as depths or more, at most 32. Default: 8.
    pub n_keys: usize,
    /// Trials of each cell, 1 or more. Default: 3.
    pub n_trials: usize,
    /// Of names, codes and texts. Default: 1.
    pub seed: u64,
    /// Whether prompts may be longer than what the model was trained with. Default: no.
    pub beyond: bool,
    /// How contexts are made.
    pub cache: CacheSettings,
}

impl Default for NeedleOptions {
    fn default() -> Self {
        Self {
            lengths: vec![512, 1024, 2048],
            depths: vec![0.0, 25.0, 50.0, 75.0, 100.0],
            modes: vec![NeedleMode::Single, NeedleMode::Multi],
            n_keys: 8,
            n_trials: 3,
            seed: 1,
            beyond: false,
            cache: CacheSettings::default(),
        }
    }
}

/// What was found with one pair of types.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NeedlePair {
    /// Types of K.
    pub k: CachePolicy,
    /// Types of V.
    pub v: CachePolicy,
    /// By mode, length and depth, in their order.
    pub cells: Vec<NeedleCell>,
}

/// A place in haystacks of a length.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NeedleCell {
    pub mode: NeedleMode,
    /// Tokens asked for.
    pub length: u32,
    /// 0 to 100.
    pub depth: f64,
    /// One or more.
    pub trials: Vec<NeedleTrial>,
}

/// A secret that was asked for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NeedleTrial {
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Of whose code was asked.
    pub name: String,
    /// The code.
    pub code: String,
    /// The most likely digits, token by token; text, if there are none.
    pub answer: String,
    /// Logarithm of the probability of the right answer, mean over its tokens, of which each follows the right ones.
    pub log_prob: f64,
}

impl NeedleTrial {
    /// Whether the answer is right.
    pub fn exact(&self) -> bool {
        self.answer == self.code
    }
}

impl NeedleCell {
    /// Share of right answers, 0 to 1.
    pub fn exact(&self) -> f64 {
        mean(self.trials.iter().map(|trial| f64::from(u8::from(trial.exact()))))
    }

    /// Mean of [`NeedleTrial::log_prob`].
    pub fn log_prob(&self) -> f64 {
        mean(self.trials.iter().map(|trial| trial.log_prob))
    }
}

impl NeedlePair {
    /// Mean share of right answers of a mode's cells, 0 to 1; not a number, if it has none.
    pub fn exact(&self, mode: NeedleMode) -> f64 {
        mean(self.of_mode(mode).map(NeedleCell::exact))
    }

    /// Mean of [`NeedleCell::log_prob`]; not a number, if it has none.
    pub fn log_prob(&self, mode: NeedleMode) -> f64 {
        mean(self.of_mode(mode).map(NeedleCell::log_prob))
    }

    fn of_mode(&self, mode: NeedleMode) -> impl Iterator<Item = &NeedleCell> {
        self.cells.iter().filter(move |cell| cell.mode == mode)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0u32, 0.0), |(n, sum), value| (n + 1, sum + value));
    sum / f64::from(n)
}

/// Why nothing was looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NeedleError {
    /// Nothing to do.
    #[error("there are no {what}: one or more are needed")]
    Nothing { what: &'static str },
    /// Nothing to hide needles in.
    #[error("the text is empty")]
    EmptyText,
    /// Needles, the question and a sentence are more.
    #[error(
        "a length of {length} tokens is too short: needles, question and one sentence take {needed} ({})", mode.name()
    )]
    TooShort { length: u32, needed: usize, mode: NeedleMode },
    /// What the model would make of it is another question.
    #[error(
        "a length of {length} tokens is beyond the training context of {n_ctx_train}: take less, or allow it (beyond)"
    )]
    Beyond { length: u32, n_ctx_train: u32 },
    /// Not a place.
    #[error("a depth of {depth} is outside 0 to 100")]
    Depth { depth: f64 },
    /// Each depth takes a key of its own.
    #[error("{n_keys} keys are outside {n_depths} (one for each depth) to {max}")]
    Keys { n_keys: usize, n_depths: usize, max: usize },
    /// The vocabulary ends every text with a token.
    #[error("models that add a token at the end of texts cannot be asked")]
    AddsEos,
    /// The model's weights are damaged, or a number overflowed in it.
    #[error("{k} / {v}: a logit is not a number")]
    NotANumber { k: CachePolicy, v: CachePolicy },
    #[error(transparent)]
    Pair(#[from] PairError),
    /// `progress` said so.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Create(#[from] ContextError),
    #[error(transparent)]
    Vocab(#[from] VocabError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Exception(#[from] Exception),
}
