//! Samplers: how a token is chosen from logits.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Token;
use super::context::Context;
use super::error::SamplerError;
use super::ffi::fenced;
use super::grammar::Grammar;
use super::model::Model;
use super::sampler_builder::SamplerBuilder;
use super::sys::{self, fence};

/// Chooses tokens. It remembers those that it was told of, for penalties and grammars, and its random state.
///
/// ```no_run
/// # use llama_turboquant::llama::{Model, Sampler};
/// # let model = Model::load("model.gguf")?;
/// let sampler = Sampler::builder(&model).top_k(40).top_p(0.95, 1).temperature(0.8).dist(42)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sampler {
    /// Ends with one that selects.
    pub(super) chain: RawSampler,
    /// Apart from the chain: it is tried on the token that the chain has chosen, which is mostly right, before it is
    /// tried on all.
    pub(super) grammar: Option<Grammar>,
    /// The chain is greedy alone.
    pub(super) greedy: bool,
    /// Keeps the vocabulary alive that the parts have.
    pub(super) model: Arc<Model>,
    /// Scratch.
    candidates: Vec<sys::llama_token_data>,
}

// SAFETY: no part of a sampler is tied to a thread, and the model may be used by any.
unsafe impl Send for Sampler {}

/// A sampler of llama.cpp's, freed when dropped.
pub(super) struct RawSampler(pub NonNull<sys::llama_sampler>);

impl Sampler {
    /// How to choose tokens of a model.
    pub fn builder(model: &Arc<Model>) -> SamplerBuilder {
        SamplerBuilder::new(model)
    }

    /// Always the most likely token.
    ///
    /// Errors: [`SamplerError::Create`].
    pub fn greedy(model: &Arc<Model>) -> Result<Self, SamplerError> {
        Self::builder(model).greedy()
    }

    pub(super) fn new(
        chain: RawSampler,
        grammar: Option<Grammar>,
        greedy: bool,
        model: Arc<Model>,
    ) -> Self {
        Self { chain, grammar, greedy, model, candidates: Vec::new() }
    }

    /// The model whose tokens it chooses.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Chooses the token that follows the last output of a context, and accepts it.
    ///
    /// Errors: [`SamplerError`].
    pub fn sample(&mut self, context: &Context) -> Result<Token, SamplerError> {
        self.sample_logits(context.last_logits()?)
    }

    /// Chooses the token that follows the output of a context with this index, and accepts it.
    ///
    /// Errors: [`SamplerError`].
    pub fn sample_at(&mut self, context: &Context, index: usize) -> Result<Token, SamplerError> {
        self.sample_logits(context.logits(index)?)
    }

    /// Chooses a token by its logits, one per token of the vocabulary, and accepts it.
    ///
    /// Errors: [`SamplerError`].
    pub fn sample_logits(&mut self, logits: &[f32]) -> Result<Token, SamplerError> {
        let token = self.choose(logits)?;
        self.accept_chosen(token)?;
        Ok(token)
    }

    /// Tells the sampler of a token that was chosen elsewhere: penalties count it, a grammar goes on behind it.
    ///
    /// Errors: [`SamplerError::Rejected`] if the grammar does not allow it; [`SamplerError::Token`].
    pub fn accept(&mut self, token: Token) -> Result<(), SamplerError> {
        self.check(token)?;
        if let Some(grammar) = &self.grammar
            && !grammar.allows(token)?
        {
            return Err(SamplerError::Rejected { token });
        }
        self.accept_chosen(token)
    }

    /// Tells the sampler of a prompt: penalties count its tokens. A grammar is of the answer and does not see them.
    ///
    /// Errors: [`SamplerError::Token`].
    pub fn accept_prompt(&mut self, tokens: &[Token]) -> Result<(), SamplerError> {
        for &token in tokens {
            self.check(token)?;
            // SAFETY: the chain lives; the token is in range.
            fenced(unsafe { fence::tq_sampler_accept(self.chain.0.as_ptr(), token) })?;
        }
        Ok(())
    }

    /// Forgets all tokens, and begins the grammar and the random numbers anew.
    ///
    /// Errors: [`SamplerError::Exception`].
    pub fn reset(&mut self) -> Result<(), SamplerError> {
        // SAFETY: the chain lives.
        fenced(unsafe { fence::tq_sampler_reset(self.chain.0.as_ptr()) })?;
        self.grammar.as_mut().map_or(Ok(()), Grammar::reset)
    }

