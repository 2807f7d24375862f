//! One edit of one text.

use super::{Edit, EditError, THEN_LINES};

/// What an edit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// The text is already where the edit would put it.
    AlreadyApplied,
}

impl Edit {
    /// Errors: not exactly one action, an empty anchor, text that holds its own anchor.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.pins.as_ref().is_some_and(Vec::is_empty) {
            return Err("an edit for no pin does nothing");
        }
        let actions = [&self.before, &self.after, &self.replace];
        if actions.iter().filter(|a| a.is_some()).count() != 1 {
            return Err("exactly one of before, after and replace is needed");
        }
        if self.anchor.trim().is_empty() || self.then.as_ref().is_some_and(|t| t.trim().is_empty())
        {
            return Err("an anchor cannot be empty");
        }
        let inserted = self.before.as_ref().or(self.after.as_ref());
        if inserted.is_some_and(|t| t.contains(&self.anchor)) {
            return Err("the inserted text holds its own anchor, which would make it ambiguous");
        }
        Ok(())
    }

    /// Applies this edit to the text of a file. `name` is the edit's, for errors.
    ///
    /// A file with CRLF line ends keeps them: anchors and texts are written with LF, and are
    /// converted. Errors: Missing, Ambiguous, MissingThen.
    pub fn apply(&self, name: &str, text: &str) -> Result<(String, Outcome), EditError> {
        let native = |s: &str| with_line_ends_of(text, s);
        let newline = native("\n");
        let newline = newline.as_str();
        let anchor = native(&self.anchor);
        let then = self.then.as_deref().map(native);

        if let Some(new) = self.replace.as_deref().map(native) {
            return self.apply_replace(name, text, &anchor, then.as_deref(), &new);
        }

        let (at, len) = self.locate(name, text, &anchor, then.as_deref())?;
        let mut lines =
            native(self.before.as_deref().or(self.after.as_deref()).unwrap_or_default());
        if !lines.ends_with(newline) {
            lines.push_str(newline);
        }
        let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[at + len..].find('\n').map_or(text.len(), |i| at + len + i + 1);
        let (place, done) = if self.before.is_some() {
            (line_start, text[..line_start].ends_with(&lines))
        } else {
            (line_end, text[line_end..].starts_with(&lines))
        };
        if done {
            return Ok((text.into(), Outcome::AlreadyApplied));
        }
        // The last line of a file may lack its line end.
        let gap = if place == text.len() && !text.ends_with('\n') { newline } else { "" };
        Ok((format!("{}{gap}{lines}{}", &text[..place], &text[place..]), Outcome::Applied))
    }

    /// The text as it was before this edit, if it is one that this edit was applied to.
    pub fn undo(&self, text: &str) -> Option<String> {
        let native = |s: &str| with_line_ends_of(text, s);
        let (new, old) = match &self.replace {
            Some(new) => (new.clone(), self.then.as_ref().unwrap_or(&self.anchor).as_str()),
            None => {
                let lines = self.before.as_ref().or(self.after.as_ref())?;
                (if lines.ends_with('\n') { lines.clone() } else { format!("{lines}\n") }, "")
            }
        };
        let (new, old) = (native(&new), native(old));
        text.match_indices(&new).find_map(|(at, _)| {
            let before = format!("{}{old}{}", &text[..at], &text[at + new.len()..]);
            let again = self.apply("", &before);
            again.is_ok_and(|(again, o)| o == Outcome::Applied && again == text).then_some(before)
        })
    }

    fn apply_replace(
        &self,
        name: &str,
        text: &str,
        anchor: &str,
        then: Option<&str>,
        new: &str,
    ) -> Result<(String, Outcome), EditError> {
        let old = then.unwrap_or(anchor);
        match self.locate(name, text, anchor, then) {
            Ok((at, len)) => {
                // A replacement that keeps the old text around: is it there already?
                let done =
                    new.match_indices(old).any(|(i, _)| at >= i && text[at - i..].starts_with(new));
                if done {
                    return Ok((text.into(), Outcome::AlreadyApplied));
                }
                Ok((format!("{}{new}{}", &text[..at], &text[at + len..]), Outcome::Applied))
            }
            Err(error) => {
                let rest = match then {
                    Some(_) => text.find(anchor).map_or("", |i| &text[i..]),
                    None => text,
                };
                let missing =
                    matches!(error, EditError::Missing { .. } | EditError::MissingThen { .. });
                if missing && !new.is_empty() && rest.contains(new) {
                    return Ok((text.into(), Outcome::AlreadyApplied));
                }
                Err(error)
            }
        }
    }

    /// Byte offset and length of the place of this edit.
    fn locate(
        &self,
        name: &str,
        text: &str,
        anchor: &str,
        then: Option<&str>,
    ) -> Result<(usize, usize), EditError> {
        let (edit, file) = (name.to_string(), self.file.clone());
        let found: Vec<usize> = text.match_indices(anchor).map(|(i, _)| i).collect();
        let line = |at: usize| text[..at].matches('\n').count() + 1;
        let at = match found[..] {
            [at] => at,
            [] => {
                return Err(EditError::Missing { edit, file, anchor: self.anchor.clone() });
            }
            _ => {
                let lines = found.into_iter().map(line).collect();
                return Err(EditError::Ambiguous {
                    edit,
                    file,
                    anchor: self.anchor.clone(),
                    lines,
                });
            }
        };
        let Some(then) = then else {
            return Ok((at, anchor.len()));
        };
        let from = at + anchor.len();
        let window: usize = text[from..].split_inclusive('\n').take(THEN_LINES).map(str::len).sum();
        match text[from..from + window].find(then) {
            Some(i) => Ok((from + i, then.len())),
            None => Err(EditError::MissingThen {
                edit,
                file,
                anchor: self.anchor.clone(),
                then: then.into(),
                line: line(at),
            }),
        }
    }
}

/// `s`, with the line ends of `text`.
fn with_line_ends_of(text: &str, s: &str) -> String {
    match text.contains("\r\n") {
        true => s.replace("\r\n", "\n").replace('\n', "\r\n"),
        false => s.to_string(),
    }
}
