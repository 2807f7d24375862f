//! Whether a context fits into memory. Systems promise more than they have, and end the process that takes it.

use super::context_params::ContextParams;
use super::error::ContextError;
use super::model::Model;
use super::probe::ModelProbe;
use super::system;

/// Refuses a context that cannot fit. Where GPUs hold a part, their drivers refuse what does not.
pub(super) fn check(model: &Model, params: &ContextParams) -> Result<(), ContextError> {
    if model.no_alloc() || system::devices().iter().any(|device| !device.is_cpu) {
        return Ok(());
    }
    let Some(free) = system::free_memory() else {
        return Ok(());
    };
    let n_ctx = if params.n_ctx == 0 { model.n_ctx_train() } else { params.n_ctx };
    let (least, most) = bounds(model, params, n_ctx);
    // What is asked below reads the model's metadata again, which takes longer than making a small context.
    if most < free / 2 {
        return Ok(());
    }
    // llama.cpp keeps some bytes for each cell of the caches even where nothing else is allocated: the question itself
    // could be too large.
    let probe = || ModelProbe::open(model.path());
    let needed = match least > free {
        true => least,
        false => match probe().ok().and_then(|probe| probe.memory_use(params).ok()) {
            Some(of) => of.total() - of.model,
            // The file is gone: llama.cpp will say how it goes.
            None => return Ok(()),
        },
    };
    if needed <= free {
        return Ok(());
    }
    // Weights are there already.
    let longest = |probe: &ModelProbe| probe.longest_context(params, free + model.size()).ok();
    let longest = probe().ok().as_ref().and_then(longest).flatten();
    Err(ContextError::Memory { n_ctx, needed, free, longest })
}

/// Bytes that a context takes, at least and at most: layers with a sliding window may keep little or all.
fn bounds(model: &Model, params: &ContextParams, n_ctx: u32) -> (u64, u64) {
    let n_layer = model.kv_layers().len();
    let types = |policy: &super::CachePolicy| policy.types(n_layer).unwrap_or_default();
    let (of_k, of_v) = (types(&params.type_k), types(&params.type_v));
    let (mut least, mut most) = (0.0, compute(model, params, n_ctx));
    for ((layer, k), v) in model.kv_layers().iter().zip(of_k).zip(of_v) {
        let k = f64::from(layer.head_dim_k) * f64::from(k.bits_at(layer.head_dim_k));
        // With latent attention values are a part of keys.
        let v = if model.is_latent() {
            0.0
        } else {
            f64::from(layer.head_dim_v) * f64::from(v.bits_at(layer.head_dim_v))
        };
        let bytes = f64::from(n_ctx) * f64::from(layer.n_head_kv) * (k + v) / 8.0;
        least += if layer.sliding_window { 0.0 } else { bytes };
        most += bytes * 1.1; // anchors, and what rounds up
    }
    (least as u64, most as u64)
}

/// Bytes of the buffers for computing, at most: what is alive at once, with a margin. Graphs may leave flash attention
/// whatever the parameters say, and then have a logit for each query and key. Infinity: only llama.cpp can say, as of
/// recurrences and of attention that models bring themselves.
fn compute(model: &Model, params: &ContextParams, n_ctx: u32) -> f64 {
    if model.is_recurrent() || model.shape().own_attention {
        return f64::INFINITY;
    }
    // Contexts are rounded up, at most to this per sequence.
    let n_kv = f64::from(n_ctx) + 256.0 * f64::from(params.n_seq_max);
    let n_tokens = f64::from(params.n_ubatch.min(params.n_batch));
    // Logits of attention before and after the softmax, twice as many for heads that differ between layers, and masks.
    let attention = n_tokens * n_kv * 4.0 * (4.0 * f64::from(model.n_head()) + 4.0);
    // Of all tokens: on their way out they are copied.
    let logits = 2.0 * 4.0 * f64::from(model.vocab().n_tokens()) * f64::from(params.n_batch);
    let activations = 16.0 * 4.0 * n_tokens * width(model);
    attention + logits + activations
}

/// Values of the widest activation of a token.
fn width(model: &Model) -> f64 {
    let arch = model.meta("general.architecture").unwrap_or_default();
    let number = |key: &str| model.meta(&format!("{arch}.{key}"))?.parse::<f64>().ok();
    let n_embd = f64::from(model.n_embd());
    // Sizes that differ between layers are arrays, of which no number is told.
    let n_ff = number("feed_forward_length").unwrap_or(16.0 * n_embd);
    let experts = number("expert_used_count").unwrap_or(0.0);
    let n_expert_ff = number("expert_feed_forward_length").unwrap_or(n_ff);
    let heads = f64::from(model.n_head()) * f64::from(model.head_dim());
    (2.0 * n_ff).max(2.0 * experts * n_expert_ff).max(n_embd).max(2.0 * heads)
}
