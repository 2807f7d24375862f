//! Text out of pieces of bytes that may end inside a character.

/// Decodes a stream of UTF-8 whose pieces end anywhere, as those of tokens do.
///
/// Nothing of valid UTF-8 is lost or changed; what is invalid becomes U+FFFD, as with
/// [`String::from_utf8_lossy`] of the whole.
///
/// ```
/// use llama_turboquant::llama::Utf8Stream;
///
/// let mut stream = Utf8Stream::new();
/// assert_eq!(stream.push(b"\xe2\x82"), "");
/// assert_eq!(stream.push(b"\xac!"), "€!");
/// assert_eq!(stream.finish(), "");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// The beginning of a character, at most 3 bytes between calls.
    rest: Vec<u8>,
}

impl Utf8Stream {
    /// An empty stream.
    pub const fn new() -> Self {
        Self { rest: Vec::new() }
    }

    /// Adds bytes; returns the characters that are whole by them.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.rest.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(e) => {
                    let (valid, after) = rest.split_at(e.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(n) = e.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[n..];
                }
            }
        }
        self.rest = rest.to_vec();
        text
    }

    /// Ends the stream: a character that is not whole becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(pieces: &[Vec<u8>]) -> String {
        let mut stream = Utf8Stream::new();
        let mut text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        text.push_str(&stream.finish());
        text
    }

    proptest! {
        #[test]
        fn any_pieces_are_the_lossy_text_of_the_whole(pieces: Vec<Vec<u8>>) {
            let whole = pieces.concat();
            prop_assert_eq!(stream(&pieces), String::from_utf8_lossy(&whole));
        }

        #[test]
        fn valid_text_is_not_changed(text: String, size in 1..5usize) {
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(stream(&pieces), text);
        }
    }
}
