//! Prompts that know how their answers are constrained and read.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use serde_json::Value;

use super::Token;
use super::chat::append;
use super::chat_message::ChatMessage;
use super::error::{ChatError, VocabError};
use super::ffi::fenced;
use super::grammar::{GrammarTrigger, Thinking};
use super::model::Model;
use super::sys::fence;

/// A prompt of a chat, with what its answer needs.
///
/// ```no_run
/// # use llama_turboquant::llama::{ChatMessage, ChatRequest, ChatTemplate, ChatTool, Context, ContextParams};
/// # use llama_turboquant::llama::{GenerateOptions, Model, Sampler};
/// # let model = Model::load("model.gguf")?;
/// # let mut context = Context::new(&model, &ContextParams::default())?;
/// # let (messages, tools) = ([ChatMessage::user("What time is it?")], [ChatTool::new("clock", "The time.", "{}")]);
/// let prompt = ChatTemplate::of_model(&model)?.prompt(&ChatRequest::new(&messages).tools(&tools))?;
/// let tokens = model.vocab().tokenize(prompt.text(), true, true)?;
/// let mut sampler = Sampler::builder(&model).chat(&prompt).greedy()?;
/// let answer = context.generate(&tokens, &mut sampler, GenerateOptions::default().chat(&prompt)).text()?;
/// for call in prompt.parse(&answer, false)?.tool_calls {
///     println!("{}({})", call.name, call.arguments);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChatPrompt {
    raw: RawPrompt,
    model: Arc<Model>,
    about: About,
    /// Of the first call whose number the model does not tell.
    first_call: usize,
}

// SAFETY: a prompt is owned by nothing else, and tied to no thread.
unsafe impl Send for ChatPrompt {}

/// A prompt of upstream's, freed when dropped.
pub(super) struct RawPrompt(pub NonNull<fence::tq_chat_prompt>);

/// What upstream tells of a prompt.
pub(super) struct About {
    pub text: String,
    pub stops: Vec<String>,
    /// Empty: none.
    pub grammar: String,
    pub lazy: bool,
    pub triggers: Vec<GrammarTrigger>,
    pub preserved: Vec<Token>,
    /// Of the answer's syntax, what the prompt has already.
    pub prefill: Vec<Token>,
    pub thinking: Option<Thinking>,
    pub describes_tools: bool,
    pub reads_calls: bool,
}

impl ChatPrompt {
    pub(super) fn new(
        raw: RawPrompt,
        model: &Arc<Model>,
        about: About,
        messages: &[ChatMessage],
    ) -> Self {
        let calls = messages.iter().flat_map(|message| &message.tool_calls);
        let numbers = calls.filter_map(|call| call.id.strip_prefix("call")?.parse::<usize>().ok());
        let first_call = numbers.max().map_or(0, |n| n.saturating_add(1));
        Self { raw, model: Arc::clone(model), about, first_call }
    }

    /// The prompt, to be tokenized with both `add_special` and `parse_special`. Messages that contain the texts of
    /// special tokens are then read as such: take them out of what users write.
    pub fn text(&self) -> &str {
        &self.about.text
    }

    /// Texts to stop at.
    pub fn stops(&self) -> &[String] {
        &self.about.stops
    }

    /// What the answer has to be, in GBNF, its symbol `root`; None: anything.
    /// [`SamplerBuilder::chat`](super::SamplerBuilder::chat) takes all of it.
    pub fn grammar(&self) -> Option<&str> {
        Some(self.about.grammar.as_str()).filter(|grammar| !grammar.is_empty())
    }

    /// Where the grammar begins; none: at once.
    pub fn triggers(&self) -> &[GrammarTrigger] {
        &self.about.triggers
    }

    /// Special tokens of the answer's syntax, which its text has to have.
    pub fn preserved_tokens(&self) -> &[Token] {
        &self.about.preserved
    }

    /// Whether the template tells the model of the tools. Where it only knows of calls, a system message has to.
    pub fn describes_tools(&self) -> bool {
        self.about.describes_tools
    }

