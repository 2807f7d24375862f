//! LoRA adapters: small changes to a model's weights, per context.

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use super::context::Context;
use super::error::LoraError;
use super::ffi::{fenced, path_to_c};
use super::log;
use super::model::{Model, read_string};
use super::sys::{self, fence};

/// An adapter of a model. Contexts share it; it lives as long as the last of them.
pub struct Lora {
    raw: NonNull<sys::llama_adapter_lora>,
    model: Arc<Model>,
}

// SAFETY: no thread owns anything in a loaded adapter.
unsafe impl Send for Lora {}
// SAFETY: a loaded adapter is only read; the model's list of them is changed under its lock.
unsafe impl Sync for Lora {}

impl Lora {
    /// Loads an adapter for a model from a GGUF file.
    ///
    /// Errors: [`LoraError::Load`] if it is none, or of another model.
    pub fn load(model: &Arc<Model>, path: impl AsRef<Path>) -> Result<Arc<Self>, LoraError> {
        let path = path.as_ref();
        let file = path_to_c(path)?;
        if model.vocab_only() {
            return Err(LoraError::VocabOnly);
        }
        let mut raw = std::ptr::null_mut();
        let changing = model.changing();
        // SAFETY: the model lives, and no other thread changes it; the path is terminated.
        let load = || unsafe { fence::tq_lora_load(model.raw(), file.as_ptr(), &raw mut raw) };
        let (status, reason) = log::errors_of(load);
        drop(changing);
        fenced(status)?;
        let raw = NonNull::new(raw).ok_or_else(|| LoraError::Load { path: path.into(), reason })?;
        Ok(Arc::new(Self { raw, model: Arc::clone(model) }))
    }

    /// The model that it is for.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// A value of the GGUF's metadata, as text; None: no such key, or an array.
    pub fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        // SAFETY: the key is terminated; llama.cpp writes at most `len` bytes.
        read_string(|buf, len| unsafe {
            sys::llama_adapter_meta_val_str(self.raw.as_ptr(), key.as_ptr(), buf, len)
        })
    }
}

impl Drop for Lora {
    fn drop(&mut self) {
        let _changing = self.model.changing();
        // SAFETY: loaded by us and freed once, before its model; contexts that use it hold it.
        unsafe { sys::llama_adapter_lora_free(self.raw.as_ptr()) }
    }
}

impl fmt::Debug for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lora").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Context {
    /// Uses these adapters from now on, each times its scale, and no others: none removes them.
    ///
    /// What was decoded before stays as it is. Errors: [`LoraError::OtherModel`], [`LoraError::Scale`],
    /// [`LoraError::Twice`].
    pub fn set_loras(&mut self, loras: &[(Arc<Lora>, f32)]) -> Result<(), LoraError> {
        for (i, (lora, scale)) in loras.iter().enumerate() {
            if !Arc::ptr_eq(lora.model(), self.model()) {
                return Err(LoraError::OtherModel);
            }
            if !scale.is_finite() {
                return Err(LoraError::Scale { scale: *scale });
            }
            if loras[..i].iter().any(|(other, _)| Arc::ptr_eq(other, lora)) {
                return Err(LoraError::Twice);
            }
        }
        let mut raws: Vec<_> = loras.iter().map(|(lora, _)| lora.raw.as_ptr()).collect();
        let mut scales: Vec<_> = loras.iter().map(|&(_, scale)| scale).collect();
        // SAFETY: the context lives; as many adapters of its model as scales, which it holds from now on.
        fenced(unsafe {
            fence::tq_lora_set(self.raw(), raws.as_mut_ptr(), raws.len(), scales.as_mut_ptr())
        })?;
        self.hold_loras(loras.iter().map(|(lora, _)| Arc::clone(lora)).collect());
        Ok(())
    }
}
