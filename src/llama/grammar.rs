//! Grammars: what of an answer they constrain, and from where.

use std::ffi::{CString, c_char};

use serde_json::Value;

use super::chat_prompt::ChatPrompt;
use super::error::SamplerError;
use super::ffi::fenced;
use super::model::Model;
use super::sampler::RawSampler;
use super::sys::{self, fence};
use super::{Token, log};

/// Where in an answer a grammar begins: what triggers it is the first that the grammar derives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrammarTrigger {
    /// A text.
    Word(String),
    /// An ECMAScript regular expression, found anywhere in the answer; the grammar begins at its first group that
    /// is not empty, or at its match. At most 500 bytes. It sees the last 300 bytes of the answer, or as many as it has itself;
    /// one from `^` to `$` sees answers of up to 300 bytes.
    Pattern(String),
    /// A token.
    Token(Token),
}

impl GrammarTrigger {
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| json[key].as_str().map(String::from);
        let token = || Token::try_from(json["token"].as_i64()?).ok().map(Self::Token);
        text("word").map(Self::Word).or_else(|| text("pattern").map(Self::Pattern)).or_else(token)
    }

    pub(super) fn token(&self) -> Option<Token> {
        if let Self::Token(token) = self { Some(*token) } else { None }
    }

    /// Errors: [`SamplerError::Trigger`] if it is no expression, or empty; [`SamplerError::Nul`].
    fn pattern(&self) -> Result<Option<CString>, SamplerError> {
        let pattern = match self {
            Self::Token(_) => return Ok(None),
            Self::Word(word) => escape(word),
            Self::Pattern(pattern) => pattern.clone(),
        };
        let c = CString::new(pattern.as_str())
            .map_err(|_| SamplerError::Nul { name: "a grammar's trigger" })?;
        // SAFETY: a terminated text, which lives during the call.
        let checked = fenced(unsafe { fence::tq_trigger_check(c.as_ptr()) });
        let reason = match checked {
            Ok(()) if !pattern.is_empty() => return Ok(Some(c)),
            Ok(()) => "it is empty".into(),
            Err(e) => e.message,
        };
        Err(SamplerError::Trigger { pattern, reason })
    }
}

/// An expression that matches the text alone.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r".^$|()*+?[]{}\".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A grammar, as far as an answer has got in it.
pub(super) struct Grammar {
    raw: RawSampler,
    /// What of it the prompt has already.
    prefill: Vec<Token>,
    /// Where it does not apply.
    thinking: Option<Thinking>,
}

impl Grammar {
    /// A grammar that begins with the answer. Errors: [`SamplerError::Grammar`].
    pub fn new(model: &Model, grammar: &str, root: &str) -> Result<Self, SamplerError> {
        let raw = create(grammar, root, |text, root, raw| {
            // SAFETY: the vocabulary lives as long as the model, which the sampler holds; the texts are terminated
            // and live during the call.
            unsafe { fence::tq_sampler_grammar(model.vocab().raw(), text, root, raw) }
        })?;
        Ok(Self { raw, prefill: Vec::new(), thinking: None })
    }

    /// A grammar that begins at a trigger. Errors: [`SamplerError::Grammar`], [`SamplerError::NoTrigger`],
    /// [`SamplerError::Trigger`], [`SamplerError::Token`].
    pub fn lazy(
        model: &Model,
        grammar: &str,
        root: &str,
        triggers: &[GrammarTrigger],
    ) -> Result<Self, SamplerError> {
        if triggers.is_empty() {
            return Err(SamplerError::NoTrigger);
        }
        let tokens: Vec<Token> = triggers.iter().filter_map(GrammarTrigger::token).collect();
        let vocab = model.vocab();
        let n_tokens = vocab.n_tokens();
        if let Some(&token) = tokens.iter().find(|&&token| vocab.check_token(token).is_err()) {
            return Err(SamplerError::Token { token, n_tokens });
        }
        let patterns: Result<Vec<_>, _> = triggers.iter().map(GrammarTrigger::pattern).collect();
        let patterns: Vec<CString> = patterns?.into_iter().flatten().collect();
        let mut pointers: Vec<*const c_char> = patterns.iter().map(|text| text.as_ptr()).collect();
        let raw = create(grammar, root, |text, root, raw| {
            // SAFETY: as in `new`; that many patterns and tokens, which are copied.
            unsafe {
                fence::tq_sampler_grammar_lazy(
                    vocab.raw(),
                    text,
                    root,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    tokens.as_ptr(),
                    tokens.len(),
                    raw,
                )
            }
        })?;
        Ok(Self { raw, prefill: Vec::new(), thinking: None })
    }

