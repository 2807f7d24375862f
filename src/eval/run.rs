//! Running a text through contexts.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::divergence::{Compared, Prediction, Summary};
use super::room::{self, NoRoomForLogits};
use super::settings::{CacheSettings, N_UBATCH, PairError};
use crate::llama::{
    Batch, BatchError, CachePolicy, CacheType, Context, ContextError, ContextParams, DecodeError,
    Exception, KvFit, MemoryUse, Model, OutputError, SequenceError, Token, VocabError,
};

/// On what pairs are compared, and how their contexts are made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EvalOptions {
    /// Tokens of a chunk, 16 or more. Default: 512.
    pub n_ctx: u32,
    /// Chunks, if the text has as many. Default: all.
    pub n_chunks: usize,
    /// How contexts are made; the reference has neither anchors nor scales.
    pub cache: CacheSettings,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { n_ctx: 512, n_chunks: usize::MAX, cache: CacheSettings::default() }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// Chunks that were run.
    pub n_chunks: usize,
    /// The reference: f16 for both.
    pub reference: PairScore,
    /// The pairs, in their order.
    pub pairs: Vec<PairScore>,
}

/// What was measured of one pair.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PairScore {
    /// Types of K.
    pub k: CachePolicy,
    /// Types of V.
    pub v: CachePolicy,
    /// Bits per value of K and V, with scales and anchors: by the memory that is allocated.
    pub bits_per_value: f64,
    /// Of the context of a chunk.
    pub memory: MemoryUse,
    /// Its key scales; none: it has none.
    pub fit: Option<KvFit>,
    /// Quality, over all chunks.
    pub summary: Summary,
}