    /// A sampler in the same state. Errors: [`SamplerError::Exception`].
    pub fn try_clone(&self) -> Result<Self, SamplerError> {
        let grammar = self.grammar.as_ref().map(Grammar::try_clone).transpose()?;
        Ok(Self::new(self.chain.try_clone()?, grammar, self.greedy, Arc::clone(&self.model)))
    }

    /// Chooses without accepting.
    fn choose(&mut self, logits: &[f32]) -> Result<Token, SamplerError> {
        let n_tokens = self.model.vocab().n_tokens();
        if logits.len() != n_tokens as usize {
            return Err(SamplerError::Logits { n: logits.len(), n_tokens });
        }
        // llama.cpp sorts them, which numbers without an order would break.
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(SamplerError::NotANumber);
        }
        if self.greedy {
            let token = most_likely(logits).ok_or(SamplerError::NoCandidate)?;
            if self.is_allowed(token)? {
                return Ok(token);
            }
        } else {
            let token = self.apply(logits, false)?;
            if self.is_allowed(token)? {
                return Ok(token);
            }
        }
        self.apply(logits, true)
    }

    fn is_allowed(&self, token: Token) -> Result<bool, SamplerError> {
        self.grammar.as_ref().map_or(Ok(true), |grammar| grammar.allows(token))
    }

    /// Runs the chain, behind the grammar if `strict`.
    fn apply(&mut self, logits: &[f32], strict: bool) -> Result<Token, SamplerError> {
        self.candidates.clear();
        let candidate = |(id, &logit)| sys::llama_token_data { id, logit, p: 0.0 };
        self.candidates.extend((0..).zip(logits).map(candidate));
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        if let Some(grammar) = self.grammar.as_ref().filter(|_| strict) {
            grammar.apply(&mut array)?;
        }
        // SAFETY: the chain lives, and the candidates during the call. All logits are numbers.
        fenced(unsafe { fence::tq_sampler_apply(self.chain.0.as_ptr(), &raw mut array) })?;
        let selected = usize::try_from(array.selected).ok().filter(|&i| i < array.size);
        let selected = selected.ok_or(SamplerError::NoCandidate)?;
        // SAFETY: the chain leaves `size` candidates at `data`, of which this is one.
        let chosen = unsafe { *array.data.add(selected) };
        if chosen.logit == f32::NEG_INFINITY {
            return Err(SamplerError::NoCandidate);
        }
        Ok(chosen.id)
    }

    /// A token that the grammar allows.
    fn accept_chosen(&mut self, token: Token) -> Result<(), SamplerError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(token)?;
        }
        // SAFETY: the chain lives; the token is in range.
        fenced(unsafe { fence::tq_sampler_accept(self.chain.0.as_ptr(), token) })?;
        Ok(())
    }

    fn check(&self, token: Token) -> Result<(), SamplerError> {
        let n_tokens = self.model.vocab().n_tokens();
        let error = SamplerError::Token { token, n_tokens };
        self.model.vocab().check_token(token).map_err(|_| error)
    }
}

/// The first of the largest; None: all are minus infinity.
fn most_likely(logits: &[f32]) -> Option<Token> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let index = logits.iter().position(|&logit| logit == max && max > f32::NEG_INFINITY)?;
    i32::try_from(index).ok()
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sampler = f.debug_struct("Sampler");
        sampler.field("grammar", &self.grammar.is_some()).finish_non_exhaustive()
    }
}

impl RawSampler {
    /// Takes over a sampler. Errors: [`SamplerError::Create`] if it is null.
    pub fn own(raw: *mut sys::llama_sampler, name: &'static str) -> Result<Self, SamplerError> {
        NonNull::new(raw).map(Self).ok_or(SamplerError::Create { name })
    }

    pub fn try_clone(&self) -> Result<Self, SamplerError> {
        let mut clone = std::ptr::null_mut();
        // SAFETY: the sampler lives, and all of ours can be cloned.
        fenced(unsafe { fence::tq_sampler_clone(self.0.as_ptr(), &raw mut clone) })?;
        Self::own(clone, "clone")
    }
}

impl Drop for RawSampler {
    fn drop(&mut self) {
        // SAFETY: ours, in no chain, freed once.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_most_likely() {
        let inf = f32::NEG_INFINITY;
        assert_eq!(most_likely(&[-3.0, -1.0, inf, -1.0]), Some(1));
        assert_eq!(most_likely(&[inf, f32::INFINITY]), Some(1));
        assert_eq!(most_likely(&[inf, inf]), None);
        assert_eq!(most_likely(&[]), None);
    }
}
