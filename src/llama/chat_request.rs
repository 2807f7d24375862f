//! What a model is asked in a chat: messages, and the tools that it may call.

use std::collections::HashSet;
use std::ffi::{CStr, CString};

use serde_json::{Value, json};

use super::chat::append;
use super::chat_message::{ChatMessage, has_nul};
use super::error::ChatError;
use super::ffi::fenced;
use super::grammar::Grammar;
use super::model::Model;
use super::sys::fence;

/// A function that a model may call; the program runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTool {
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// Its arguments: a JSON schema of an object; `{}`: none.
    pub parameters: String,
}

impl ChatTool {
    /// A function that a model may call.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), description: description.into(), parameters: parameters.into() }
    }
}

/// Whether a model calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As it thinks best.
    #[default]
    Auto,
    /// One at least: at once, where calls of the template begin with a mark, which the prompt then ends with, and the
    /// model does not think first. Else it may say anything before, as in llama.cpp's server.
    Required,
    /// None. Templates describe them all the same.
    None,
}

impl ToolChoice {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::None => "none",
        }
    }
}

/// What [`ChatTemplate::prompt`](super::ChatTemplate::prompt) makes a prompt of.
///
/// ```
/// use llama_turboquant::llama::{ChatMessage, ChatRequest, ChatTool, ToolChoice};
///
/// let parameters = r#"{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}"#;
/// let tools = [ChatTool::new("weather", "The weather of a city, now.", parameters)];
/// let messages = [ChatMessage::user("Do I need an umbrella in Oslo?")];
/// let request = ChatRequest::new(&messages).tools(&tools).tool_choice(ToolChoice::Required);
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct ChatRequest<'a> {
    pub(super) messages: &'a [ChatMessage],
    pub(super) tools: &'a [ChatTool],
    pub(super) tool_choice: ToolChoice,
    parallel_calls: Option<bool>,
    thinking: bool,
    add_assistant: bool,
}

impl<'a> ChatRequest<'a> {
    /// An answer to these messages.
    pub fn new(messages: &'a [ChatMessage]) -> Self {
        Self {
            messages,
            tools: &[],
            tool_choice: ToolChoice::Auto,
            parallel_calls: None,
            thinking: true,
            add_assistant: true,
        }
    }

    /// Tools that the model may call. Default: none.
    pub fn tools(self, tools: &'a [ChatTool]) -> Self {
        Self { tools, ..self }
    }

    /// Whether it calls one. Default: as it thinks best.
    pub fn tool_choice(self, tool_choice: ToolChoice) -> Self {
        Self { tool_choice, ..self }
    }

    /// Whether it may call several at once. Default: if the template can.
    pub fn parallel_calls(self, parallel: bool) -> Self {
        Self { parallel_calls: Some(parallel), ..self }
    }

    /// Whether it may think aloud, where the template knows of that. Default: yes.
    pub fn thinking(self, thinking: bool) -> Self {
        Self { thinking, ..self }
    }

    /// Whether the prompt ends where the answer begins. Default: yes.
    pub(super) fn add_assistant(self, add_assistant: bool) -> Self {
        Self { add_assistant, ..self }
    }

    /// Whether the model may call something.
    pub(super) fn may_call(&self) -> bool {
        !self.tools.is_empty() && self.tool_choice != ToolChoice::None
    }

    /// As tq_chat_prompt_new takes it. Errors: [`ChatError`], what is wrong with messages and tools.
    pub(super) fn to_json(self, model: &Model) -> Result<String, ChatError> {
        if self.messages.is_empty() {
            return Err(ChatError::Apply { reason: "there are no messages".into() });
        }
        if self.tools.is_empty() && self.tool_choice == ToolChoice::Required {
            return Err(ChatError::NothingToCall);
        }
        let messages = self.messages.iter().enumerate();
        let messages: Result<Vec<_>, _> = messages.map(|(i, message)| message.to_json(i)).collect();
        let mut names = HashSet::new();
        let tools = self.tools.iter().enumerate().map(|(index, tool)| {
            let tool_json = tool.to_json(model, index)?;
            match names.insert(tool.name.as_str()) {
                true => Ok(tool_json),
                false => Err(ChatError::ToolTwice { name: tool.name.clone() }),
            }
        });
        let tools: Result<Vec<_>, _> = tools.collect();
        Ok(json!({
            "messages": messages?,
            "tools": tools?,
            "tool_choice": self.tool_choice.name(),
            "parallel_tool_calls": self.parallel_calls,
            "enable_thinking": self.thinking,
            "add_generation_prompt": self.add_assistant,
        })
        .to_string())
    }
}

impl ChatTool {
    /// Errors: [`ChatError::ToolName`], [`ChatError::NulByte`], [`ChatError::Schema`].
    fn to_json(&self, model: &Model, index: usize) -> Result<Value, ChatError> {
        if self.name.trim().is_empty() {
            return Err(ChatError::ToolName { index });
        }
        let error = |reason: String| ChatError::Schema { tool: self.name.clone(), reason };
        let parameters: Value =
            serde_json::from_str(&self.parameters).map_err(|e| error(e.to_string()))?;
        let function =
            json!({ "name": self.name, "description": self.description, "parameters": parameters });
        if has_nul(&function) {
            let what = format!("the tool {}", self.name.replace('\0', "\\0"));
            return Err(ChatError::NulByte { what });
        }
        if !parameters.is_object() {
            return Err(error(format!("{parameters} is no object")));
        }
        if let Some(kind) = parameters.get("type").filter(|kind| !is_object(kind)) {
            return Err(error(format!("its type is {kind}")));
        }
        check_schema(model, &CString::new(parameters.to_string())?).map_err(error)?;
        Ok(json!({ "type": "function", "function": function }))
    }
}

/// Whether a schema's type can be an object.
fn is_object(kind: &Value) -> bool {
    *kind == "object" || kind.as_array().is_some_and(|kinds| kinds.contains(&"object".into()))
}

/// Whether a grammar can be made of a schema. Error: why not.
fn check_schema(model: &Model, schema: &CStr) -> Result<(), String> {
    let mut grammar: Vec<u8> = Vec::new();
    // SAFETY: a terminated text, which lives during the call; the vector is what `append` gets.
    let made = fenced(unsafe {
        fence::tq_json_schema_to_grammar(schema.as_ptr(), Some(append), (&raw mut grammar).cast())
    });
    if let Err(e) = made {
        return Err(e.message.replace("JSON schema conversion failed:\n", ""));
    }
    let grammar = String::from_utf8_lossy(&grammar);
    Grammar::new(model, &grammar, "root").map(|_| ()).map_err(|e| e.to_string())
}