    /// What an answer to a prompt has to be; None: anything. As upstream's server has it: a grammar that begins at
    /// once begins in the prompt, one that begins at a trigger does not while the model thinks.
    ///
    /// Errors: [`SamplerError::Rejected`] if the prompt ends otherwise.
    pub fn of_prompt(prompt: &ChatPrompt) -> Result<Option<Self>, SamplerError> {
        let (Some(text), about) = (prompt.grammar(), prompt.about()) else { return Ok(None) };
        let mut grammar = if about.lazy {
            let grammar = Self::lazy(prompt.model(), text, "root", &about.triggers)?;
            Self { thinking: about.thinking.clone(), ..grammar }
        } else {
            Self::new(prompt.model(), text, "root")?
        };
        if !about.lazy || grammar.thinking.is_some() {
            grammar.prefill.clone_from(&about.prefill);
        }
        grammar.begin()?;
        Ok(Some(grammar))
    }

    /// Goes to where the answer begins.
    fn begin(&mut self) -> Result<(), SamplerError> {
        for token in self.prefill.clone() {
            if let Some(thinking) = &mut self.thinking {
                thinking.push(token);
            } else if !self.allows(token)? {
                return Err(SamplerError::Rejected { token });
            } else {
                self.accept_raw(token)?;
            }
        }
        Ok(())
    }

    /// Begins anew.
    pub fn reset(&mut self) -> Result<(), SamplerError> {
        // SAFETY: the grammar lives.
        fenced(unsafe { fence::tq_sampler_reset(self.raw.0.as_ptr()) })?;
        if let Some(thinking) = &mut self.thinking {
            thinking.reset();
        }
        self.begin()
    }

    /// Whether a token may come next.
    pub fn allows(&self, token: Token) -> Result<bool, SamplerError> {
        let mut candidate = sys::llama_token_data { id: token, logit: 1.0, p: 0.0 };
        let mut array = sys::llama_token_data_array {
            data: &raw mut candidate,
            size: 1,
            selected: -1,
            sorted: false,
        };
        self.apply(&mut array)?;
        Ok(candidate.logit != f32::NEG_INFINITY)
    }

    /// Leaves out what may not come next. The candidates have to live.
    pub fn apply(&self, array: &mut sys::llama_token_data_array) -> Result<(), SamplerError> {
        if self.thinking.as_ref().is_some_and(|thinking| thinking.active) {
            return Ok(());
        }
        // SAFETY: the grammar lives, and the candidates during the call.
        fenced(unsafe { fence::tq_sampler_apply(self.raw.0.as_ptr(), array) })?;
        Ok(())
    }

    /// Goes on behind a token that it allows.
    pub fn accept(&mut self, token: Token) -> Result<(), SamplerError> {
        if let Some(thinking) = &mut self.thinking {
            let was_active = thinking.active;
            let end = thinking.push(token);
            if was_active {
                // What ends thoughts may be a trigger.
                return end.into_iter().flatten().try_for_each(|token| self.accept_raw(token));
            }
        }
        self.accept_raw(token)
    }

