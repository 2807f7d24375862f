//! What cache types cost in quality: perplexity, and divergence of a model's predictions from those with f16 caches.
//!
//! As llama-perplexity measures it: a text is cut into chunks of the context's size, of each the second half is
//! scored. [`evaluate`] goes chunk by chunk through all pairs of types, so that only the reference's logits of one
//! chunk are in memory, `n_ctx / 2 * n_vocab` floats, as they are.

mod divergence;
mod run;

pub use divergence::{Compared, Prediction, Summary};
pub use run::{EvalError, EvalOptions, Evaluation, PairScore, Progress, evaluate};
