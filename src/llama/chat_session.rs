//! Chats of several turns, of which each decodes only what is new.

use std::fmt;

use super::chat::{ChatMessage, ChatTemplate};
use super::context::Context;
use super::error::{ChatSessionError, SequenceError};
use super::generate::{Finish, GenerateOptions};
use super::sampler::Sampler;
use super::timings::Timings;
use super::{Token, Vocab};

/// A chat in sequence 0 of a context.
///
/// ```no_run
/// # use llama_turboquant::llama::{ChatMessage, ChatSession, ChatTemplate, Context, ContextParams, GenerateOptions};
/// # use llama_turboquant::llama::{Model, Sampler};
/// # let model = Model::load("model.gguf")?;
/// let context = Context::new(&model, &ContextParams::default())?;
/// let mut chat = ChatSession::new(context, ChatTemplate::of_model(&model)?, vec![ChatMessage::system("Be brief.")]);
/// let mut sampler = Sampler::greedy(&model)?;
/// chat.ask("What is the capital of France?", &mut sampler, GenerateOptions::default(), |piece| print!("{piece}"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChatSession {
    context: Context,
    template: ChatTemplate,
    messages: Vec<ChatMessage>,
    /// How many messages come before the first of the user, and stay.
    n_first: usize,
    /// The tokens that the sequence has.
    decoded: Vec<Token>,
}

/// What [`ChatSession::ask`] brought.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Why it ended.
    pub finish: Finish,
    /// What it took. The prompt's tokens are those that were not decoded before.
    pub timings: Timings,
    /// Tokens of the answer.
    pub n_tokens: usize,
    /// Messages that were forgotten to make room, the oldest.
    pub n_forgotten: usize,
}

impl ChatSession {
    /// A chat that begins with these messages, mostly a system message or none. What sequence 0 has is removed.
    pub fn new(context: Context, template: ChatTemplate, first: Vec<ChatMessage>) -> Self {
        let n_first = first.len();
        Self { context, template, messages: first, n_first, decoded: Vec::new() }
    }

    /// The messages so far.
    pub fn messages(&self) -> &[ChatMessage] {
        &self.messages
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Forgets all but the messages that the chat began with.
    pub fn clear(&mut self) {
        self.messages.truncate(self.n_first);
    }

    /// Asks something; `on_piece` gets the answer as it comes. Both become part of the chat, a cancelled answer as
    /// far as it got. Where the context has no room, the oldest messages are forgotten.
    ///
    /// Errors: [`ChatSessionError`]; the chat is then as it was.
    pub fn ask(
        &mut self,
        content: impl Into<String>,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let before = self.messages.clone();
        self.messages.push(ChatMessage::user(content));
        let answer = self.answer(sampler, options, on_piece);
        if answer.is_err() {
            self.messages = before;
        }
        answer
    }

    fn answer(
        &mut self,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        mut on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let (prompt, n_forgotten) = self.prompt(options.max_tokens_or(usize::MAX))?;
        let n_reused = self.roll_back(&prompt)?;
        let n_ctx = self.context.n_ctx_seq() as usize;
        // The last token of an answer is not decoded.
        let room = n_ctx - prompt.len() + 1;
        let options = options.sequence(0).at_most(room);
        sampler.reset()?;

        let mut generation = self.context.generate(&prompt[n_reused..], sampler, options);
        let mut text = String::new();
        let result = generation.try_for_each(|piece| {
            let piece = piece?;
            on_piece(&piece.text);
            text.push_str(&piece.text);
            Ok(())
        });
        let finish = generation.finish().cloned().unwrap_or(Finish::Cancelled);
        let (timings, tokens) = (generation.timings(), generation.tokens().to_vec());
        drop(generation);

        // Aborted in the middle, the sequence may have a part of the prompt.
        let n_decoded = self.context.seq_len(0) as usize;
        let n_tokens = tokens.len();
        self.decoded = prompt;
        self.decoded.extend(tokens);
        self.decoded.truncate(n_decoded);
        result.map_err(ChatSessionError::Generate)?;
        self.messages.push(ChatMessage::assistant(text));
        Ok(Answer { finish, timings, n_tokens, n_forgotten })
    }

    /// The tokens of the whole chat, and how many messages were forgotten to leave room for an answer.
    fn prompt(&mut self, max_tokens: usize) -> Result<(Vec<Token>, usize), ChatSessionError> {
        let n_ctx = self.context.n_ctx_seq() as usize;
        let room = max_tokens.min(n_ctx / 4);
        let mut n_forgotten = 0;
        loop {
            let text = self.template.apply(&self.messages, true)?;
            let tokens = self.vocab().tokenize(&text, true, true)?;
            if tokens.len() + room <= n_ctx {
                return Ok((tokens, n_forgotten));
            }
            // A question and its answer; the last question stays.
            if self.messages.len() < self.n_first + 3 {
                return match tokens.len() {
                    n_tokens if n_tokens <= n_ctx => Ok((tokens, n_forgotten)),
                    n_tokens => Err(ChatSessionError::TooLong { n_tokens, n_ctx }),
                };
            }
            self.messages.drain(self.n_first..self.n_first + 2);
            n_forgotten += 2;
        }
    }

    /// Removes from the sequence what the prompt does not begin with; returns how many tokens stay, fewer than the
    /// prompt has.
    fn roll_back(&mut self, prompt: &[Token]) -> Result<usize, SequenceError> {
        let same = self.decoded.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let same = same.min(prompt.len().saturating_sub(1));
        let from = u32::try_from(same).unwrap_or(u32::MAX);
        let n_reused = match self.context.seq_remove(0, from..) {
            Ok(()) => same,
            // Recurrent states: all anew.
            Err(SequenceError::PartialRemove { .. }) => {
                self.context.seq_remove(0, ..)?;
                0
            }
            Err(e) => return Err(e),
        };
        self.decoded.truncate(n_reused);
        Ok(n_reused)
    }

    fn vocab(&self) -> Vocab<'_> {
        self.context.model().vocab()
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.messages).finish_non_exhaustive()
    }
}
