//! What every call across the language border needs.

use std::ffi::{CStr, CString};
use std::path::Path;

use super::error::{Exception, PathError};
use super::sys::fence::tq_api_error;

/// The result of a fenced function. Errors: the exception that it caught.
pub(super) fn fenced(status: i32) -> Result<(), Exception> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: a terminated string of this thread, copied before the next call.
    let message = unsafe { CStr::from_ptr(tq_api_error()) }.to_string_lossy().into_owned();
    Err(Exception { message })
}

/// A path as llama.cpp takes it. Errors: [`PathError`].
pub(super) fn path_to_c(path: &Path) -> Result<CString, PathError> {
    let text = path.to_str().ok_or_else(|| PathError::NotUtf8 { path: path.into() })?;
    CString::new(text).map_err(|_| PathError::Nul { path: path.into() })
}
