//! Log-probabilities of tokens.

use super::Token;

/// What the model thought of a token that was chosen.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenLogprob {
    /// The token.
    pub token: Token,
    /// The natural logarithm of its probability, 0 or less.
    pub logprob: f32,
    /// The most likely tokens in its place, the likeliest first.
    pub top: Vec<(Token, f32)>,
}

impl TokenLogprob {
    /// Of a token in range, by the logits that it was chosen by.
    pub(super) fn new(logits: &[f32], token: Token, n_top: usize) -> Self {
        let norm = log_sum_exp(logits);
        let logprob = |token: Token| logits[token.unsigned_abs() as usize] - norm;
        let mut tokens: Vec<Token> = (0..).take(logits.len()).collect();
        let by_logprob = |a: &Token, b: &Token| logprob(*b).total_cmp(&logprob(*a)).then(a.cmp(b));
        if n_top < tokens.len() {
            tokens.select_nth_unstable_by(n_top, by_logprob);
            tokens.truncate(n_top);
        }
        tokens.sort_unstable_by(by_logprob);
        let top = tokens.into_iter().map(|token| (token, logprob(token))).collect();
        Self { token, logprob: logprob(token), top }
    }
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
    max + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_softmax() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 3.0].map(|x: f32| x + 100.0);
        let logprob = TokenLogprob::new(&logits, 0, 2);
        let expected = 1.0f32 - (1f32.exp() + 2.0 * 3f32.exp()).ln();
        approx::assert_abs_diff_eq!(logprob.logprob, expected, epsilon = 1e-5);
        assert_eq!(logprob.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3]);
        approx::assert_abs_diff_eq!(logprob.top[0].1, expected + 2.0, epsilon = 1e-5);
        assert_eq!(TokenLogprob::new(&logits, 0, 0).top, []);
        assert_eq!(TokenLogprob::new(&logits, 0, 9).top.len(), 4);
    }
}
