//! Chats: messages to prompts, by the template that a model comes with.
//!
//! Templates are Jinja, which llama.cpp's own engine runs, as its server does. `llama_chat_apply_template` only
//! recognizes some templates and has a copy of each; another engine would be one more that may differ.

use std::ffi::{CString, NulError, c_char, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::ChatError;
use super::ffi::fenced;
use super::model::Model;
use super::sys::fence;

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
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

impl ChatMessage {
    /// What someone says.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
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
}

/// A chat template, parsed.
///
/// ```no_run
/// # use llama_turboquant::llama::{ChatMessage, ChatTemplate, Model};
/// # let model = Model::load("model.gguf")?;
/// let template = ChatTemplate::of_model(&model)?;
/// let prompt = template.apply(&[ChatMessage::user("What is the capital of France?")], true)?;
/// let tokens = model.vocab().tokenize(&prompt, true, true)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChatTemplate {
    raw: NonNull<fence::tq_chat_template>,
    /// Tells where the template is of.
    model: Arc<Model>,
}

// SAFETY: a template is owned by nothing else, and tied to no thread.
unsafe impl Send for ChatTemplate {}

impl ChatTemplate {
    /// The template that a model comes with. Errors: [`ChatError::None`], [`ChatError::Template`].
    pub fn of_model(model: &Arc<Model>) -> Result<Self, ChatError> {
        let source = model.chat_template().ok_or(ChatError::None)?;
        Self::new(model, source)
    }

    /// A template for a model, in Jinja. Errors: [`ChatError::Template`].
    pub fn new(model: &Arc<Model>, source: &str) -> Result<Self, ChatError> {
        let source = CString::new(source)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the vocabulary lives; the source is terminated and copied.
        fenced(unsafe {
            fence::tq_chat_template_new(model.vocab().raw(), source.as_ptr(), &raw mut raw)
        })
        .map_err(|e| ChatError::Template { reason: e.message })?;
        let missing = || ChatError::Template { reason: "there is none".into() };
        Ok(Self { raw: NonNull::new(raw).ok_or_else(missing)?, model: Arc::clone(model) })
    }

    /// The prompt of a chat; with `add_assistant` it ends where the model's answer begins.
    ///
    /// It is to be tokenized with both `add_special` and `parse_special`. Messages that contain the texts of special
    /// tokens are then read as such: take them out of what users write.
    /// Errors: [`ChatError::Apply`], as where the template wants other roles or another order.
    pub fn apply(
        &self,
        messages: &[ChatMessage],
        add_assistant: bool,
    ) -> Result<String, ChatError> {
        let texts = |text: fn(&ChatMessage) -> &str| -> Result<Vec<CString>, NulError> {
            messages.iter().map(|message| CString::new(text(message))).collect()
        };
        let roles = texts(|message| message.role.name())?;
        let contents = texts(|message| &message.content)?;
        let pointers = |texts: &[CString]| -> Vec<*const c_char> {
            texts.iter().map(|text| text.as_ptr()).collect()
        };
        let (mut role_pointers, mut content_pointers) = (pointers(&roles), pointers(&contents));
        let mut prompt: Vec<u8> = Vec::new();
        // SAFETY: n terminated texts each, which live during the call, as the prompt does, which `append` gets.
        fenced(unsafe {
            fence::tq_chat_template_apply(
                self.raw.as_ptr(),
                role_pointers.as_mut_ptr(),
                content_pointers.as_mut_ptr(),
                messages.len(),
                add_assistant,
                append,
                (&raw mut prompt).cast(),
            )
        })
        .map_err(|e| ChatError::Apply { reason: e.message })?;
        Ok(String::from_utf8_lossy(&prompt).into_owned())
    }

    /// The model that it is for.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

unsafe extern "C" fn append(prompt: *mut c_void, text: *const c_char, len: usize) {
    // SAFETY: the vector that `apply` hands over, and a text of that length.
    unsafe {
        let prompt = &mut *prompt.cast::<Vec<u8>>();
        prompt.extend_from_slice(std::slice::from_raw_parts(text.cast(), len));
    }
}

impl Drop for ChatTemplate {
    fn drop(&mut self) {
        // SAFETY: made by us and freed once.
        unsafe { fence::tq_chat_template_free(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("model", &self.model).finish_non_exhaustive()
    }
}
