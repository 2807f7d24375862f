//! Chats of several turns, of which each decodes only what is new.

use std::fmt;

use serde_json::Value;

use super::chat::ChatTemplate;
use super::chat_message::{ChatMessage, Role, ToolCall};
use super::chat_prompt::ChatPrompt;
use super::chat_request::{ChatRequest, ChatTool, ToolChoice};
use super::context::Context;
use super::error::{ChatSessionError, SamplerError, SequenceError};
use super::generate::{Finish, GenerateOptions};
use super::grammar::Grammar;
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
    tools: Vec<ChatTool>,
    tool_choice: ToolChoice,
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
    /// Tools that the model called: [`ChatSession::answer_calls`] goes on. A call that was cut off is left out.
    pub tool_calls: Vec<ToolCall>,
}

/// What the context is to decode.
struct Ready {
    tokens: Vec<Token>,
    /// None: no tools are offered.
    chat: Option<ChatPrompt>,
    n_forgotten: usize,
}

impl ChatSession {
    /// A chat that begins with these messages, mostly a system message or none. What sequence 0 has is removed.
    pub fn new(context: Context, template: ChatTemplate, first: Vec<ChatMessage>) -> Self {
        Self {
            context,
            template,
            n_first: first.len(),
            messages: first,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            decoded: Vec::new(),
        }
    }

