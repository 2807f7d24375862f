//! The key scales that a context has.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::context::Context;
use super::sys;

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

impl Context {
    /// The key scales of its caches; none: keys are stored unscaled.
    pub fn kv_fit(&self) -> Option<KvFit> {
        // SAFETY: the context lives.
        let info = unsafe { sys::llama_get_kv_fit(self.raw()) };
        let kind = match info.type_ {
            sys::LLAMA_KV_FIT_QUICK => KvFitKind::Quick,
            sys::LLAMA_KV_FIT_THOROUGH => KvFitKind::Thorough,
            sys::LLAMA_KV_FIT_FILE => KvFitKind::File,
            sys::LLAMA_KV_FIT_NORMS => KvFitKind::Norms,
            _ => return None,
        };
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
