//! Scales of key channels for C++ that captured a layer: plain structs, checked here, fitted in Rust.
//!
//! Declared in `ggml-ext/src/turbo-calibrate.h`.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};

use super::rows::{values, values_mut};
use super::status::{self, cut, panic_text};
use crate::calibrate::{
    self, FitError, HeadFit, Layer, Operand, Pairs, Queries, TERMINATED, array_len,
};

/// RoPE: keys are not turned.
pub const TQ_ROPE_NONE: i32 = 0;
/// RoPE: channels 2i and 2i + 1 turn together.
pub const TQ_ROPE_ADJACENT: i32 = 1;
/// RoPE: channels i and i + n_rot / 2 turn together.
pub const TQ_ROPE_HALVES: i32 = 2;

/// Queries of a layer; see [`Queries`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct tq_fit_queries {
    /// `[n_q][n_head][head_dim]`.
    pub q: *const f32,
    /// Queries.
    pub n_q: usize,
    /// Heads of a query.
    pub n_head: usize,
    /// `[n_q][n_kv]`.
    pub mask: *const f32,
    /// `[n_head]`; null: none.
    pub sinks: *const f32,
    /// Factor of the logits.
    pub scale: f32,
    /// Cap of the logits; 0: none.
    pub softcap: f32,
    /// ALiBi's largest bias; 0: none.
    pub max_bias: f32,
}

/// Keys and values of a layer, and what reads them; see [`Layer`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct tq_fit_layer {
    /// `[n_kv][n_head_kv][head_dim]`.
    pub k: *const f32,
    /// `[n_kv][n_head_kv][head_dim_v]`.
    pub v: *const f32,
    /// Cells.
    pub n_kv: usize,
    /// Heads of keys and of values.
    pub n_head_kv: usize,
    /// Channels of a key.
    pub head_dim: usize,
    /// Channels of a value.
    pub head_dim_v: usize,
    /// One of TQ_ROPE_*.
    pub rope: i32,
    /// Channels that RoPE turns; not read with TQ_ROPE_NONE.
    pub n_rot: usize,
    /// `[n_queries]`.
    pub queries: *const tq_fit_queries,
    /// Sets of queries.
    pub n_queries: usize,
}

/// What became of a KV head; see [`HeadFit`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(non_camel_case_types)]
pub struct tq_fit_head {
    /// Power of the scales; 0: no scales were better than all 1.
    pub power: f32,
    /// Relative error of attention without scales.
    pub error_without: f32,
    /// The same with them.
    pub error_with: f32,
}

impl From<&HeadFit> for tq_fit_head {
    fn from(head: &HeadFit) -> Self {
        Self {
            power: head.candidate.map_or(0.0, |candidate| candidate.power),
            error_without: head.error_without as f32,
            error_with: head.error_with as f32,
        }
    }
}

/// Fits the scales of a layer's key channels on `n_threads` threads.
///
/// True: `scales`, `[n_head_kv][head_dim]`, and `heads`, `[n_head_kv]`, are written. False: neither is, and `error`
/// says why in at most `n_error` bytes, of which the last is NUL. `error` may be null: nothing is said then.
///
/// # Safety
/// Pointers are null or valid for the shapes above and those of the structs; what is written overlaps nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_fit_key_scales(
    layer: *const tq_fit_layer,
    n_threads: usize,
    scales: *mut f32,
    heads: *mut tq_fit_head,
    error: *mut c_char,
    n_error: usize,
) -> bool {
    // SAFETY: the caller's, for all of it.
    let call = || unsafe { fit(layer, n_threads, scales, heads) };
    let text = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return true,
        Ok(Err(refusal)) => refusal.to_string(),
        Err(panic) => panic_text(panic.as_ref()).to_owned(),
    };
    if !error.is_null() && n_error > 0 {
        let text = cut(&text, n_error - 1);
        // SAFETY: the text and its NUL take no more than `n_error` bytes, which `error` is valid for.
        unsafe {
            error.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
            error.add(text.len()).write(0);
        }
    }
    false
}

