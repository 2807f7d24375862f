//! The key scales that a context has.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::chat::append;
use super::context::Context;
use super::error::ModelError;
use super::ffi::{fenced, path_to_c};
use super::probe::ModelProbe;
use super::sys::{self, fence};

/// Where key scales are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvFitKind {
    /// Made at the first use of the model, of a few hundred tokens.
    Quick,
    /// Of `turboquant calibrate` or [`CalibrateOptions::keep`](super::calibrate::CalibrateOptions::keep), found in the
    /// user's cache.
    Thorough,
    /// The file that [`KvCalibration::File`](super::KvCalibration::File) names.
    File,
    /// The weights of the norms of queries and keys: the model could not be run.
    Norms,
}

impl KvFitKind {
    /// `quick`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Thorough => "thorough",
            Self::File => "file",
            Self::Norms => "norms",
        }
    }
}

impl fmt::Display for KvFitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The key scales of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvFit {
    /// Where they are from.
    pub kind: KvFitKind,
    /// Hash of the scales. Saved states carry it, and are refused under others.
    pub id: u64,
    /// Their file; none: they are in memory alone.
    pub source: Option<PathBuf>,
}

impl fmt::Display for KvFit {
    /// `quick 0123456789abcdef`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:016x}", self.kind, self.id)
    }
}

/// The key scales that a context with turbo keys and default parameters would have; see [`ModelProbe::kv_fit`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvFitOutlook {
    /// These, which are in the user's cache.
    Kept(KvFit),
    /// A quick fit, which the first such context makes.
    AtFirstUse,
    /// Those of the weights of the norms of queries and keys.
    Norms {
        /// Why no text can be run for a quick fit.
        reason: String,
    },
    /// None.
    None {
        /// Why.
        reason: String,
    },
}

impl ModelProbe {
    /// The key scales that a context of the model with turbo keys and default parameters would have. Of the weights, only norms
    /// and biases are read, by which fits are told apart.
    ///
    /// Errors: the file cannot be read.
    pub fn kv_fit(&self) -> Result<KvFitOutlook, ModelError> {
        let model = self.model();
        let path = path_to_c(model.path())?;
        let mut outlook = fence::tq_kv_fit_outlook::default();
        let mut text: Vec<u8> = Vec::new();
        let changing = model.changing();
        // SAFETY: the model lives, and nobody else has it in use; the path is terminated; the vector is what `append` gets.
        let status = unsafe {
            let text = (&raw mut text).cast();
            let outlook = &raw mut outlook;
            fence::tq_model_expect_kv_fit(model.raw(), path.as_ptr(), outlook, Some(append), text)
        };
        drop(changing);
        fenced(status)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(match (kind(outlook.type_), outlook.is_kept) {
            (Some(kind), true) => {
                KvFitOutlook::Kept(KvFit { kind, id: outlook.id, source: Some(text.into()) })
            }
            (Some(KvFitKind::Norms), false) => KvFitOutlook::Norms { reason: text },
            (Some(_), false) => KvFitOutlook::AtFirstUse,
            (None, _) => KvFitOutlook::None { reason: text },
        })
    }
}

/// None: a context has no scales.
fn kind(kind: sys::llama_kv_fit_type) -> Option<KvFitKind> {
    match kind {
        sys::LLAMA_KV_FIT_QUICK => Some(KvFitKind::Quick),
        sys::LLAMA_KV_FIT_THOROUGH => Some(KvFitKind::Thorough),
        sys::LLAMA_KV_FIT_FILE => Some(KvFitKind::File),
        sys::LLAMA_KV_FIT_NORMS => Some(KvFitKind::Norms),
        _ => None,
    }
}

impl Context {
    /// The key scales of its caches; none: keys are stored unscaled.
    pub fn kv_fit(&self) -> Option<KvFit> {
        // SAFETY: the context lives.
        let info = unsafe { sys::llama_get_kv_fit(self.raw()) };
        let kind = kind(info.type_)?;
        // SAFETY: a terminated string that lives as long as the context.
        let source = unsafe { CStr::from_ptr(info.source) }.to_string_lossy();
        let source = (!source.is_empty()).then(|| PathBuf::from(source.as_ref()));
        Some(KvFit { kind, id: info.id, source })
    }
}

type Progress = Box<dyn FnMut(f32) -> bool + Send>;

static PROGRESS: Mutex<Option<Progress>> = Mutex::new(None);

/// Calls `progress` with 0 to 1 while a new context waits for the quick fit of its model's key scales, which happens once
/// for a model. When it returns false, the fit stops and the context has no scales.
///
/// For the whole process, in place of what was set before. A panic in `progress` ends the process: there is C++ below.
pub fn on_fit_progress(progress: impl FnMut(f32) -> bool + Send + 'static) {
    *PROGRESS.lock().unwrap_or_else(|e| e.into_inner()) = Some(Box::new(progress));
    // SAFETY: the callback may be called on any thread, at any time.
    unsafe { sys::llama_kv_fit_set_progress(Some(on_progress), std::ptr::null_mut()) }
}

unsafe extern "C" fn on_progress(done: f32, _: *mut c_void) -> bool {
    let mut progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    progress.as_mut().is_none_or(|progress| progress(done))
}
