//! What a model is like and what it would take, without its weights.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::context::Context;
use super::context_params::ContextParams;
use super::error::{ContextError, ModelError};
use super::memory_use::MemoryUse;
use super::model::Model;

/// A model of which only the metadata is read: quick, whatever its size. It tells all that a [`Model`] tells, and what
/// contexts would take of memory, but makes none.
///
/// ```no_run
/// use llama_turboquant::llama::{CacheType, ContextParams, ModelProbe};
///
/// let probe = ModelProbe::open("model.gguf")?;
/// let params = ContextParams::default().n_ctx(32768).cache_types(CacheType::Turbo4, CacheType::Turbo3);
/// println!("{} layers, {} bytes of K and V", probe.model().n_layer(), probe.memory_use(&params)?.kv());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ModelProbe {
    /// Never handed out as an [`Arc`], of which contexts would be made: its tensors have no memory.
    model: Arc<Model>,
}

impl ModelProbe {
    /// Reads a GGUF file's metadata. Of a file in parts, the first. Errors: [`ModelError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Ok(Self { model: Model::builder(path).mmap(false).no_alloc().load()? })
    }

    /// What the model is like.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What a context with these parameters would take, which llama.cpp is asked for: the model, the caches and the
    /// buffers for computing. States of recurrent layers are allocated for as long as this takes.
    ///
    /// Errors: [`ContextError`].
    pub fn memory_use(&self, params: &ContextParams) -> Result<MemoryUse, ContextError> {
        // The context ends here: it must not decode.
        Ok(Context::new(&self.model, params)?.memory_use()?)
    }

    /// The longest context of which all fits into `memory` bytes, at most the training context: a multiple of 256
    /// tokens per sequence. None: not even the shortest fits.
    ///
    /// Errors: [`ContextError`].
    pub fn longest_context(
        &self,
        params: &ContextParams,
        memory: u64,
    ) -> Result<Option<u32>, ContextError> {
        let step = STEP * params.n_seq_max;
        let fits = |steps: u32| -> Result<bool, ContextError> {
            let params = params.clone().n_ctx(steps.saturating_mul(step));
            Ok(self.memory_use(&params)?.total() <= memory)
        };
        let (mut low, mut high) = (0, (self.model.n_ctx_train() / step).max(1));
        if fits(high)? {
            return Ok(Some(high * step));
        }
        // What `low` steps take fits, what `high` steps take does not.
        while high - low > 1 {
            let middle = low.midpoint(high);
            if fits(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok((low > 0).then_some(low * step))
    }
}

/// llama.cpp rounds contexts up to multiples of this.
const STEP: u32 = 256;

impl fmt::Debug for ModelProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelProbe").field("model", &self.model).finish()
    }
}
