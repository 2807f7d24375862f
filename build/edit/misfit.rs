//! Every edit that a tree does not take, with what is there instead.

use std::collections::HashMap;
use std::fmt;

use super::EditError;

/// Lines that share fewer of their pairs of letters than this are not alike.
const ALIKE: f32 = 0.5;

/// One edit that does not fit.
#[derive(Debug)]
pub struct Misfit {
    pub error: EditError,
    /// The line that is most like the anchor, and its number.
    pub nearest: Option<(usize, String)>,
    /// The anchor is text of this other edit, which does not fit either.
    pub because: Option<String>,
}

/// All of them, in the order of the edits.
#[derive(Debug)]
pub struct Misfits {
    pub list: Vec<Misfit>,
    /// How many edits there are for such a tree.
    pub of: usize,
}

impl Misfits {
    /// How many edits do not fit.
    pub fn count(&self) -> usize {
        let edits = self.list.iter().map(|misfit| match misfit.error {
            EditError::MissingFile { count, .. } => count,
            _ => 1,
        });
        edits.sum()
    }
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {} edits do not fit:", self.count(), self.of)?;
        for misfit in &self.list {
            write!(f, "\n  {}", misfit.error)?;
            if let Some(other) = &misfit.because {
                write!(f, "\n      it is text of another that does not fit, {other}")?;
            }
            match &misfit.nearest {
                Some((number, line)) => write!(f, "\n      nearest, line {number}: {line}")?,
                None if misfit.because.is_none() && misfit.looked_for().is_some() => {
                    write!(f, "\n      no line is like it")?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Misfit {
    /// `text` is the file's, as far as edits before this one fit.
    pub fn new(error: EditError, text: &str) -> Self {
        let mut misfit = Self { error, nearest: None, because: None };
        if let Some((wanted, from)) = misfit.looked_for() {
            misfit.nearest = nearest(text, wanted, from);
        }
        misfit
    }

    /// What was not found, and from which line on it was looked for.
    fn looked_for(&self) -> Option<(&str, usize)> {
        match &self.error {
            EditError::Missing { anchor, .. } => Some((anchor, 1)),
            EditError::MissingThen { then, line, .. } => Some((then, *line)),
            _ => None,
        }
    }
}

/// The line from line `from` on that is most like the first of `wanted`; of several, the first.
fn nearest(text: &str, wanted: &str, from: usize) -> Option<(usize, String)> {
    let wanted = wanted.lines().find(|line| !line.trim().is_empty())?;
    let wanted = pairs(wanted);
    let mut best: Option<(f32, usize, &str)> = None;
    for (i, line) in text.lines().enumerate().skip(from - 1) {
        // An anchor is a part of its line: what else the line has counts less than what the anchor has.
        let found = pairs(line);
        let both: usize = wanted.iter().map(|(p, n)| (*n).min(*found.get(p).unwrap_or(&0))).sum();
        let size = |pairs: &HashMap<_, usize>| pairs.values().sum::<usize>() as f32;
        let all = 0.75 * size(&wanted) + 0.25 * size(&found).max(size(&wanted));
        let alike = both as f32 / all.max(1.0);
        if alike >= ALIKE && best.is_none_or(|(most, ..)| alike > most) {
            best = Some((alike, i + 1, line));
        }
    }
    best.map(|(_, number, line)| (number, line.trim().to_owned()))
}

/// The pairs of letters of a line, without blanks.
fn pairs(line: &str) -> HashMap<(char, char), usize> {
    let letters: Vec<char> = line.chars().filter(|c| !c.is_whitespace()).collect();
    let mut pairs = HashMap::new();
    for pair in letters.windows(2) {
        *pairs.entry((pair[0], pair[1])).or_default() += 1;
    }
    pairs
}
