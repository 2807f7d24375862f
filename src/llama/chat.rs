//! Chats: messages to prompts, by the template that a model comes with.
//!
//! Templates are Jinja, which llama.cpp's own engine runs, as its server does. `llama_chat_apply_template` only
//! recognizes some templates and has a copy of each; another engine would be one more that may differ.

use std::ffi::{CString, NulError, c_char, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use serde_json::Value;

use super::chat_message::ChatMessage;
use super::chat_prompt::{About, ChatPrompt, RawPrompt};
use super::chat_request::{ChatRequest, ToolChoice};
use super::error::ChatError;
use super::ffi::fenced;
use super::model::Model;
use super::sys::fence;

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
        Self::parse(model, source, true)
    }

    /// A template for a model, in Jinja. Errors: [`ChatError::Template`].
    pub fn new(model: &Arc<Model>, source: &str) -> Result<Self, ChatError> {
        Self::parse(model, source, false)
    }

    /// `own`: the source is the model's, which may have a variant for tools beside it.
    fn parse(model: &Arc<Model>, source: &str, own: bool) -> Result<Self, ChatError> {
        if source.is_empty() {
            return Err(ChatError::Template { reason: "it is empty".into() });
        }
        let source = CString::new(source)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the model lives; the source is terminated and copied.
        fenced(unsafe {
            fence::tq_chat_template_new(model.raw(), source.as_ptr(), own, &raw mut raw)
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
        if !messages.iter().all(ChatMessage::is_plain) {
            let request = ChatRequest::new(messages).add_assistant(add_assistant);
            return Ok(self.prompt(&request)?.text().to_string());
        }
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
                Some(append),
                (&raw mut prompt).cast(),
            )
        })
        .map_err(|e| ChatError::Apply { reason: e.message })?;
        Ok(String::from_utf8_lossy(&prompt).into_owned())
    }

    /// The prompt of a chat in which the model may call tools, and how its answer is constrained and read: as
    /// llama.cpp's server does it for this template.
    ///
    /// Errors: [`ChatError`]. Among them are [`ChatError::NoTools`] where the template would say nothing of tools, and
    /// [`ChatError::Apply`].
    pub fn prompt(&self, request: &ChatRequest<'_>) -> Result<ChatPrompt, ChatError> {
        let json = CString::new(request.to_json(&self.model)?)?;
        let (mut raw, mut about) = (std::ptr::null_mut(), Vec::<u8>::new());
        let error = |reason: String| ChatError::Apply { reason };
        // SAFETY: the template lives; a terminated text; the vector is what `append` gets.
        fenced(unsafe {
            fence::tq_chat_prompt_new(
                self.raw.as_ptr(),
                json.as_ptr(),
                &raw mut raw,
                Some(append),
                (&raw mut about).cast(),
            )
        })
        .map_err(|e| error(e.message))?;
        let raw = NonNull::new(raw).map(RawPrompt).ok_or_else(|| error("no prompt".into()))?;
        let about: Value = serde_json::from_slice(&about).map_err(|e| error(e.to_string()))?;
        let about = About::new(&self.model, &about).map_err(|e| error(e.to_string()))?;
        let unenforced = request.tool_choice == ToolChoice::Required && about.grammar.is_empty();
        if request.may_call() && (!about.reads_calls || unenforced) {
            return Err(ChatError::NoTools);
        }
        if request.may_call() && !about.describes_tools {
            tracing::warn!("the chat template knows of calls, but does not describe the tools");
        }
        Ok(ChatPrompt::new(raw, &self.model, about, request.messages))
    }

    /// The model that it is for.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

/// Adds what C++ writes to a `Vec<u8>`.
pub(super) unsafe extern "C" fn append(prompt: *mut c_void, text: *const c_char, len: usize) {
    // SAFETY: the vector that the caller hands over, and a text of that length.
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
