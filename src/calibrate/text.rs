//! The text that calibration runs a model over.

/// A little of everything that models read: prose, dialogue, instructions, code, tables, several languages.
///
/// Written for this; some 2500 tokens of a vocabulary that knows English.
pub const TEXT: &str = TERMINATED.split_at(TERMINATED.len() - 1).0;

/// The same and a NUL, for C.
pub(crate) const TERMINATED: &str = concat!(include_str!("text.txt"), "\0");

#[cfg(test)]
mod tests {
    use super::TEXT;

    #[test]
    fn text_is_long_enough_and_plain() {
        assert!((10_500..12_500).contains(&TEXT.len()), "{} bytes", TEXT.len());
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{feff}';
        assert_eq!(TEXT.find(odd), None, "a tab, a carriage return, a NUL or a byte order mark");
        assert!(TEXT.ends_with('\n') && !TEXT.ends_with("\n\n"));
    }
}
