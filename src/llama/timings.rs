//! How long a generation took.

use std::time::Duration;

/// Times of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// What decoding them took.
    pub prompt: Duration,
    /// From the first call to the first token, which includes the prompt.
    pub to_first_token: Option<Duration>,
    /// Tokens that were decoded one by one: all that were generated but the last.
    pub n_decoded: usize,
    /// What decoding them took.
    pub decode: Duration,
    /// What choosing tokens took.
    pub sample: Duration,
}

impl Timings {
    /// Tokens of the prompt per second; 0 before it is decoded.
    pub fn prompt_per_second(&self) -> f64 {
        rate(self.n_prompt, self.prompt)
    }

    /// Tokens generated per second, without choosing them; 0 before the second.
    pub fn decode_per_second(&self) -> f64 {
        rate(self.n_decoded, self.decode)
    }
}

fn rate(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_tokens_per_second() {
        let timings = Timings {
            n_prompt: 100,
            prompt: Duration::from_millis(500),
            n_decoded: 3,
            ..Timings::default()
        };
        assert_eq!((timings.prompt_per_second(), timings.decode_per_second()), (200.0, 0.0));
    }
}
