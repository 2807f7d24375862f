//! Embeddings of tokens and of texts.

use std::ptr::NonNull;

use super::batch::Batch;
use super::context::Context;
use super::error::{DecodeError, EmbedError, OutputError};
use super::ffi::fenced;
use super::sys::{self, fence};
use super::{SeqId, Token};

impl Context {
    /// The embedding of the token with this index in the last batch: `n_embd_out` values. For contexts without
    /// pooling.
    ///
    /// Errors: [`OutputError`] if it was not asked for, or the context pools or has none.
    pub fn embedding(&self, index: usize) -> Result<&[f32], OutputError> {
        self.check_embeddings(index)?;
        if self.is_pooled() {
            return Err(OutputError::Pooled);
        }
        let i = i32::try_from(index).map_err(|_| OutputError::None { index })?;
        let mut embedding = std::ptr::null_mut();
        // SAFETY: the context lives; any index may be asked for.
        fenced(unsafe { fence::tq_embeddings(self.raw(), i, &raw mut embedding) })?;
        let embedding = NonNull::new(embedding).ok_or(OutputError::None { index })?;
        let n = self.model().n_embd_out() as usize;
        // SAFETY: n values, which stay as they are until the context is borrowed mutably.
        Ok(unsafe { std::slice::from_raw_parts(embedding.as_ptr(), n) })
    }

    /// The embedding of a sequence in the last batch: `n_embd_out` values, or the scores of a reranking model. For
    /// contexts with pooling.
    ///
    /// Errors: [`OutputError`] if the sequence was not in the batch, or the context does not pool or has none.
    pub fn seq_embedding(&self, seq: SeqId) -> Result<&[f32], OutputError> {
        let index = seq as usize;
        self.check_embeddings(index)?;
        if !self.is_pooled() {
            return Err(OutputError::NotPooled);
        }
        let mut embedding = std::ptr::null_mut();
        let seq = i32::try_from(seq).map_err(|_| OutputError::None { index })?;
        // SAFETY: the context lives; any sequence may be asked for.
        fenced(unsafe { fence::tq_embeddings_seq(self.raw(), seq, &raw mut embedding) })?;
        let embedding = NonNull::new(embedding).ok_or(OutputError::None { index })?;
        // SAFETY: the context and its model live.
        let n = unsafe {
            if self.pooling() == sys::LLAMA_POOLING_TYPE_RANK {
                sys::llama_model_n_cls_out(self.model().raw())
            } else {
                self.model().n_embd_out()
            }
        };
        // SAFETY: as above.
        Ok(unsafe { std::slice::from_raw_parts(embedding.as_ptr(), n as usize) })
    }

    /// The embeddings of texts, given by their tokens, in their order: `n_embd_out` values each. As many at a time
    /// as there are sequences and room in `n_ubatch`. The context is empty afterwards.
    ///
    /// `normalized`: of length 1, so that scalar products are cosines.
    /// Errors: [`EmbedError`]; the context has to have embeddings and pooling.
    pub fn embed(
        &mut self,
        texts: &[impl AsRef<[Token]>],
        normalized: bool,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if !self.has_embeddings() {
            return Err(OutputError::NoEmbeddings.into());
        }
        if !self.is_pooled() {
            return Err(OutputError::NotPooled.into());
        }
        let room = self.n_ubatch().min(self.n_batch()).min(self.n_ctx_seq()) as usize;
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while let Some(first) = rest.first() {
            let n_tokens = first.as_ref().len();
            if n_tokens == 0 {
                return Err(DecodeError::Empty.into());
            }
            if n_tokens > room {
                return Err(EmbedError::TooLong {
                    index: texts.len() - rest.len(),
                    n_tokens,
                    max: room,
                });
            }
            let mut batch = Batch::new(room, 1);
            let mut n = 0;
            for text in rest.iter().map(AsRef::as_ref).take(self.n_seq_max() as usize) {
                if text.is_empty() || batch.len() + text.len() > room {
                    break;
                }
                for (pos, &token) in (0..).zip(text) {
                    batch.add(token, pos, &[n], true)?;
                }
                n += 1;
            }
            self.clear()?;
            self.decode(&batch)?;
            for seq in 0..n {
                let mut embedding = self.seq_embedding(seq)?.to_vec();
                if normalized {
                    normalize(&mut embedding);
                }
                embeddings.push(embedding);
            }
            rest = &rest[n as usize..];
        }
        self.clear()?;
        Ok(embeddings)
    }

    fn is_pooled(&self) -> bool {
        self.pooling() != sys::LLAMA_POOLING_TYPE_NONE
    }

    fn check_embeddings(&self, index: usize) -> Result<(), OutputError> {
        if !self.has_embeddings() {
            return Err(OutputError::NoEmbeddings);
        }
        if !self.has_outputs() {
            return Err(OutputError::None { index });
        }
        Ok(())
    }
}

/// Scales a vector to length 1. One of zeros stays as it is.
pub fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_vectors_have_length_one() {
        let mut vector = [3.0, 0.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, 0.0, -0.8]);
        let mut zeros = [0.0; 3];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
