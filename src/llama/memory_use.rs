//! What a context takes of memory.

use super::context::Context;
use super::error::Exception;
use super::ffi::fenced;
use super::sys::fence;

/// Bytes that are allocated for a context, and for its model, on all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The K cache, with key anchors.
    pub k: u64,
    /// The V cache.
    pub v: u64,
    /// States of recurrent layers.
    pub state: u64,
    /// The model's weights, which its contexts share.
    pub model: u64,
    /// Buffers for computing.
    pub compute: u64,
}

impl MemoryUse {
    /// K and V.
    pub fn kv(&self) -> u64 {
        self.k + self.v
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.kv() + self.state + self.model + self.compute
    }
}

impl Context {
    /// What the context takes of memory. Errors: an [`Exception`].
    pub fn memory_use(&self) -> Result<MemoryUse, Exception> {
        let mut raw = fence::tq_memory_use::default();
        // SAFETY: the context lives, the result has room.
        fenced(unsafe { fence::tq_context_get_memory(self.raw(), &raw mut raw) })?;
        let fence::tq_memory_use { k, v, state, model, compute } = raw;
        Ok(MemoryUse { k, v, state, model, compute })
    }
}
