//! Key scales: fitted once to a model, read by its contexts (`kv_calib`, `--kv-calib`).

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};

use super::error::{Exception, ModelError, PathError};
use super::ffi::{fenced, path_to_c};
use super::log;
use super::model::Model;
use super::sys::{self, fence};

/// What a calibration runs, and on what.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CalibrateOptions {
    /// The text; none: the one that comes with the library, prose, code and several languages.
    pub text: Option<String>,
    /// Tokens of it to run, 256 to 16384; 0: 2048.
    pub n_tokens: u32,
    /// 0: as many as there are cores.
    pub n_threads: u32,
    /// Layers to keep on GPUs; none: all that fit.
    pub n_gpu_layers: Option<u32>,
    /// Whether the user's cache gets a copy, which contexts of the model find and prefer to a quick fit.
    pub keep: bool,
}

/// What calibration predicts for a layer's keys.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct LayerGain {
    /// Number of the layer in the model.
    pub layer: u32,
    /// KV heads.
    pub heads: u32,
    /// Those of them that are better with scales than without; the others keep theirs at 1.
    pub scaled: u32,
    /// Error of attention's output with turbo3 keys, relative to its energy, mean over heads.
    pub error_without: f32,
    /// The same with scales.
    pub error_with: f32,
}

/// Why a model could not be calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// C's strings end at a NUL.
    #[error("the text has a NUL byte at {position}")]
    Nul {
        /// Where in it.
        position: usize,
    },
    /// A path that llama.cpp cannot be given.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A number that llama.cpp has no room for.
    #[error("{what} is {value}: at most {max} are possible", max = i32::MAX)]
    TooLarge {
        /// Which of the options.
        what: &'static str,
        /// Its value.
        value: u32,
    },
    /// The model was not loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model was loaded, but not calibrated, or the file not written.
    #[error("cannot calibrate {}: {reason}", path.display())]
    Calibrate {
        /// The model's file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },
    /// The file was written, but the user's cache has no copy of it.
    #[error("{} was written: {reason}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },
    /// The scales would replace the model.
    #[error("{} is the model: name another file for the scales", path.display())]
    IsModel {
        /// The file.
        path: PathBuf,
    },
    /// `progress` said so. No file was written.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Fits key scales to the model in `model` and writes them to `out`.
///
/// `progress` is called with 0 to 1, and returns whether to go on; `layer` for every layer that has keys, in order.
/// A file that was at `out` stays as it was unless all goes well.
///
/// Errors: [`CalibrateError`]. Models with latent attention (MLA), with an encoder, or of a head_dim that is not
/// a multiple of 64 cannot be calibrated.
pub fn calibrate(
    model: &Path,
    out: &Path,
    options: &CalibrateOptions,
    progress: impl FnMut(f32) -> bool,
    layer: impl FnMut(LayerGain),
) -> Result<(), CalibrateError> {
    if is_same_file(model, out) {
        return Err(CalibrateError::IsModel { path: out.into() });
    }
    let file = path_to_c(out)?;
    let nul = |e: std::ffi::NulError| CalibrateError::Nul { position: e.nul_position() };
    let text = options.text.as_deref().map(CString::new).transpose().map_err(nul)?;
    let n_tokens = to_i32(options.n_tokens, "n_tokens")?;
    let n_threads = to_i32(options.n_threads, "n_threads")?;
    let mut builder = Model::builder(model);
    if let Some(n) = options.n_gpu_layers {
        to_i32(n, "n_gpu_layers")?;
        builder = builder.n_gpu_layers(n);
    }
    let loaded = builder.load()?;

    let mut callbacks = Callbacks { progress, layer, stopped: false };
    let user_data = (&raw mut callbacks).cast::<c_void>();
    // SAFETY: plain values; the strings live until the call below is over.
    let mut params = unsafe { sys::llama_kv_calibrate_default_params() };
    params.text = text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    params.n_tokens = n_tokens;
    params.n_threads = n_threads;
    (params.progress_callback, params.progress_callback_user_data) =
        (Some(on_progress(&callbacks)), user_data);
    (params.layer_callback, params.layer_callback_user_data) =
        (Some(on_layer(&callbacks)), user_data);

    let mut done = false;
    // SAFETY: the model is loaded, and nobody else has it; the callbacks are called on this thread, during the call, with
    // their own data.
    let calibrate = || unsafe {
        fence::tq_kv_calibrate(loaded.raw(), file.as_ptr(), &raw const params, &raw mut done)
    };
    let (status, reason) = log::errors_of(calibrate);
    fenced(status)?;
    match (done, callbacks.stopped) {
        (true, _) if options.keep => keep(&loaded, &file, out),
        (true, _) => Ok(()),
        (false, true) => Err(CalibrateError::Stopped),
        (false, false) => {
            let reason = reason.replace("cannot calibrate: ", "");
            Err(CalibrateError::Calibrate { path: model.into(), reason })
        }
    }
}

fn keep(model: &Model, file: &CStr, path: &Path) -> Result<(), CalibrateError> {
    // SAFETY: the model is loaded, the path terminated; what may throw in there is caught there.
    let (kept, reason) =
        log::errors_of(|| unsafe { sys::llama_kv_calib_keep(model.raw(), file.as_ptr()) });
    if kept { Ok(()) } else { Err(CalibrateError::Keep { path: path.into(), reason }) }
}

/// Whether two paths lead to one file that is there.
fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

struct Callbacks<P, L> {
    progress: P,
    layer: L,
    stopped: bool,
}

/// The C callback for callbacks of these types. A panic in them ends the process: there is C++ in between.
fn on_progress<P: FnMut(f32) -> bool, L>(
    _: &Callbacks<P, L>,
) -> unsafe extern "C" fn(f32, *mut c_void) -> bool {
    unsafe extern "C" fn call<P: FnMut(f32) -> bool, L>(done: f32, user_data: *mut c_void) -> bool {
        // SAFETY: the callbacks that `calibrate` hands over; it does not touch them meanwhile.
        let callbacks = unsafe { &mut *user_data.cast::<Callbacks<P, L>>() };
        callbacks.stopped |= !(callbacks.progress)(done);
        !callbacks.stopped
    }
    call::<P, L>
}

fn on_layer<P, L: FnMut(LayerGain)>(
    _: &Callbacks<P, L>,
) -> unsafe extern "C" fn(*const sys::llama_kv_calibrate_layer, *mut c_void) {
    unsafe extern "C" fn call<P, L: FnMut(LayerGain)>(
        layer: *const sys::llama_kv_calibrate_layer,
        user_data: *mut c_void,
    ) {
        // SAFETY: as above; the layer lives during the call.
        let (callbacks, layer) = unsafe { (&mut *user_data.cast::<Callbacks<P, L>>(), &*layer) };
        (callbacks.layer)(LayerGain {
            layer: layer.il.unsigned_abs(),
            heads: layer.n_head_kv.unsigned_abs(),
            scaled: layer.n_scaled.unsigned_abs(),
            error_without: layer.error_without,
            error_with: layer.error_with,
        });
    }
    call::<P, L>
}

fn to_i32(value: u32, what: &'static str) -> Result<i32, CalibrateError> {
    i32::try_from(value).map_err(|_| CalibrateError::TooLarge { what, value })
}
