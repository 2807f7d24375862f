//! Messages of chats, and what of them goes across the language border as JSON.

use serde_json::{Value, json};

use super::error::ChatError;

/// Who says something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
    /// One that a template knows beside these.
    Other(String),
}

impl Role {
    /// As templates have it.
    pub fn name(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other(name) => name,
        }
    }
}

/// A message of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
    /// What the model thought before it answered, where it thinks aloud.
    pub reasoning: Option<String>,
    /// Tools that the model called.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's answer: [`ToolCall::id`].
    pub tool_call_id: Option<String>,
    /// Of a tool's answer: [`ToolCall::name`].
    pub tool_name: Option<String>,
}

/// A tool that a model called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToolCall {
    /// Tells it from other calls of the chat.
    pub id: String,
    /// Of the tool.
    pub name: String,
    /// JSON, mostly an object; of a call that is not over, its beginning.
    pub arguments: String,
}

impl ChatMessage {
    /// What someone says.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            tool_name: None,
        }
    }

    /// How the assistant is to behave.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model has said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What the model has said, mostly nothing, and the tools that it called.
    pub fn tool_calls(content: impl Into<String>, calls: Vec<ToolCall>) -> Self {
        Self { tool_calls: calls, ..Self::assistant(content) }
    }

    /// What a tool answers to a call.
    pub fn tool(call: &ToolCall, content: impl Into<String>) -> Self {
        let (id, name) = (Some(call.id.clone()), Some(call.name.clone()));
        Self { tool_call_id: id, tool_name: name, ..Self::new(Role::Tool, content) }
    }

    /// Whether it is a role and a text, and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        let Self { role: _, content: _, reasoning, tool_calls, tool_call_id, tool_name } = self;
        let others = [reasoning, tool_call_id, tool_name];
        tool_calls.is_empty() && others.into_iter().all(Option::is_none)
    }

    /// Errors: [`ChatError::NulByte`], [`ChatError::Arguments`]; `index` is told then.
    pub(super) fn to_json(&self, index: usize) -> Result<Value, ChatError> {
        let mut message = json!({ "role": self.role.name(), "content": self.content });
        let optional = [
            ("reasoning_content", &self.reasoning),
            ("tool_call_id", &self.tool_call_id),
            ("name", &self.tool_name),
        ];
        for (key, text) in optional {
            if let Some(text) = text {
                message[key] = text.as_str().into();
            }
        }
        if !self.tool_calls.is_empty() {
            let calls: Result<_, _> = self.tool_calls.iter().map(ToolCall::to_json).collect();
            message["tool_calls"] = Value::Array(calls?);
        }
        if has_nul(&message) {
            return Err(ChatError::NulByte { what: format!("message {index}") });
        }
        Ok(message)
    }

    /// What [`ChatMessage::to_json`] made, and upstream's parser does.
    pub(super) fn from_json(message: &Value) -> Self {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_string();
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let reasoning = Some(text("reasoning_content")).filter(|text| !text.is_empty());
        let calls = calls.iter().map(ToolCall::from_json).collect();
        Self { reasoning, ..Self::tool_calls(text("content"), calls) }
    }
}

impl ToolCall {
    fn to_json(&self) -> Result<Value, ChatError> {
        if let Err(e) = serde_json::from_str::<Value>(&self.arguments) {
            return Err(ChatError::Arguments { tool: self.name.clone(), reason: e.to_string() });
        }
        let function = json!({ "name": self.name, "arguments": self.arguments });
        Ok(json!({ "type": "function", "id": self.id, "function": function }))
    }

    fn from_json(call: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let function = &call["function"];
        let (name, arguments) = (text(&function["name"]), text(&function["arguments"]));
        Self { id: text(&call["id"]), name, arguments }
    }
}

/// Whether a text in a value has a NUL byte in it.
pub(super) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(values) => {
            values.iter().any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_gives_the_message_back() {
        let call = ToolCall {
            id: "1".into(),
            name: "add".into(),
            arguments: r#"{"a": "\u0041\"", "b": 2}"#.into(),
        };
        let mut message = ChatMessage::tool_calls("Wait.", vec![call]);
        message.reasoning = Some("A sum.".into());
        let json = message.to_json(0).expect("JSON");
        assert_eq!(ChatMessage::from_json(&json), message);
    }
}
