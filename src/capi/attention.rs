//! Flash attention for ggml's operator: plain structs in ggml's order, checked here, computed in Rust.

use std::ffi::c_void;

use crate::attention::{self, Anchors, Args, AttentionError, KvType, Problem, Tensor, Thread};
use crate::codec::TurboType;

/// Type id: 32-bit float.
pub const TQ_KV_F32: i32 = 0;
/// Type id: IEEE half.
pub const TQ_KV_F16: i32 = 1;
/// Type id: bfloat16.
pub const TQ_KV_BF16: i32 = 2;
/// Type id: ggml's q8_0.
pub const TQ_KV_Q8_0: i32 = 3;
/// Type id: turbo2.
pub const TQ_KV_TURBO2: i32 = 4;
/// Type id: turbo3.
pub const TQ_KV_TURBO3: i32 = 5;
/// Type id: turbo4.
pub const TQ_KV_TURBO4: i32 = 6;
/// Type id: 32-bit integer, of `anchor_ids` alone.
pub const TQ_KV_I32: i32 = 7;

/// A tensor as ggml describes it.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct tq_fa_tensor {
    /// First element; null: there is no such tensor (mask, sinks) or it is not allocated yet.
    pub data: *const c_void,
    /// One of TQ_KV_*.
    pub r#type: i32,
    /// Keeps `ne` aligned; not read.
    pub pad: i32,
    /// Elements in each dimension, the first runs fastest.
    pub ne: [i64; 4],
    /// Stride of each dimension in bytes.
    pub nb: [usize; 4],
}

/// The operands of `ggml_flash_attn_ext`.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct tq_fa_args {
    /// f32 queries, `[dk, n_tokens, n_head, n_batch]`.
    pub q: tq_fa_tensor,
    /// Keys, `[dk, n_kv, n_head_k, n_batch_k]`.
    pub k: tq_fa_tensor,
    /// Values, `[dv, n_kv, n_head_v, n_batch_v]`.
    pub v: tq_fa_tensor,
    /// f16 mask, `[n_kv, n_tokens, h, b]`; null data: none.
    pub mask: tq_fa_tensor,
    /// f32 attention sinks, `[n_head]`; null data: none.
    pub sinks: tq_fa_tensor,
    /// f16 `[dk, n_anchors, n_head_k, n_batch_k]`: vectors that were taken off the keys. A logit is
    /// `(q.k + q.anchors[anchor_ids[cell]]) * scale`, before the cap. `ne[0]` 0: none; data may be null until
    /// the operator runs.
    pub anchors: tq_fa_tensor,
    /// i32 `[n_kv or more, n_batch_ids, 1, 1]`: the anchor of each cell; there if and only if `anchors` is.
    /// Negative: none, the term is 0. `n_anchors` and above is an error: results of queries that see it are NaN.
    pub anchor_ids: tq_fa_tensor,
    /// f32 results, `[dv, n_head, n_tokens, n_batch]`, contiguous.
    pub dst: tq_fa_tensor,
    /// Factor of the logits.
    pub scale: f32,
    /// ALiBi's largest bias; 0: none.
    pub max_bias: f32,
    /// Logits become `cap * tanh(logit / cap)`; 0: they stay.
    pub logit_softcap: f32,
}

/// One of the threads that compute an operator together.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct tq_fa_thread {
    /// Index of this thread.
    pub ith: i32,
    /// Threads in all.
    pub nth: i32,
    /// Work buffer that the threads share.
    pub wdata: *mut c_void,
    /// Its bytes, at least `tq_flash_attn_wsize`.
    pub wsize: usize,
    /// Returns when all `nth` threads have called it; may be null if `nth` is 1.
    pub barrier: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Argument of `barrier`.
    pub ctx: *mut c_void,
}