/// The text to calibrate with: UTF-8, of `*n_bytes` bytes and a NUL. `n_bytes` may be null.
///
/// # Safety
/// `n_bytes`: null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_calibration_text(n_bytes: *mut usize) -> *const c_char {
    // SAFETY: the caller's.
    if let Some(n_bytes) = unsafe { n_bytes.as_mut() } {
        *n_bytes = TERMINATED.len() - 1;
    }
    TERMINATED.as_ptr().cast()
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("n_threads is 0")]
    Threads,
    #[error("rope {0} is none of TQ_ROPE_*")]
    Rope(i32),
    #[error(transparent)]
    Pointer(#[from] status::Error),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error("no {n_threads} threads: {source}")]
    Pool { n_threads: usize, source: ThreadPoolBuildError },
}

/// # Safety
/// As [`tq_fit_key_scales`].
unsafe fn fit(
    layer: *const tq_fit_layer,
    n_threads: usize,
    scales: *mut f32,
    heads: *mut tq_fit_head,
) -> Result<(), Refusal> {
    // SAFETY: the caller's.
    let layer = unsafe { &values("layer", layer, 1)?[0] };
    if n_threads == 0 {
        return Err(Refusal::Threads);
    }
    let &tq_fit_layer { n_kv, n_head_kv, head_dim, head_dim_v, rope, n_rot, .. } = layer;
    let pairs = match rope {
        TQ_ROPE_NONE => Pairs::None,
        TQ_ROPE_ADJACENT => Pairs::Adjacent { n_rot },
        TQ_ROPE_HALVES => Pairs::Halves { n_rot },
        _ => return Err(Refusal::Rope(rope)),
    };
    let n_sets = array_len::<tq_fit_queries>(Operand::Queries, &[layer.n_queries])?;
    // SAFETY: the caller's, for both.
    let sets = unsafe {
        let sets = values("queries", layer.queries, n_sets)?.iter().enumerate();
        sets.map(|(set, queries)| queries_of(layer, set, queries)).collect::<Result<Vec<_>, _>>()?
    };
    // SAFETY: the caller's, for both.
    let (k, v) = unsafe {
        (
            floats("k", Operand::K, layer.k, &[n_kv, n_head_kv, head_dim])?,
            floats("v", Operand::V, layer.v, &[n_kv, n_head_kv, head_dim_v])?,
        )
    };
    let layer = Layer { k, v, n_kv, n_head_kv, head_dim, head_dim_v, pairs, queries: &sets };
    let n_scales = array_len::<f32>(Operand::K, &[n_head_kv, head_dim])?;
    let n_heads = array_len::<tq_fit_head>(Operand::K, &[n_head_kv])?;
    // SAFETY: the caller's, for both.
    let (scales, heads) =
        unsafe { (values_mut("scales", scales, n_scales)?, values_mut("heads", heads, n_heads)?) };
    let pool = ThreadPoolBuilder::new().num_threads(n_threads).build();
    let pool = pool.map_err(|source| Refusal::Pool { n_threads, source })?;
    let fits = pool.install(|| calibrate::fit(&layer))?;
    for ((fit, scale), head) in fits.iter().zip(scales.chunks_exact_mut(head_dim)).zip(heads) {
        scale.copy_from_slice(&fit.scale);
        *head = fit.into();
    }
    Ok(())
}

/// # Safety
/// As [`tq_fit_key_scales`].
unsafe fn queries_of<'a>(
    layer: &tq_fit_layer,
    set: usize,
    queries: &tq_fit_queries,
) -> Result<Queries<'a>, Refusal> {
    let &tq_fit_queries { n_q, n_head, scale, softcap, max_bias, .. } = queries;
    // SAFETY: the caller's, for all of it.
    let (q, mask, sinks) = unsafe {
        let sinks = match queries.sinks.is_null() {
            true => None,
            false => Some(floats("sinks", Operand::Sinks { set }, queries.sinks, &[n_head])?),
        };
        (
            floats("q", Operand::Q { set }, queries.q, &[n_q, n_head, layer.head_dim])?,
            floats("mask", Operand::Mask { set }, queries.mask, &[n_q, layer.n_kv])?,
            sinks,
        )
    };
    Ok(Queries { q, n_q, n_head, mask, sinks, scale, softcap, max_bias })
}

/// # Safety
/// `data` is null, misaligned, or valid for reads of these dimensions for as long as `'a`.
unsafe fn floats<'a>(
    name: &'static str,
    operand: Operand,
    data: *const f32,
    dims: &[usize],
) -> Result<&'a [f32], Refusal> {
    // SAFETY: the caller's.
    Ok(unsafe { values(name, data, array_len::<f32>(operand, dims)?)? })
}

#[cfg(test)]
#[path = "calibrate_tests.rs"]
mod tests;
