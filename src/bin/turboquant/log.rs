//! Warnings of llama.cpp and of the library on stderr, everything if asked for.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use llama_turboquant::llama;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::progress;

/// Where the errors of llama.cpp's log are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// As they come.
    InLog,
    /// In the message of the operation that failed, which has them.
    InMessage,
}

/// To be called once, before llama.cpp is used.
pub fn init(verbose: bool, errors: Errors) {
    let log = Log { verbose, errors, shown: Mutex::default() };
    // Fails if there is one already: then that is in use.
    let _ = tracing::subscriber::set_global_default(log);
    llama::log::init();
}

struct Log {
    verbose: bool,
    errors: Errors,
    /// Warnings, of which each is shown once.
    shown: Mutex<HashSet<String>>,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match *metadata.level() {
            Level::ERROR => self.verbose || self.errors == Errors::InLog,
            Level::WARN => true,
            level => self.verbose && level <= Level::DEBUG,
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let name = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let line = format!("{name}{}{}", text.message, text.fields);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.verbose || shown.insert(line.clone()) {
            progress::message(&line);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's text.
#[derive(Default)]
struct Text {
    message: String,
    /// ` name=value` of each other field.
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }
}
