//! Tokens to decode.

use super::error::BatchError;
use super::{Pos, SeqId, Token, sys};

/// Tokens to decode together: what they are, where they stand, and of which an output is wanted.
///
/// ```
/// use llama_turboquant::llama::Batch;
///
/// let mut batch = Batch::new(8, 1);
/// batch.add(17, 0, &[0], false)?;
/// batch.add(42, 1, &[0], true)?;
/// assert_eq!(batch.outputs().collect::<Vec<_>>(), [1]);
/// # Ok::<(), llama_turboquant::llama::BatchError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Batch {
    capacity: usize,
    n_seq_max: usize,
    tokens: Vec<Token>,
    pos: Vec<sys::llama_pos>,
    n_seq: Vec<i32>,
    /// `n_seq_max` per token, of which the first `n_seq` count.
    seqs: Vec<sys::llama_seq_id>,
    /// 1: wanted.
    outputs: Vec<i8>,
}

impl Batch {
    /// Room for `capacity` tokens, each in up to `n_seq_max` sequences at once (mostly 1).
    pub fn new(capacity: usize, n_seq_max: usize) -> Self {
        Self {
            capacity,
            n_seq_max,
            tokens: Vec::with_capacity(capacity),
            pos: Vec::with_capacity(capacity),
            n_seq: Vec::with_capacity(capacity),
            seqs: Vec::with_capacity(capacity * n_seq_max),
            outputs: Vec::with_capacity(capacity),
        }
    }

    /// Tokens of one sequence from a position on, with an output of the last.
    ///
    /// Errors: [`BatchError::Position`].
    pub fn of_sequence(tokens: &[Token], pos: Pos, seq: SeqId) -> Result<Self, BatchError> {
        let mut batch = Self::new(tokens.len(), 1);
        for (i, &token) in tokens.iter().enumerate() {
            let pos = pos.saturating_add(u32::try_from(i).unwrap_or(u32::MAX));
            batch.add(token, pos, &[seq], i + 1 == tokens.len())?;
        }
        Ok(batch)
    }

    /// Adds a token at `pos` of `seqs`; `output`: its logits or embedding are wanted. Returns its index, by which
    /// the output is found.
    ///
    /// Errors: [`BatchError`]; the batch is then as it was.
    pub fn add(
        &mut self,
        token: Token,
        pos: Pos,
        seqs: &[SeqId],
        output: bool,
    ) -> Result<usize, BatchError> {
        if self.len() == self.capacity {
            return Err(BatchError::Full { capacity: self.capacity });
        }
        if seqs.is_empty() || seqs.len() > self.n_seq_max {
            return Err(BatchError::Sequences { n_seq: seqs.len(), max: self.n_seq_max });
        }
        let pos = i32::try_from(pos).map_err(|_| BatchError::Position { pos })?;
        let index = self.len();
        self.tokens.push(token);
        self.pos.push(pos);
        self.n_seq.push(i32::try_from(seqs.len()).unwrap_or(i32::MAX));
        // One that is too large is found when decoding, which knows how many there are.
        self.seqs.extend(seqs.iter().map(|&seq| i32::try_from(seq).unwrap_or(i32::MAX)));
        self.seqs.resize(self.n_seq_max * self.len(), 0);
        self.outputs.push(i8::from(output));
        Ok(index)
    }

    /// Takes all tokens out. The capacity stays.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.pos.clear();
        self.n_seq.clear();
        self.seqs.clear();
        self.outputs.clear();
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The tokens.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The indices of the tokens whose output is wanted.
    pub fn outputs(&self) -> impl Iterator<Item = usize> + '_ {
        self.outputs.iter().enumerate().filter(|&(_, &output)| output != 0).map(|(i, _)| i)
    }

    /// The sequences of all tokens, with repetitions.
    pub(super) fn sequences(&self) -> impl Iterator<Item = SeqId> + '_ {
        let of_token = |(i, &n): (usize, &i32)| {
            let start = i * self.n_seq_max;
            &self.seqs[start..start + n.unsigned_abs() as usize]
        };
        self.n_seq.iter().enumerate().flat_map(of_token).map(|seq| seq.unsigned_abs())
    }

    /// The largest position.
    pub(super) fn last_position(&self) -> Option<Pos> {
        self.pos.iter().max().map(|pos| pos.unsigned_abs())
    }

    /// llama.cpp's view of it, which points into it and into `pointers`, and is only read.
    pub(super) fn raw(&self, pointers: &mut Vec<*mut sys::llama_seq_id>) -> sys::llama_batch {
        pointers.clear();
        pointers.extend(self.seqs.chunks(self.n_seq_max).map(|seqs| seqs.as_ptr().cast_mut()));
        sys::llama_batch {
            n_tokens: i32::try_from(self.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_ptr().cast_mut(),
            embd: std::ptr::null_mut(),
            pos: self.pos.as_ptr().cast_mut(),
            n_seq_id: self.n_seq.as_ptr().cast_mut(),
            seq_id: pointers.as_mut_ptr(),
            logits: self.outputs.as_ptr().cast_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_refuses_tokens() {
        let mut batch = Batch::new(1, 2);
        assert_eq!(batch.add(1, 0, &[], false), Err(BatchError::Sequences { n_seq: 0, max: 2 }));
        assert_eq!(
            batch.add(1, 0, &[0, 1, 2], false),
            Err(BatchError::Sequences { n_seq: 3, max: 2 })
        );
        assert_eq!(batch.add(1, 1 << 31, &[0], false), Err(BatchError::Position { pos: 1 << 31 }));
        assert_eq!(batch.add(1, 0, &[3], false), Ok(0));
        assert_eq!(batch.add(2, 1, &[3], false), Err(BatchError::Full { capacity: 1 }));
        assert_eq!((batch.len(), batch.sequences().collect::<Vec<_>>()), (1, vec![3]));
        batch.clear();
        assert_eq!(batch.add(2, 1, &[1, 0], true), Ok(0));
        assert_eq!(batch.sequences().collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn the_view_has_the_sequences_of_each_token() {
        let mut batch = Batch::new(2, 2);
        batch.add(5, 0, &[1], false).expect("room");
        batch.add(6, 0, &[2, 3], true).expect("room");
        let mut pointers = Vec::new();
        let raw = batch.raw(&mut pointers);
        // SAFETY: two tokens, of one and of two sequences.
        let seqs = unsafe {
            let seq = |token: usize, i: usize| *(*raw.seq_id.add(token)).add(i);
            [seq(0, 0), seq(1, 0), seq(1, 1)]
        };
        assert_eq!((raw.n_tokens, seqs), (2, [1, 2, 3]));
    }
}
