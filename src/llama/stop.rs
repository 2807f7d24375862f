//! Stop strings in a stream of text.

/// Holds text back while it may be the beginning of a stop string.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    stops: Vec<String>,
    pending: String,
}

/// What a push made of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Text that is in no stop string.
    No(String),
    /// Text before a stop string, and which it was.
    By(String, String),
}

impl Stops {
    /// Empty stop strings are left out: they would stop at once.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, pending: String::new() }
    }

    /// Adds text. Of several stop strings the one that begins first counts, of those the longest.
    pub fn push(&mut self, text: &str) -> Stopped {
        self.pending.push_str(text);
        let first = self.stops.iter().filter_map(|stop| Some((self.pending.find(stop)?, stop)));
        let first = first.min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())));
        if let Some((at, stop)) = first {
            let stop = stop.clone();
            self.pending.truncate(at);
            return Stopped::By(std::mem::take(&mut self.pending), stop);
        }
        let rest = self.pending.split_off(self.pending.len() - self.held());
        Stopped::No(std::mem::replace(&mut self.pending, rest))
    }

    /// Ends the stream: text that was held back is none of a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    /// Bytes at the end of the text that a stop string may begin with.
    fn held(&self) -> usize {
        let held = |stop: &String| {
            let longest = (stop.len() - 1).min(self.pending.len());
            let begins = |n: &usize| {
                self.pending.as_bytes().ends_with(&stop.as_bytes()[..*n])
                    && stop.is_char_boundary(*n)
            };
            (1..=longest).rev().find(begins).unwrap_or(0)
        };
        self.stops.iter().map(held).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text of all pieces, and the stop string.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut stops = Stops::new(&stops.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut text = String::new();
        for piece in pieces {
            match stops.push(piece) {
                Stopped::No(t) => text.push_str(&t),
                Stopped::By(t, stop) => return (text + &t, Some(stop)),
            }
        }
        (text + &stops.finish(), None)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        assert_eq!(run(&["</s>"], &["a<", "/", "s", ">b"]), ("a".into(), Some("</s>".into())));
        assert_eq!(run(&["</s>"], &["a</", "p>", "</s"]), ("a</p></s".into(), None));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), Some("aab".into())));
        assert_eq!(run(&["", "né"], &["Réné", "!"]), ("Ré".into(), Some("né".into())));
    }

    #[test]
    fn the_first_and_longest_counts() {
        assert_eq!(run(&["b", "abc", "ab"], &["xabc"]), ("x".into(), Some("abc".into())));
        assert_eq!(run(&["c", "b"], &["abc"]), ("a".into(), Some("b".into())));
    }

    #[test]
    fn only_what_may_be_a_stop_string_is_held_back() {
        let mut stops = Stops::new(&["\n\n".into()]);
        assert_eq!(stops.push("one\n"), Stopped::No("one".into()));
        assert_eq!(stops.push("two"), Stopped::No("\ntwo".into()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[abé]{0,12}", stop in "[abé]{1,3}", size in 1..4usize) {
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<String> = chars.chunks(size).map(|c| c.concat()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let before = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            let found = text.contains(&stop).then(|| stop.clone());
            prop_assert_eq!(run(&[&stop], &pieces), (before.to_string(), found));
        }
    }
}