    /// The model whose tokens these are.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The message that an answer is; `partial`: as far as it goes, more is to come.
    ///
    /// A call whose number the model does not tell gets one that is new in the chat: `call00000`, `call00001`.
    /// Errors: [`ChatError::Parse`], also where more than 256 brackets are open at once: llama.cpp's parser recurses.
    pub fn parse(&self, answer: &str, partial: bool) -> Result<ChatMessage, ChatError> {
        let depth = nesting(answer);
        if depth > MAX_NESTING {
            let reason = format!("{depth} brackets are open at once, {MAX_NESTING} are possible");
            return Err(ChatError::Parse { reason });
        }
        let mut json: Vec<u8> = Vec::new();
        // SAFETY: the prompt lives; a text of that length; the vector is what `append` gets.
        fenced(unsafe {
            fence::tq_chat_prompt_parse(
                self.raw.0.as_ptr(),
                answer.as_ptr().cast(),
                answer.len(),
                partial,
                Some(append),
                (&raw mut json).cast(),
            )
        })
        .map_err(|e| ChatError::Parse { reason: e.message })?;
        let json: Value = serde_json::from_slice(&json)
            .map_err(|e| ChatError::Parse { reason: e.to_string() })?;
        let mut message = ChatMessage::from_json(&json);
        let unknown = message.tool_calls.iter_mut().filter(|call| call.id.is_empty());
        for (call, number) in unknown.zip(self.first_call..) {
            call.id = format!("call{number:05}");
        }
        Ok(message)
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }
}

/// What takes a third of the 2 MiB that the stacks of threads have.
const MAX_NESTING: usize = 256;

/// The most brackets that are open at once.
fn nesting(text: &str) -> usize {
    let (mut depth, mut max) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        max = max.max(depth);
    }
    max
}

impl About {
    /// Errors: as tokenizing has them.
    pub(super) fn new(model: &Model, json: &Value) -> Result<Self, VocabError> {
        let vocab = model.vocab();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_string();
        let is = |key: &str| json[key].as_bool().unwrap_or_default();
        let texts = |key: &str| -> Vec<&str> {
            json[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let tokens = |text: &str| vocab.tokenize(text, false, true);

        let triggers = json["triggers"].as_array().into_iter().flatten();
        let triggers: Vec<_> = triggers.filter_map(GrammarTrigger::from_json).collect();
        let mut preserved: Vec<Token> = triggers.iter().filter_map(GrammarTrigger::token).collect();
        for text in texts("preserved_tokens") {
            // What is several tokens is text.
            if let [token] = tokens(text)?[..] {
                preserved.push(token);
            }
        }
        // Of a grammar that begins at once they are nothing but preserved.
        let triggers = if is("grammar_lazy") { triggers } else { Vec::new() };
        let begin = text("generation_prompt");
        let mut prefill = tokens(&begin)?;
        // The space that some vocabularies put in front of a text.
        let is_space = |bytes: &[u8]| bytes.first().is_some_and(u8::is_ascii_whitespace);
        if let Some(&first) = prefill.first()
            && is_space(&vocab.piece(first, true)?)
            && !is_space(begin.as_bytes())
        {
            prefill.remove(0);
        }
        let ends: Result<Vec<_>, _> = texts("thinking_ends").into_iter().map(tokens).collect();
        let thinking = Thinking::new(tokens(&text("thinking_start"))?, ends?);
        Ok(Self {
            text: text("prompt"),
            stops: texts("stops").into_iter().map(String::from).collect(),
            grammar: text("grammar"),
            lazy: is("grammar_lazy"),
            triggers,
            preserved,
            prefill,
            thinking,
            describes_tools: is("describes_tools"),
            reads_calls: is("reads_calls"),
        })
    }
}

impl fmt::Debug for ChatPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatPrompt").field("text", &self.text()).finish_non_exhaustive()
    }
}

impl Drop for RawPrompt {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { fence::tq_chat_prompt_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_while_they_are_open() {
        assert_eq!(nesting(r#"{"a": [[1], [2]], "b": {}}"#), 3);
        assert_eq!(nesting("]} [ ] {"), 1);
        assert_eq!(nesting("none"), 0);
    }
}
