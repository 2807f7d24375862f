//! A chat on a terminal.

use std::io::Write;

use anyhow::{Result, bail};
use llama_turboquant::llama::{
    ChatError, ChatSession, ChatSessionError, ChatTemplate, Context, Finish, Sampler,
};

use super::{Args, Interrupt, first_messages, options, took};
use crate::progress;

const HELP: &str = "/clear forgets what was said, /exit or Ctrl-D ends, Ctrl-C stops an answer";

pub fn run(
    args: &Args,
    context: Context,
    sampler: &mut Sampler,
    interrupt: &Interrupt,
) -> Result<()> {
    let template = match ChatTemplate::of_model(context.model()) {
        Err(ChatError::None) => {
            bail!("the model has no chat template: give a prompt, with --raw -p or --raw -f")
        }
        template => template?,
    };
    let mut chat = ChatSession::new(context, template, first_messages(args));
    progress::message(HELP);
    while let Some(line) = ask_user(interrupt)? {
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/clear" => chat.clear(),
            "/help" | "/?" => progress::message(HELP),
            question => {
                interrupt.answering();
                answer(args, &mut chat, sampler, question)?;
            }
        }
    }
    Ok(())
}

/// A line from the terminal; None: it is closed.
fn ask_user(interrupt: &Interrupt) -> Result<Option<String>> {
    interrupt.idle();
    let mut stderr = std::io::stderr();
    write!(stderr, "> ")?;
    stderr.flush()?;
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line)?;
    if n == 0 {
        writeln!(stderr)?;
    }
    Ok((n > 0).then_some(line))
}

fn answer(
    args: &Args,
    chat: &mut ChatSession,
    sampler: &mut Sampler,
    question: &str,
) -> Result<()> {
    let mut written = Ok(());
    let answer = chat.ask(question, sampler, options(args), |piece| {
        if written.is_ok() {
            written = crate::print(piece);
        }
    });
    crate::print("\n")?;
    written?;
    match answer {
        Ok(answer) => {
            if answer.n_forgotten > 0 {
                let n = answer.n_forgotten;
                progress::message(&format!(
                    "the context is full: the {n} oldest messages are forgotten"
                ));
            }
            if answer.finish == Finish::MaxTokens && args.predict < 0 {
                progress::message("the context is full: raise -c for more");
            }
            let memory = chat.context().memory_use()?;
            progress::message(&took(&answer.timings, answer.n_tokens, &memory));
            Ok(())
        }
        Err(error @ ChatSessionError::TooLong { .. }) => {
            progress::message(&format!("error: {error}"));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
