//! What samplers are made of.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use super::Token;
use super::chat_prompt::ChatPrompt;
use super::error::SamplerError;
use super::ffi::fenced;
use super::grammar::{Grammar, GrammarTrigger};
use super::model::Model;
use super::sampler::{RawSampler, Sampler};
use super::sys::{self, fence};

/// Repetition penalties. The default has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// How many of the last tokens count; 0: none.
    pub last_n: u32,
    /// Factor on the logits of tokens that occurred; 1: none. More than 0.
    pub repeat: f32,
    /// Off the logit for each occurrence; 0: none.
    pub frequency: f32,
    /// Off the logit if it occurred; 0: none.
    pub presence: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { last_n: 64, repeat: 1.0, frequency: 0.0, presence: 0.0 }
    }
}

/// DRY: penalties on going on as before. The default has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// Strength; 0: none.
    pub multiplier: f32,
    /// What a token more of repetition multiplies the penalty by, 1 or more.
    pub base: f32,
    /// Repetitions that are not longer are free, tokens.
    pub allowed_length: u32,
    /// How many of the last tokens are looked through; 0: none.
    pub last_n: u32,
    /// Texts at which repetitions end.
    pub breakers: Vec<String>,
}

impl Default for Dry {
    fn default() -> Self {
        let breakers = ["\n", ":", "\"", "*"].map(String::from).into();
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, last_n: 1024, breakers }
    }
}

/// Builds a [`Sampler`]: steps in the order in which they are added, and one that selects at the end.
///
/// A step that cannot be is an error of the last call. Numbers have to be finite.
#[must_use]
pub struct SamplerBuilder {
    model: Arc<Model>,
    chain: Result<RawSampler, SamplerError>,
    grammar: Option<Grammar>,
    /// Whether the chain has steps.
    has_steps: bool,
}