    fn accept_raw(&self, token: Token) -> Result<(), SamplerError> {
        // SAFETY: the grammar lives; the token is in range, and one that the grammar allows.
        fenced(unsafe { fence::tq_sampler_accept(self.raw.0.as_ptr(), token) })?;
        Ok(())
    }

    pub fn try_clone(&self) -> Result<Self, SamplerError> {
        let (prefill, thinking) = (self.prefill.clone(), self.thinking.clone());
        Ok(Self { raw: self.raw.try_clone()?, prefill, thinking })
    }
}

/// Where thoughts begin and end in the tokens of an answer.
#[derive(Debug, Clone)]
pub(super) struct Thinking {
    start: Vec<Token>,
    ends: Vec<Vec<Token>>,
    /// The last tokens since the state changed, as many as a mark has.
    recent: Vec<Token>,
    /// Whether the model thinks.
    active: bool,
}

impl Thinking {
    /// None: it has no beginning or no end.
    pub fn new(start: Vec<Token>, mut ends: Vec<Vec<Token>>) -> Option<Self> {
        ends.retain(|end| !end.is_empty());
        let some = !start.is_empty() && !ends.is_empty();
        some.then(|| Self { start, ends, recent: Vec::new(), active: false })
    }

    /// Adds a token; returns what ended thoughts, if it did.
    fn push(&mut self, token: Token) -> Option<Vec<Token>> {
        self.recent.push(token);
        let marks =
            if self.active { self.ends.as_slice() } else { std::slice::from_ref(&self.start) };
        let Some(mark) = marks.iter().find(|mark| self.recent.ends_with(mark)).cloned() else {
            let longest = marks.iter().map(Vec::len).max().unwrap_or(0);
            self.recent.drain(..self.recent.len().saturating_sub(longest));
            return None;
        };
        self.recent.clear();
        self.active = !self.active;
        (!self.active).then_some(mark)
    }

    fn reset(&mut self) {
        self.recent.clear();
        self.active = false;
    }
}

/// Errors: [`SamplerError::Grammar`] if it is none.
fn create(
    grammar: &str,
    root: &str,
    init: impl FnOnce(*const c_char, *const c_char, *mut *mut sys::llama_sampler) -> i32,
) -> Result<RawSampler, SamplerError> {
    let c = |text: &str| CString::new(text).map_err(|_| SamplerError::Nul { name: "grammar" });
    let (text, root) = (c(grammar)?, c(root)?);
    if grammar.trim().is_empty() {
        return Err(SamplerError::Grammar { reason: "it is empty".into() });
    }
    let mut raw = std::ptr::null_mut();
    let (status, reason) = log::errors_of(|| init(text.as_ptr(), root.as_ptr(), &raw mut raw));
    fenced(status)?;
    if raw.is_null() {
        return Err(SamplerError::Grammar { reason });
    }
    RawSampler::own(raw, "grammar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_begin_and_end() {
        let mut thinking = Thinking::new(vec![1, 2], vec![vec![3], vec![4, 5]]).expect("marks");
        let states: Vec<_> = [2, 1, 2, 1, 2, 4, 4, 5, 3, 1, 2, 3]
            .into_iter()
            .map(|token| (thinking.push(token), thinking.active).1)
            .collect();
        let (f, t) = (false, true);
        assert_eq!(states, [f, f, t, t, t, t, t, f, f, f, t, f]);
        assert_eq!(thinking.push(3), None);
        thinking.push(1);
        thinking.push(2);
        assert_eq!(thinking.push(3), Some(vec![3]));
        assert!(Thinking::new(vec![], vec![vec![3]]).is_none());
        assert!(Thinking::new(vec![1], vec![vec![]]).is_none());
    }

    #[test]
    fn words_are_no_expressions() {
        assert_eq!(escape("[TOOL_CALLS]{a|b}"), r"\[TOOL_CALLS\]\{a\|b\}");
        assert_eq!(escape("<tool_call>é"), "<tool_call>é");
    }
}