/// Bytes of work buffer that `tq_flash_attn` needs with `n_threads` threads; enough for fewer.
///
/// Reads shapes and types only: data may still be null. Aborts with a message if they are not supported.
///
/// # Safety
/// `args`: null or a valid pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_flash_attn_wsize(args: *const tq_fa_args, n_threads: i32) -> usize {
    // SAFETY: the caller's.
    let args = unsafe { args.as_ref() };
    let problem =
        args.ok_or(Refusal::Null).and_then(problem).unwrap_or_else(|error| refuse(&error));
    attention::work_bytes(&problem, usize::try_from(n_threads).unwrap_or(1))
}

/// Whether `tq_flash_attn` takes a pair of types (TQ_KV_*) with these head dimensions.
///
/// At least one type is turbo, unless there are anchors; head dimensions are whole blocks.
#[unsafe(no_mangle)]
pub extern "C" fn tq_flash_attn_supported(
    type_k: i32,
    type_v: i32,
    dk: i64,
    dv: i64,
    anchors: bool,
) -> bool {
    let (Ok(type_k), Ok(type_v)) = (kv_type(type_k), kv_type(type_v)) else { return false };
    let (Ok(dk), Ok(dv)) = (usize::try_from(dk), usize::try_from(dv)) else { return false };
    attention::supported(type_k, type_v, dk, dv, anchors).is_ok()
}

/// Computes one thread's share of `ggml_flash_attn_ext`; all `nth` threads call it with the same `args`.
///
/// Aborts with a message if the arguments are not supported or the work buffer is too small.
///
/// # Safety
/// Both pointers are null or valid; tensors are valid for their shapes and strides, `dst` for writes, `wdata` for
/// `wsize` bytes that nothing else uses meanwhile; `barrier` is a barrier of the `nth` threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_flash_attn(args: *const tq_fa_args, thread: *const tq_fa_thread) {
    // SAFETY: the caller's.
    let (args, thread) = unsafe { (args.as_ref(), thread.as_ref()) };
    let (Some(args), Some(thread)) = (args, thread) else { refuse(&Refusal::Null) };
    let problem = problem(args).unwrap_or_else(|error| refuse(&error));
    let (Ok(index), Ok(threads)) = (usize::try_from(thread.ith), usize::try_from(thread.nth))
    else {
        refuse(&Refusal::Threads { ith: thread.ith, nth: thread.nth })
    };
    if threads > 1 && thread.barrier.is_none() {
        refuse(&Refusal::Threads { ith: thread.ith, nth: thread.nth });
    }
    let barrier = || {
        if let Some(barrier) = thread.barrier {
            // SAFETY: the caller's.
            unsafe { barrier(thread.ctx) }
        }
    };
    let (work, work_bytes) = (thread.wdata.cast(), thread.wsize);
    let thread = Thread { index, threads, work, work_bytes, barrier: &barrier };
    // SAFETY: the caller's.
    let result = unsafe { attention::flash_attn(&problem, &thread, attention::active()) };
    if let Err(error) = result {
        refuse(&error.into());
    }
}

