//! What to ask: of the command line, of a file, and of standard input.

use std::io::{IsTerminal, Read, Stdin};

use anyhow::{Context, Result};

use super::Args;
use crate::{Exit, prompt};

/// The prompt; None: a chat, on a terminal.
///
/// What is piped in is the prompt, or what a prompt of the command line is about: it follows on that.
pub fn prompt(args: &Args) -> Result<Option<String>> {
    let asked = prompt::text(args.prompt.as_deref(), args.file.as_deref())?;
    let stdin = std::io::stdin();
    let is_terminal = stdin.is_terminal();
    let prompt = match (asked, piped(stdin)?) {
        (Some(asked), Some(text)) => Some(format!("{asked}\n\n{text}")),
        (asked, text) => asked.or(text),
    };
    if prompt.is_some() {
        return Ok(prompt);
    }
    if args.raw {
        return Err(Exit::usage("--raw needs a prompt: -p, -f or standard input"));
    }
    if !is_terminal {
        let text = "no prompt: give one with -p, -f or on standard input, which is empty, or chat on a terminal";
        return Err(Exit::usage(text));
    }
    Ok(None)
}

/// The text that a pipe or a file brings on standard input, without the line end behind it. None: nothing but spaces, or
/// there is a terminal or another device, which might never end.
fn piped(mut stdin: Stdin) -> Result<Option<String>> {
    if stdin.is_terminal() || is_device(&stdin) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).context("cannot read standard input")?;
    let mut text = String::from_utf8(bytes).context("standard input is not UTF-8")?;
    if text.ends_with('\n') {
        text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
    }
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

#[cfg(unix)]
fn is_device(stdin: &Stdin) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let copy = stdin.as_fd().try_clone_to_owned();
    let metadata = copy.map(std::fs::File::from).and_then(|file| file.metadata());
    // Closed, it has nothing to read either.
    metadata.map_or(true, |metadata| metadata.file_type().is_char_device())
}

#[cfg(not(unix))]
fn is_device(_: &Stdin) -> bool {
    false
}
