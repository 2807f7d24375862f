//! A text of any length with sentences put into it.

/// Sentences of a text, which are repeated as often as needed.
#[derive(Debug, Clone)]
pub struct Hay {
    /// Each with the white space behind it.
    sentences: Vec<String>,
    /// Tokens of each.
    sizes: Vec<usize>,
}

/// Longer sentences are cut between words.
const LONGEST: usize = 400;

impl Hay {
    /// `count`: the tokens of a text. None: the text is empty.
    pub fn new<E>(
        text: &str,
        mut count: impl FnMut(&str) -> Result<usize, E>,
    ) -> Result<Option<Self>, E> {
        let sentences = sentences(text);
        let sizes = sentences.iter().map(|sentence| count(sentence)).collect::<Result<_, E>>()?;
        Ok((!sentences.is_empty()).then_some(Self { sentences, sizes }))
    }

    /// Sentences before they repeat.
    pub fn len(&self) -> usize {
        self.sentences.len()
    }

    /// `n` sentences from number `start` on, and each needle at the end of the sentence that is nearest to its depth,
    /// 0 to 1.
    pub fn with_needles(&self, start: usize, n: usize, needles: &[(f64, String)]) -> String {
        let of = |i: usize| (start + i) % self.len();
        let total: usize = (0..n).map(|i| self.sizes[of(i)]).sum();
        let mut ends = Vec::with_capacity(n + 1);
        ends.push(0);
        ends.extend((0..n).scan(0, |sum, i| {
            *sum += self.sizes[of(i)];
            Some(*sum)
        }));
        let place = |depth: f64| nearest(&ends, depth * total as f64);
        let places: Vec<usize> = needles.iter().map(|(depth, _)| place(*depth)).collect();
        let mut text = String::new();
        for i in 0..=n {
            for (_, needle) in places.iter().zip(needles).filter(|(place, _)| **place == i) {
                text.push_str(&needle.1);
                text.push(' ');
            }
            if i < n {
                text.push_str(&self.sentences[of(i)]);
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// The index of the value, of those in order, that is nearest to this one.
fn nearest(values: &[usize], to: f64) -> usize {
    let distance = |i: &usize| (values[*i] as f64 - to).abs();
    (0..values.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}

/// The largest number for which `fits` is true, which it is up to some number; None: not even for 1.
pub fn largest<E>(mut fits: impl FnMut(usize) -> Result<bool, E>) -> Result<Option<usize>, E> {
    let (mut low, mut high) = (0, 1);
    while fits(high)? {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fits(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok((low > 0).then_some(low))
}

/// Sentences with one space behind each, or the line feeds that are there.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (sentence, after) = rest.split_at(end_of_sentence(rest));
        let blank = after.len() - after.trim_start().len();
        let feeds = after[..blank].matches('\n').count().min(2);
        let blank_text = if feeds > 0 { &"\n\n"[..feeds] } else { " " };
        sentences.push(format!("{sentence}{blank_text}"));
        rest = &after[blank..];
    }
    sentences
}

/// The byte behind the first sentence of a text that begins without white space.
fn end_of_sentence(text: &str) -> usize {
    let mut last_blank = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        let next = chars.peek().map(|(_, next)| *next);
        let is_end = match c {
            '。' | '！' | '？' => true,
            '.' | '!' | '?' => next.is_some_and(char::is_whitespace),
            '"' | '”' | ')' => {
                text[..at].ends_with(['.', '!', '?']) && next.is_some_and(char::is_whitespace)
            }
            _ => blank_line(&text[end..]),
        };
        if is_end {
            return end;
        }
        if next.is_some_and(char::is_whitespace) && !c.is_whitespace() {
            last_blank = Some(end);
        }
        if end >= LONGEST {
            return last_blank.unwrap_or(end);
        }
    }
    text.len()
}

/// Whether a paragraph ends before this text.
fn blank_line(text: &str) -> bool {
    let blank = &text[..text.len() - text.trim_start().len()];
    blank.matches('\n').count() > 1
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn words(text: &str) -> Result<usize, Infallible> {
        Ok(text.split_whitespace().count())
    }

    fn hay(text: &str) -> Hay {
        let Ok(hay) = Hay::new(text, words);
        hay.expect("a text")
    }

    #[test]
    fn texts_are_cut_at_sentence_ends() {
        let text = " One is 1.5 e.g.\tTwo!  \"Three?\" Four\nline。五。\n\n\n\nA B\n \nSix";
        assert_eq!(
            sentences(text),
            [
                "One is 1.5 e.g. ",
                "Two! ",
                "\"Three?\" ",
                "Four\nline。 ",
                "五。\n\n",
                "A B\n\n",
                "Six "
            ]
        );
        assert_eq!(sentences(" \n\t"), [""; 0]);
        let Ok(none) = Hay::new(" \n", words);
        assert!(none.is_none());
    }

    #[test]
    fn what_has_no_end_is_cut_all_the_same() {
        let words = "word ".repeat(200);
        let cut = sentences(&words);
        assert_eq!((cut.concat(), cut[0].len()), (words, 400));
        let letters = "ä".repeat(500);
        let cut = sentences(&letters);
        assert_eq!(cut.iter().map(|s| s.trim()).collect::<String>(), letters);
        assert_eq!(cut[0].trim().len(), 400);
    }

    #[test]
    fn needles_are_at_the_sentence_that_is_nearest() {
        let hay = hay("A a a. B b. C.");
        let with = |depths: &[f64]| {
            let needles: Vec<_> = depths.iter().map(|d| (*d, format!("<{d}>"))).collect();
            hay.with_needles(1, 5, &needles)
        };
        assert_eq!(with(&[]), "B b. C. A a a. B b. C.");
        assert_eq!(with(&[0.0, 1.0]), "<0> B b. C. A a a. B b. C. <1>");
        // Of 9 words, behind 2, 3, 6, 8.
        assert_eq!(with(&[0.5]), "B b. C. <0.5> A a a. B b. C.");
        assert_eq!(with(&[0.75, 0.25]), "B b. <0.25> C. A a a. <0.75> B b. C.");
    }

    #[test]
    fn the_largest_number_is_found() {
        for limit in 0..70 {
            let mut asked = 0;
            let Ok(found) = largest(|n| {
                asked += 1;
                Ok::<_, Infallible>(n <= limit)
            });
            assert_eq!(found.unwrap_or(0), limit);
            assert!(asked <= 14, "{asked} for {limit}");
        }
    }
}
