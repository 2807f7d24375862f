//! Whether the logits that are kept for comparison fit into memory.

use crate::llama::{free_memory, gib};

/// Logits that are kept for comparison and do not fit. Systems promise more than they have, and end the process that
/// takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error(
    "the logits of {n_tokens} tokens, {n_vocab} each, take {:.1} GiB, and {:.1} GiB are free: compare fewer tokens at a time",
    gib(*needed), gib(*free)
)]
pub struct NoRoomForLogits {
    /// Tokens whose logits are in memory at the same time.
    pub n_tokens: usize,
    /// Logits of a token.
    pub n_vocab: u32,
    /// Bytes.
    pub needed: u64,
    /// Bytes, swap included.
    pub free: u64,
}

/// Whether there is room for the logits of so many tokens. Where the system does not tell, there is.
pub(super) fn check(n_tokens: usize, n_vocab: u32) -> Result<(), NoRoomForLogits> {
    free_memory().map_or(Ok(()), |free| fits(n_tokens, n_vocab, free))
}

fn fits(n_tokens: usize, n_vocab: u32, free: u64) -> Result<(), NoRoomForLogits> {
    let needed = 4 * n_tokens as u64 * u64::from(n_vocab);
    match needed <= free {
        true => Ok(()),
        false => Err(NoRoomForLogits { n_tokens, n_vocab, needed, free }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        assert_eq!(fits(4096, 1 << 18, 4 << 30), Ok(()));
        let error = fits(4097, 1 << 18, 4 << 30).unwrap_err();
        assert_eq!((error.needed, error.free), (4097 << 20, 4 << 30));
        let text = error.to_string();
        assert!(text.contains("4097 tokens, 262144 each, take 4.0 GiB, and 4.0 GiB"), "{text}");
    }
}