impl SamplerBuilder {
    pub(super) fn new(model: &Arc<Model>) -> Self {
        // SAFETY: plain values; the chain is ours.
        let chain =
            unsafe { sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params()) };
        Self {
            model: Arc::clone(model),
            chain: RawSampler::own(chain, "chain"),
            grammar: None,
            has_steps: false,
        }
    }

    /// Divides logits by `t`; 0 or less leaves the most likely token alone.
    pub fn temperature(self, t: f32) -> Self {
        // SAFETY: a plain value.
        self.step("temperature", &[t], || unsafe { sys::llama_sampler_init_temp(t) })
    }

    /// A temperature between `t - delta` and `t + delta`, the higher the more even the distribution is, in the
    /// power of `exponent`.
    pub fn dynamic_temperature(self, t: f32, delta: f32, exponent: f32) -> Self {
        // SAFETY: plain values.
        let init = || unsafe { sys::llama_sampler_init_temp_ext(t, delta, exponent) };
        self.step("dynamic_temperature", &[t, delta, exponent], init)
    }

    /// Keeps the `k` most likely tokens; 0: all.
    pub fn top_k(self, k: u32) -> Self {
        let k = i32::try_from(k).unwrap_or(i32::MAX);
        // SAFETY: a plain value.
        self.step("top_k", &[], || unsafe { sys::llama_sampler_init_top_k(k) })
    }

    /// Keeps the most likely tokens of probability `p` together, at least `min_keep`.
    pub fn top_p(self, p: f32, min_keep: usize) -> Self {
        // SAFETY: plain values.
        self.step("top_p", &[p], || unsafe { sys::llama_sampler_init_top_p(p, min_keep) })
    }

    /// Keeps tokens at least `p` times as likely as the likeliest, at least `min_keep`.
    pub fn min_p(self, p: f32, min_keep: usize) -> Self {
        // SAFETY: plain values.
        self.step("min_p", &[p], || unsafe { sys::llama_sampler_init_min_p(p, min_keep) })
    }

    /// Keeps tokens whose surprise is near the expected one, of probability `p` together, at least `min_keep`.
    pub fn typical(self, p: f32, min_keep: usize) -> Self {
        // SAFETY: plain values.
        self.step("typical", &[p], || unsafe { sys::llama_sampler_init_typical(p, min_keep) })
    }

    /// Keeps tokens within `n` standard deviations of the largest logit.
    pub fn top_n_sigma(self, n: f32) -> Self {
        // SAFETY: a plain value.
        self.step("top_n_sigma", &[n], || unsafe { sys::llama_sampler_init_top_n_sigma(n) })
    }

    /// With this probability leaves out all tokens above `threshold` but the least likely of them. A seed of
    /// `u32::MAX` is a random one.
    pub fn xtc(self, probability: f32, threshold: f32, min_keep: usize, seed: u32) -> Self {
        // SAFETY: plain values.
        let init =
            || unsafe { sys::llama_sampler_init_xtc(probability, threshold, min_keep, seed) };
        self.step("xtc", &[probability, threshold], init)
    }

    /// Makes tokens that occurred less likely.
    pub fn penalties(self, penalties: Penalties) -> Self {
        let Penalties { last_n, repeat, frequency, presence } = penalties;
        if repeat <= 0.0 {
            return self.fail(SamplerError::Number { name: "penalties", value: repeat });
        }
        let (n_vocab, last_n) = (self.n_vocab(), window(last_n));
        // SAFETY: plain values.
        let init = || unsafe {
            sys::llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence)
        };
        self.step("penalties", &[repeat, frequency, presence], init)
    }

    /// Makes going on as before less likely.
    pub fn dry(mut self, dry: &Dry) -> Self {
        let numbers = [dry.multiplier, dry.base];
        let breakers: Result<Vec<_>, _> =
            dry.breakers.iter().map(|text| CString::new(text.as_str())).collect();
        let Ok(breakers) = breakers else {
            return self.fail(SamplerError::Nul { name: "dry" });
        };
        let mut pointers: Vec<_> = breakers.iter().map(|text| text.as_ptr()).collect();
        let allowed = i32::try_from(dry.allowed_length).unwrap_or(i32::MAX);
        let (model, last_n) = (Arc::clone(&self.model), window(dry.last_n));
        let mut exception = None;
        let init = || {
            let mut raw = std::ptr::null_mut();
            // SAFETY: the vocabulary lives as long as the model, which the sampler holds; the texts are terminated
            // and live during the call.
            let status = unsafe {
                fence::tq_sampler_dry(
                    model.vocab().raw(),
                    dry.multiplier,
                    dry.base,
                    allowed,
                    last_n,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    &raw mut raw,
                )
            };
            exception = fenced(status).err();
            raw
        };
        self = self.step("dry", &numbers, init);
        match exception {
            Some(e) => self.fail(e.into()),
            None => self,
        }
    }

    /// Adds to the logits of some tokens; minus infinity forbids one.
    pub fn logit_bias(self, biases: &[(Token, f32)]) -> Self {
        let bad = |bias: f32| bias.is_nan() || bias == f32::INFINITY;
        for &(token, bias) in biases {
            if self.model.vocab().check_token(token).is_err() {
                let n_tokens = self.model.vocab().n_tokens();
                return self.fail(SamplerError::Token { token, n_tokens });
            }
            if bad(bias) {
                return self.fail(SamplerError::Number { name: "logit_bias", value: bias });
            }
        }
        let raw = |&(token, bias): &(Token, f32)| sys::llama_logit_bias { token, bias };
        let biases: Vec<_> = biases.iter().map(raw).collect();
        let n = i32::try_from(biases.len()).unwrap_or(i32::MAX);
        let n_vocab = self.n_vocab();
        // SAFETY: n biases of tokens in range, which are copied.
        let init = || unsafe { sys::llama_sampler_init_logit_bias(n_vocab, n, biases.as_ptr()) };
        self.step("logit_bias", &[], init)
    }

    /// Allows only what a grammar derives from its symbol `root`, in llama.cpp's GBNF. It goes before all steps,
    /// wherever it is added; of two, the last counts.
    ///
    /// Error: [`SamplerError::Grammar`] if it is none.
    pub fn grammar(self, grammar: &str, root: &str) -> Self {
        self.set_grammar(|model| Grammar::new(model, grammar, root).map(Some))
    }

    /// As [`SamplerBuilder::grammar`], but only from a trigger on; before one, anything is allowed. Penalties and
    /// the like apply throughout. What the token that ends a trigger has beyond it has to be as the grammar goes on,
    /// else [`Sampler::sample`] is an error, as in llama.cpp's server.
    ///
    /// ```no_run
    /// # use llama_turboquant::llama::{GrammarTrigger, Model, Sampler};
    /// # let model = Model::load("model.gguf")?;
    /// let grammar = r#"root ::= "Answer: " ("yes" | "no")"#;
    /// let trigger = GrammarTrigger::Word("Answer: ".into());
    /// let sampler = Sampler::builder(&model).lazy_grammar(grammar, "root", &[trigger]).greedy()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Errors: [`SamplerError::Grammar`], [`SamplerError::NoTrigger`], [`SamplerError::Trigger`],
    /// [`SamplerError::Token`].
    pub fn lazy_grammar(self, grammar: &str, root: &str, triggers: &[GrammarTrigger]) -> Self {
        self.set_grammar(|model| Grammar::lazy(model, grammar, root, triggers).map(Some))
    }

    /// Allows only what an answer to a prompt may be: the prompt's grammar, in the place of
    /// [`SamplerBuilder::grammar`]'s. Without one this changes nothing.
    ///
    /// Errors: [`SamplerError::OtherModel`]; [`SamplerError::Rejected`] if the prompt ends otherwise than its grammar
    /// begins.
    pub fn chat(self, prompt: &ChatPrompt) -> Self {
        self.set_grammar(|model| {
            if !Arc::ptr_eq(model, prompt.model()) {
                return Err(SamplerError::OtherModel);
            }
            Grammar::of_prompt(prompt)
        })
    }

    fn set_grammar(
        mut self,
        new: impl FnOnce(&Arc<Model>) -> Result<Option<Grammar>, SamplerError>,
    ) -> Self {
        if self.chain.is_ok() {
            match new(&self.model) {
                Ok(None) => {}
                Ok(grammar) => self.grammar = grammar,
                Err(e) => self.chain = Err(e),
            }
        }
        self
    }

    /// Selects the most likely token. Errors: those of the steps.
    pub fn greedy(self) -> Result<Sampler, SamplerError> {
        let alone = !self.has_steps;
        // SAFETY: no arguments.
        self.step("greedy", &[], || unsafe { sys::llama_sampler_init_greedy() }).finish(alone)
    }

    /// Draws a token by its probability. A seed of `u32::MAX` is a random one. Errors: those of the steps.
    pub fn dist(self, seed: u32) -> Result<Sampler, SamplerError> {
        // SAFETY: a plain value.
        self.step("dist", &[], || unsafe { sys::llama_sampler_init_dist(seed) }).finish(false)
    }

    /// Mirostat: draws tokens of surprise `tau` bits in the mean, corrected at rate `eta`, estimated from `m` tokens
    /// (100 in its paper). A seed of `u32::MAX` is a random one. Errors: those of the steps.
    pub fn mirostat(self, seed: u32, tau: f32, eta: f32, m: u32) -> Result<Sampler, SamplerError> {
        let (n_vocab, m) = (self.n_vocab(), i32::try_from(m.max(1)).unwrap_or(i32::MAX));
        // SAFETY: plain values.
        let init = || unsafe { sys::llama_sampler_init_mirostat(n_vocab, seed, tau, eta, m) };
        self.step("mirostat", &[tau, eta], init).finish(false)
    }

    /// Mirostat 2: as [`SamplerBuilder::mirostat`], by a threshold instead of an estimate.
    pub fn mirostat_v2(self, seed: u32, tau: f32, eta: f32) -> Result<Sampler, SamplerError> {
        // SAFETY: plain values.
        let init = || unsafe { sys::llama_sampler_init_mirostat_v2(seed, tau, eta) };
        self.step("mirostat_v2", &[tau, eta], init).finish(false)
    }

    fn n_vocab(&self) -> i32 {
        self.model.vocab().n_tokens().cast_signed()
    }

    /// Adds what `init` makes, if the numbers are finite and nothing went wrong before.
    fn step(
        mut self,
        name: &'static str,
        numbers: &[f32],
        init: impl FnOnce() -> *mut sys::llama_sampler,
    ) -> Self {
        if let Some(&value) = numbers.iter().find(|number| !number.is_finite()) {
            return self.fail(SamplerError::Number { name, value });
        }
        if let Ok(chain) = &self.chain {
            match RawSampler::own(init(), name) {
                Ok(step) => {
                    let step = ManuallyDrop::new(step);
                    // SAFETY: both are ours; the chain takes the step over.
                    unsafe { sys::llama_sampler_chain_add(chain.0.as_ptr(), step.0.as_ptr()) };
                    self.has_steps = true;
                }
                Err(e) => return self.fail(e),
            }
        }
        self
    }

    /// The first error stays.
    fn fail(mut self, error: SamplerError) -> Self {
        self.chain = self.chain.and(Err(error));
        self
    }

    fn finish(self, greedy: bool) -> Result<Sampler, SamplerError> {
        Ok(Sampler::new(self.chain?, self.grammar, greedy, self.model))
    }
}

/// Windows over the last tokens take memory in advance: no context is longer.
fn window(last_n: u32) -> i32 {
    const MAX: u32 = 1 << 24;
    last_n.min(MAX).cast_signed()
}

impl std::fmt::Debug for SamplerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut builder = f.debug_struct("SamplerBuilder");
        builder.field("error", &self.chain.as_ref().err()).finish_non_exhaustive()
    }
}
