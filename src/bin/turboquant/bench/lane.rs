//! A context that takes its turns.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use llama_turboquant::llama::{
    Context, ContextParams, DecodeError, KvFit, MemoryUse, Model, SequenceError, Token,
};

use super::setting::Setting;
use crate::Exit;

/// A setting with its context, which has one sequence.
pub struct Lane {
    pub setting: Setting,
    pub context: Context,
    pub memory: MemoryUse,
    pub fit: Option<KvFit>,
    depth: u32,
    /// The sequence at `depth`, where the memory cannot forget a part of it.
    base: Option<Vec<u8>>,
}

impl Lane {
    pub fn new(model: &Arc<Model>, setting: &Setting, params: &ContextParams) -> Result<Self> {
        let context = Context::new(model, &setting.params(params));
        let context = context.with_context(|| setting.to_string())?;
        let memory = context.memory_use()?;
        let fit = context.kv_fit();
        Ok(Self { setting: setting.clone(), context, memory, fit, depth: 0, base: None })
    }

    /// Goes on to a depth with the tokens that `text` has there.
    pub fn fill(&mut self, text: &[Token]) -> Result<()> {
        let from = self.depth as usize;
        if text.len() > from {
            self.run(&text[from..])?;
        }
        self.depth = text.len() as u32;
        if self.depth > 0 && self.context.model().is_recurrent() {
            self.base = Some(self.context.seq_state(0)?);
        }
        Ok(())
    }

    /// Decodes tokens together: tokens per second. They are removed again.
    pub fn prompt(&mut self, tokens: &[Token]) -> Result<f64> {
        let begin = Instant::now();
        self.run(tokens)?;
        let rate = tokens.len() as f64 / begin.elapsed().as_secs_f64();
        self.back()?;
        Ok(rate)
    }

    /// Decodes tokens one by one, the first as a start that does not count. They are removed again.
    pub fn generation(&mut self, tokens: &[Token]) -> Result<f64> {
        let (first, tokens) = tokens.split_at(1);
        self.run(first)?;
        let begin = Instant::now();
        for token in tokens {
            self.run(std::slice::from_ref(token))?;
        }
        let rate = tokens.len() as f64 / begin.elapsed().as_secs_f64();
        self.back()?;
        Ok(rate)
    }

    /// Until the logits are there.
    fn run(&mut self, tokens: &[Token]) -> Result<()> {
        let done = self.context.append(tokens, 0).and_then(|()| self.context.synchronize());
        match done {
            Err(DecodeError::Aborted) => Err(Exit::interrupted()),
            done => Ok(done?),
        }
    }

    /// To the depth.
    fn back(&mut self) -> Result<()> {
        match self.context.seq_remove(0, self.depth..) {
            Err(SequenceError::PartialRemove { .. }) => {
                self.context.clear()?;
                if let Some(base) = &self.base {
                    self.context.set_seq_state(0, base)?;
                }
                Ok(())
            }
            done => Ok(done?),
        }
    }
}
