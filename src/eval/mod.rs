//! What cache types cost in quality.
//!
//! [`evaluate`] measures perplexity, and divergence of a model's predictions from those with f16 caches, as
//! llama-perplexity does: a text is cut into chunks of the context's size, of each the second half is scored. It goes
//! chunk by chunk through all pairs of types, so that only the reference's logits of one chunk are in memory,
//! `n_ctx / 2 * n_vocab` floats, as they are.
//!
//! [`compare`] runs one prompt under several pairs of types; [`needle`] looks for what is hidden in long texts.

mod compare;
mod divergence;
pub mod needle;
mod room;
mod run;
mod settings;

pub use compare::{CompareError, CompareOptions, Divergence, PairRun, compare};
pub use divergence::{Compared, Prediction, Summary};
pub use room::NoRoomForLogits;
pub use run::{EvalError, EvalOptions, Evaluation, PairScore, Progress, evaluate};
pub use settings::{CacheSettings, PairError};