    /// Offers the model tools, in the place of those before, and from now on takes calls and thoughts out of answers.
    /// None offered, answers are text as it comes.
    ///
    /// [`ToolChoice::Required`] is for the answer to a question: when its calls are answered, the model is free.
    pub fn offer(&mut self, tools: Vec<ChatTool>, choice: ToolChoice) {
        self.tools = tools;
        self.tool_choice = choice;
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
    /// Where tools are offered, `on_piece` gets what is neither call nor thought, and the sampler gets the grammar of
    /// calls for this answer; it must have none of its own.
    ///
    /// Errors: [`ChatSessionError`]; the chat is then as it was.
    pub fn ask(
        &mut self,
        content: impl Into<String>,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let question = vec![ChatMessage::user(content)];
        self.say(question, self.tool_choice, sampler, options, on_piece)
    }

    /// Goes on behind the calls of the last answer, with what the tools answered, a [`ChatMessage::tool`] for each;
    /// else as [`ChatSession::ask`].
    pub fn answer_calls(
        &mut self,
        answers: Vec<ChatMessage>,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let mut waiting =
            self.messages.last().map_or_else(Vec::new, |last| last.tool_calls.clone());
        for answer in &answers {
            let id = answer.tool_call_id.clone().unwrap_or_default();
            match waiting.iter().position(|call| call.id == id && answer.role == Role::Tool) {
                Some(index) => waiting.remove(index),
                None => return Err(ChatSessionError::NoCall { id }),
            };
        }
        if let Some(ToolCall { id, name, .. }) = waiting.into_iter().next() {
            return Err(ChatSessionError::Unanswered { id, name });
        }
        let choice = match self.tool_choice {
            ToolChoice::Required => ToolChoice::Auto,
            choice => choice,
        };
        self.say(answers, choice, sampler, options, on_piece)
    }

    /// Adds messages and the answer to them.
    fn say(
        &mut self,
        messages: Vec<ChatMessage>,
        choice: ToolChoice,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let before = self.messages.clone();
        self.messages.extend(messages);
        let answer = self.answer(choice, sampler, options, on_piece);
        if answer.is_err() {
            self.messages = before;
        }
        answer
    }

    fn answer(
        &mut self,
        choice: ToolChoice,
        sampler: &mut Sampler,
        options: GenerateOptions<'_>,
        mut on_piece: impl FnMut(&str),
    ) -> Result<Answer, ChatSessionError> {
        let Ready { tokens: prompt, chat, n_forgotten } =
            self.prompt(choice, options.max_tokens_or(usize::MAX))?;
        let n_reused = self.roll_back(&prompt)?;
        let n_ctx = self.context.n_ctx_seq() as usize;
        // The last token of an answer is not decoded.
        let room = n_ctx - prompt.len() + 1;
        let mut options = options.sequence(0).at_most(room);
        sampler.reset()?;
        let mut constrained = false;
        if let Some(chat) = &chat {
            options = options.chat(chat);
            constrained = constrain(sampler, chat)?;
        }

        let mut generation = self.context.generate(&prompt[n_reused..], sampler, options);
        let (mut text, mut shown) = (String::new(), String::new());
        let result = generation.try_for_each(|piece| {
            let piece = piece?;
            text.push_str(&piece.text);
            match &chat {
                None => on_piece(&piece.text),
                // What cannot be read yet may be with more of it.
                Some(chat) => {
                    if let Ok(message) = chat.parse(&text, true) {
                        show(&message.content, &mut shown, &mut on_piece);
                    }
                }
            }
            Ok(())
        });
        let finish = generation.finish().cloned().unwrap_or(Finish::Cancelled);
        let (timings, tokens) = (generation.timings(), generation.tokens().to_vec());
        drop(generation);
        if constrained {
            sampler.grammar = None;
        }

        // Aborted in the middle, the sequence may have a part of the prompt.
        let n_decoded = self.context.seq_len(0) as usize;
        let n_tokens = tokens.len();
        self.decoded = prompt;
        self.decoded.extend(tokens);
        self.decoded.truncate(n_decoded);
        result.map_err(ChatSessionError::Generate)?;
        let message = match &chat {
            None => ChatMessage::assistant(text),
            Some(chat) => {
                let message = read(chat, &text, &finish)?;
                show(&message.content, &mut shown, &mut on_piece);
                message
            }
        };
        let tool_calls = message.tool_calls.clone();
        self.messages.push(message);
        Ok(Answer { finish, timings, n_tokens, n_forgotten, tool_calls })
    }

    /// The prompt of the whole chat, or of as much of it as leaves room for an answer.
    fn prompt(&mut self, choice: ToolChoice, max_tokens: usize) -> Result<Ready, ChatSessionError> {
        let n_ctx = self.context.n_ctx_seq() as usize;
        let room = max_tokens.min(n_ctx / 4);
        let mut n_forgotten = 0;
        loop {
            let chat = if self.tools.is_empty() {
                None
            } else {
                let request = ChatRequest::new(&self.messages).tools(&self.tools);
                Some(self.template.prompt(&request.tool_choice(choice))?)
            };
            let text = match &chat {
                Some(chat) => chat.text().to_string(),
                None => self.template.apply(&self.messages, true)?,
            };
            let tokens = self.vocab().tokenize(&text, true, true)?;
            let ready = Ready { tokens, chat, n_forgotten };
            let n_tokens = ready.tokens.len();
            if n_tokens + room <= n_ctx {
                return Ok(ready);
            }
            // A question and all that answers it; the last question stays.
            let turns = self.messages.iter().skip(self.n_first);
            let Some(n) = turns.skip(1).position(|message| message.role == Role::User) else {
                if n_tokens <= n_ctx {
                    return Ok(ready);
                }
                return Err(ChatSessionError::TooLong { n_tokens, n_ctx });
            };
            self.messages.drain(self.n_first..=self.n_first + n);
            n_forgotten += n + 1;
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

/// Gives the sampler the grammar of calls; returns whether there is one.
fn constrain(sampler: &mut Sampler, chat: &ChatPrompt) -> Result<bool, SamplerError> {
    let Some(grammar) = Grammar::of_prompt(chat)? else { return Ok(false) };
    if sampler.grammar.is_some() {
        return Err(SamplerError::TwoGrammars);
    }
    sampler.grammar = Some(grammar);
    Ok(true)
}

/// The message that an answer is; calls that were cut off are left out.
fn read(chat: &ChatPrompt, text: &str, finish: &Finish) -> Result<ChatMessage, ChatSessionError> {
    let cut_off = matches!(finish, Finish::MaxTokens | Finish::Cancelled);
    let mut message = chat.parse(text, cut_off)?;
    message.tool_calls.retain(|call| serde_json::from_str::<Value>(&call.arguments).is_ok());
    Ok(message)
}

/// Tells what of a text was not told yet.
fn show(text: &str, shown: &mut String, on_piece: &mut impl FnMut(&str)) {
    if let Some(new) = text.strip_prefix(shown.as_str()).filter(|new| !new.is_empty()) {
        on_piece(new);
        shown.push_str(new);
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.messages).finish_non_exhaustive()
    }
}