/// Why arguments are not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("args or thread is null")]
    Null,
    #[error("type id {0} is none of TQ_KV_*")]
    Type(i32),
    #[error("{which} has type id {id}, expected {expected}")]
    Operand { which: &'static str, id: i32, expected: i32 },
    #[error("{which} has a negative dimension: {ne:?}")]
    Dimension { which: &'static str, ne: [i64; 4] },
    #[error("{present} has ne[0] > 0, {absent} has not: anchors need both")]
    Anchors { present: &'static str, absent: &'static str },
    #[error("dst is not contiguous [dv, n_head, n_tokens, n_batch]: shape {ne:?}, strides {nb:?}")]
    Dst { ne: [i64; 4], nb: [usize; 4] },
    #[error("thread {ith} of {nth}: needs 0 <= ith < nth, and a barrier if nth > 1")]
    Threads { ith: i32, nth: i32 },
    #[error(transparent)]
    Attention(#[from] AttentionError),
}

/// The caller broke the contract: the message, and the end, as with a failed GGML_ASSERT.
#[cold]
fn refuse(refusal: &Refusal) -> ! {
    eprintln!("tq_flash_attn: {refusal}");
    std::process::abort()
}

fn kv_type(id: i32) -> Result<KvType, Refusal> {
    Ok(match id {
        TQ_KV_F32 => KvType::F32,
        TQ_KV_F16 => KvType::F16,
        TQ_KV_BF16 => KvType::Bf16,
        TQ_KV_Q8_0 => KvType::Q8_0,
        TQ_KV_TURBO2 => KvType::Turbo(TurboType::Turbo2),
        TQ_KV_TURBO3 => KvType::Turbo(TurboType::Turbo3),
        TQ_KV_TURBO4 => KvType::Turbo(TurboType::Turbo4),
        _ => return Err(Refusal::Type(id)),
    })
}

fn tensor(which: &'static str, tensor: &tq_fa_tensor) -> Result<Tensor, Refusal> {
    let mut ne = [0; 4];
    for (out, &n) in ne.iter_mut().zip(&tensor.ne) {
        *out = usize::try_from(n).map_err(|_| Refusal::Dimension { which, ne: tensor.ne })?;
    }
    Ok(Tensor { data: tensor.data.cast(), ne, nb: tensor.nb })
}

fn problem(args: &tq_fa_args) -> Result<Problem, Refusal> {
    let mask = Some(&args.mask).filter(|mask| !mask.data.is_null());
    let sinks = Some(&args.sinks).filter(|sinks| !sinks.data.is_null());
    let table = Some(&args.anchors).filter(|table| table.ne[0] != 0);
    let anchor_ids = Some(&args.anchor_ids).filter(|ids| ids.ne[0] != 0);
    for (which, tensor, expected) in [
        ("q", Some(&args.q), TQ_KV_F32),
        ("mask", mask, TQ_KV_F16),
        ("sinks", sinks, TQ_KV_F32),
        ("anchors", table, TQ_KV_F16),
        ("anchor_ids", anchor_ids, TQ_KV_I32),
        ("dst", Some(&args.dst), TQ_KV_F32),
    ] {
        if let Some(&tq_fa_tensor { r#type: id, .. }) = tensor
            && id != expected
        {
            return Err(Refusal::Operand { which, id, expected });
        }
    }
    let q = tensor("q", &args.q)?;
    let v = tensor("v", &args.v)?;
    let dst = tensor("dst", &args.dst)?;
    let [_, tokens, heads, batches] = q.ne;
    let shape = [v.ne[0], heads, tokens, batches];
    let contiguous = [4, 4 * shape[0], 4 * shape[0] * shape[1], 4 * shape[0] * shape[1] * shape[2]];
    if dst.ne != shape || dst.nb != contiguous {
        return Err(Refusal::Dst { ne: args.dst.ne, nb: args.dst.nb });
    }
    if let Some(sinks) = sinks
        && sinks.ne[0] != args.q.ne[2]
    {
        let (left, right) = (tensor("sinks", sinks)?.ne[0], heads);
        return Err(AttentionError::Shape { what: "sinks and heads of Q", left, right }.into());
    }
    let anchors = match (table, anchor_ids) {
        (None, None) => None,
        (Some(table), Some(ids)) => {
            Some(Anchors { table: tensor("anchors", table)?, ids: tensor("anchor_ids", ids)? })
        }
        (Some(_), None) => {
            return Err(Refusal::Anchors { present: "anchors", absent: "anchor_ids" });
        }
        (None, Some(_)) => {
            return Err(Refusal::Anchors { present: "anchor_ids", absent: "anchors" });
        }
    };
    Ok(Problem::new(&Args {
        q,
        k: tensor("k", &args.k)?,
        type_k: kv_type(args.k.r#type)?,
        v,
        type_v: kv_type(args.v.r#type)?,
        mask: mask.map(|mask| tensor("mask", mask)).transpose()?,
        sinks: args.sinks.data.cast(),
        anchors,
        dst: args.dst.data.cast_mut().cast(),
        scale: args.scale,
        max_bias: args.max_bias,
        softcap: args.logit_softcap,
    })?)
}
