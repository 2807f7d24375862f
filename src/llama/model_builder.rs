//! How models are loaded.

use std::ffi::c_void;
use std::fmt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::ModelError;
use super::ffi::{fenced, path_to_c};
use super::log;
use super::model::{Model, Origin, loaded};
use super::sys::{self, fence};

type Progress<'a> = Box<dyn FnMut(f32) -> bool + 'a>;

/// How to load a model.
///
/// ```no_run
/// # use llama_turboquant::llama::Model;
/// let model = Model::builder("model.gguf")
///     .mlock(true)
///     .progress(|done| {
///         eprint!("\r{:.0}%", 100.0 * done);
///         true
///     })
///     .load()?;
/// # Ok::<(), llama_turboquant::llama::ModelError>(())
/// ```
#[must_use]
pub struct ModelBuilder<'a> {
    path: PathBuf,
    mmap: Option<bool>,
    mlock: bool,
    n_gpu_layers: Option<u32>,
    vocab_only: bool,
    check_tensors: bool,
    no_alloc: bool,
    progress: Option<Progress<'a>>,
}

impl<'a> ModelBuilder<'a> {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            mmap: None,
            mlock: false,
            n_gpu_layers: None,
            vocab_only: false,
            check_tensors: false,
            no_alloc: false,
            progress: None,
        }
    }

    /// Whether to map the file instead of reading it. Default: where the devices gain by it.
    pub fn mmap(mut self, mmap: bool) -> Self {
        self.mmap = Some(mmap);
        self
    }

    /// Whether to keep the weights from being swapped out. Default: no.
    pub fn mlock(mut self, mlock: bool) -> Self {
        self.mlock = mlock;
        self
    }

    /// Layers to keep on GPUs. Default: all that fit.
    pub fn n_gpu_layers(mut self, n: u32) -> Self {
        self.n_gpu_layers = Some(n);
        self
    }

    /// Whether to load the vocabulary alone, which takes no weights and makes no contexts. Default: no.
    pub fn vocab_only(mut self, vocab_only: bool) -> Self {
        self.vocab_only = vocab_only;
        self
    }

    /// Whether to look for invalid numbers in the weights, which reads all of them. Default: no.
    pub fn check_tensors(mut self, check: bool) -> Self {
        self.check_tensors = check;
        self
    }

    /// Gives tensors no memory, so that nothing of the model may be computed.
    pub(super) fn no_alloc(mut self) -> Self {
        self.no_alloc = true;
        self
    }

    /// Is called with 0 to 1 and returns whether to go on. A panic in it ends the process.
    pub fn progress<'b>(self, progress: impl FnMut(f32) -> bool + 'b) -> ModelBuilder<'b>
    where
        'a: 'b,
    {
        ModelBuilder { progress: Some(Box::new(progress)), ..self }
    }

    /// Loads the model. Errors: [`ModelError`].
    pub fn load(self) -> Result<Arc<Model>, ModelError> {
        let Self { path, progress, .. } = self;
        let file = path_to_c(&path)?;
        if path.is_dir() {
            return Err(ModelError::Folder { path });
        }
        if !path.is_file() {
            return Err(ModelError::NoFile { path });
        }
        log::init();

        // SAFETY: plain values.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.load_mode = match (self.mmap, self.mlock) {
            (None, false) => sys::LLAMA_LOAD_MODE_AUTO,
            (Some(true), false) => sys::LLAMA_LOAD_MODE_MMAP,
            (Some(false), false) => sys::LLAMA_LOAD_MODE_NONE,
            (Some(false), true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (None | Some(true), true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
        };
        if let Some(n) = self.n_gpu_layers {
            params.n_gpu_layers = i32::try_from(n).unwrap_or(i32::MAX);
        }
        params.vocab_only = self.vocab_only;
        params.check_tensors = self.check_tensors;
        params.no_alloc = self.no_alloc;
        // With a callback llama.cpp prints no dots of its own.
        let mut callback = ProgressState { progress, stopped: false };
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut callback).cast();

        let mut raw = std::ptr::null_mut();
        // SAFETY: the path is terminated; the parameters and what they point to live during the call.
        let load =
            || unsafe { fence::tq_model_load(file.as_ptr(), &raw const params, &raw mut raw) };
        let (status, reason) = log::errors_of(load);
        fenced(status)?;
        match NonNull::new(raw) {
            Some(raw) => {
                let (vocab_only, no_alloc) = (self.vocab_only, self.no_alloc);
                Ok(Arc::new(loaded(raw, Origin { path, vocab_only, no_alloc })?))
            }
            None if callback.stopped => Err(ModelError::Stopped { path }),
            None => Err(ModelError::Load { path, reason }),
        }
    }
}

impl fmt::Debug for ModelBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

struct ProgressState<'a> {
    progress: Option<Progress<'a>>,
    stopped: bool,
}

unsafe extern "C" fn on_progress(done: f32, user_data: *mut c_void) -> bool {
    // SAFETY: the state that `load` hands over; it does not touch it meanwhile.
    let state = unsafe { &mut *user_data.cast::<ProgressState<'_>>() };
    state.stopped |= state.progress.as_mut().is_some_and(|progress| !progress(done));
    !state.stopped
}