/// How far it is, in steps: runs of a chunk of [`evaluate`], tokens of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Those that are over.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// Why there is no evaluation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Half of it would be hardly a text.
    #[error("a context of {n_ctx} tokens is too short: at least {min} are needed")]
    Context { n_ctx: u32, min: u32 },
    /// Less than one chunk.
    #[error(
        "the text has {n_tokens} tokens, one chunk {n_ctx}: take a longer text, or a shorter context"
    )]
    TooShort { n_tokens: usize, n_ctx: u32 },
    /// The vocabulary ends every text with a token, which chunks do not have.
    #[error("models that add a token at the end of texts cannot be evaluated")]
    AddsEos,
    /// The model's weights are damaged, or a number overflowed in it.
    #[error("{k} / {v}: a logit is not a number")]
    NotANumber { k: CachePolicy, v: CachePolicy },
    /// The reference's, and those of a batch of a pair.
    #[error(transparent)]
    Memory(#[from] NoRoomForLogits),
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
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// The shortest chunk.
const N_CTX_MIN: u32 = 16;

/// Runs chunks of a text with f16 caches and with each pair of types for K and V.
///
/// `progress` is told of each run, and returns whether to go on. Pairs that the model cannot have are found before
/// anything is run. Errors: [`EvalError`].
pub fn evaluate(
    model: &Arc<Model>,
    text: &str,
    pairs: &[(CachePolicy, CachePolicy)],
    options: &EvalOptions,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<Evaluation, EvalError> {
    let chunks = chunks(model, text, pairs, options)?;
    let total = chunks.len() * (1 + pairs.len());
    let mut done = 0;
    let mut step = || {
        done += 1;
        if progress(Progress { done, total }) { Ok(()) } else { Err(EvalError::Stopped) }
    };

    let f16 = (CachePolicy::new(CacheType::F16), CachePolicy::new(CacheType::F16));
    let mut reference = Pair::new(&f16);
    let mut scores: Vec<Pair> = pairs.iter().map(Pair::new).collect();
    let base_params =
        reference.params(&options.cache.plain(), options.n_ctx).n_batch(options.n_ctx);
    let n_scored = chunks.first().map_or(0, |chunk| chunk.scored().len());
    let of_batch = n_scored.min(N_UBATCH as usize);
    room::check(n_scored + of_batch, model.vocab().n_tokens())?;
    let mut base = reference.context(model, &base_params)?;
    for chunk in &chunks {
        base.seq_remove(0, ..)?;
        base.decode(&chunk.batch(0..chunk.tokens.len())?)?;
        let base_logits = logits(&base, chunk.scored())?;
        let base_predictions = reference.predictions(&base_logits)?;
        reference.take(&base_predictions, &base_predictions, chunk.next(chunk.scored()));
        step()?;
        for pair in &mut scores {
            // One at a time: buffers for logits are large. Between chunks nothing is remembered.
            let params = pair.params(&options.cache, options.n_ctx);
            let mut context = pair.context(model, &params)?;
            pair.run(&mut context, chunk, &base_predictions)?;
            step()?;
        }
    }
    let f16_bytes = reference.memory.kv() as f64;
    let score = |pair: Pair| pair.score(f16_bytes);
    Ok(Evaluation {
        n_chunks: chunks.len(),
        reference: score(reference),
        pairs: scores.into_iter().map(score).collect(),
    })
}

/// Tokens that are decoded together, and those that come behind each.
struct Chunk {
    tokens: Vec<Token>,
    next: Vec<Token>,
}

impl Chunk {
    /// The places whose predictions count: the second half, but for the last, behind which nothing is known.
    fn scored(&self) -> Range<usize> {
        self.tokens.len() / 2..self.tokens.len() - 1
    }

    /// The tokens at some places, with an output where they are scored.
    fn batch(&self, places: Range<usize>) -> Result<Batch, BatchError> {
        let mut batch = Batch::new(places.len(), 1);
        for place in places {
            let pos = u32::try_from(place).unwrap_or(u32::MAX);
            batch.add(self.tokens[place], pos, &[0], self.scored().contains(&place))?;
        }
        Ok(batch)
    }

    /// The tokens that come behind some places.
    fn next(&self, places: Range<usize>) -> &[Token] {
        &self.next[places]
    }
}

/// Cuts a text, once it is clear that the pairs and the text will do.
fn chunks(
    model: &Arc<Model>,
    text: &str,
    pairs: &[(CachePolicy, CachePolicy)],
    options: &EvalOptions,
) -> Result<Vec<Chunk>, EvalError> {
    let n_ctx = options.n_ctx;
    if n_ctx < N_CTX_MIN {
        return Err(EvalError::Context { n_ctx, min: N_CTX_MIN });
    }
    options.cache.check(model, pairs)?;
    let vocab = model.vocab();
    if vocab.adds_eos() {
        return Err(EvalError::AddsEos);
    }
    let tokens = vocab.tokenize(text, true, false)?;
    let bos = vocab.bos().filter(|_| vocab.adds_bos());
    let chunks: Vec<_> = tokens
        .chunks_exact(n_ctx as usize)
        .take(options.n_chunks)
        .map(|tokens| {
            let mut chunk = Chunk { tokens: tokens.to_vec(), next: tokens[1..].to_vec() };
            if let Some(bos) = bos {
                chunk.tokens[0] = bos;
            }
            chunk
        })
        .collect();
    match chunks.is_empty() {
        true => Err(EvalError::TooShort { n_tokens: tokens.len(), n_ctx }),
        false => Ok(chunks),
    }
}

/// Logits of the tokens at some indices of the last batch.
fn logits(context: &Context, indices: Range<usize>) -> Result<Vec<&[f32]>, OutputError> {
    indices.map(|index| context.logits(index)).collect()
}

/// A pair of types, and what is known of it.
struct Pair {
    k: CachePolicy,
    v: CachePolicy,
    memory: MemoryUse,
    fit: Option<KvFit>,
    places: Vec<Compared>,
}

impl Pair {
    fn new((k, v): &(CachePolicy, CachePolicy)) -> Self {
        Self {
            k: k.clone(),
            v: v.clone(),
            memory: MemoryUse::default(),
            fit: None,
            places: Vec::new(),
        }
    }

    fn params(&self, cache: &CacheSettings, n_ctx: u32) -> ContextParams {
        cache.params(n_ctx as usize, &self.k, &self.v)
    }

    fn context(
        &mut self,
        model: &Arc<Model>,
        params: &ContextParams,
    ) -> Result<Context, EvalError> {
        let context = Context::new(model, params)?;
        self.memory = context.memory_use()?;
        self.fit = context.kv_fit();
        Ok(context)
    }

    /// Runs a chunk, `n_batch` tokens at a time, against the reference's predictions.
    fn run(
        &mut self,
        context: &mut Context,
        chunk: &Chunk,
        base: &[Prediction<'_>],
    ) -> Result<(), EvalError> {
        let (n, scored) = (chunk.tokens.len(), chunk.scored());
        for start in (0..n).step_by(context.n_batch() as usize) {
            let end = n.min(start + context.n_batch() as usize);
            context.decode(&chunk.batch(start..end)?)?;
            let places = scored.start.clamp(start, end)..scored.end.clamp(start, end);
            if places.is_empty() {
                continue;
            }
            let logits = logits(context, places.start - start..places.end - start)?;
            let predictions = self.predictions(&logits)?;
            let base = &base[places.start - scored.start..places.end - scored.start];
            self.take(base, &predictions, chunk.next(places));
        }
        Ok(())
    }

    fn predictions<'a>(&self, logits: &[&'a [f32]]) -> Result<Vec<Prediction<'a>>, EvalError> {
        let predictions = logits.par_iter().map(|logits| Prediction::new(logits)).collect();
        let error = || EvalError::NotANumber { k: self.k.clone(), v: self.v.clone() };
        Option::ok_or_else(predictions, error)
    }

    fn take(&mut self, base: &[Prediction<'_>], other: &[Prediction<'_>], next: &[Token]) {
        let compare = |((base, other), &token): ((_, _), &Token)| {
            Compared::new(base, other, token.unsigned_abs() as usize)
        };
        self.places.par_extend(base.par_iter().zip(other).zip(next).map(compare));
    }

    fn score(self, f16_bytes: f64) -> PairScore {
        PairScore {
            bits_per_value: 16.0 * self.memory.kv() as f64 / f16_bytes,
            memory: self.memory,
            fit: self.fit,
            summary: Summary::new(&self.places).expect("a chunk has places that are scored"),
            k: self.k,
            v: self.v,
        }
    }
}
