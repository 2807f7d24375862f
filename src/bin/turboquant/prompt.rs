//! A prompt, from the command line to tokens.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use llama_turboquant::llama::{ChatError, ChatMessage, ChatTemplate, Model, Token};

use crate::args::read_text;
use crate::progress;

/// Of `-p` and `-f`; None: there is neither.
pub fn text(prompt: Option<&str>, file: Option<&Path>) -> Result<Option<String>> {
    let prompt = match (prompt, file) {
        (Some(prompt), _) => Some(prompt.to_owned()),
        (None, Some(file)) => Some(read_text(file)?),
        (None, None) => None,
    };
    if prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty()) {
        bail!("the prompt is empty");
    }
    Ok(prompt)
}

/// The tokens of a prompt behind `first`, in the model's chat template if it has one and `raw` is false.
pub fn tokens(
    model: &Arc<Model>,
    prompt: &str,
    raw: bool,
    first: Vec<ChatMessage>,
) -> Result<Vec<Token>> {
    let text = match if raw { Err(ChatError::None) } else { ChatTemplate::of_model(model) } {
        Ok(template) => {
            let mut messages = first;
            messages.push(ChatMessage::user(prompt));
            template.apply(&messages, true)?
        }
        Err(ChatError::None) => {
            if !first.is_empty() {
                bail!("a system prompt needs a chat template, which the model does not have");
            }
            if !raw {
                progress::message(
                    "the model has no chat template: it goes on with the prompt as it is (--raw)",
                );
            }
            prompt.to_owned()
        }
        Err(e) => return Err(e.into()),
    };
    Ok(model.vocab().tokenize(&text, true, true)?)
}
