//! What a context is made of.

use super::cache_policy::CachePolicy;
use super::cache_type::{KvAnchors, KvCalibration};
use super::error::ContextError;
use super::sys;

/// When attention is computed in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FlashAttention {
    /// Where the devices can, and where V is quantized.
    #[default]
    Auto,
    Off,
    On,
}

/// What becomes of the embeddings of a sequence's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pooling {
    /// What the model says.
    #[default]
    Model,
    /// One embedding per token.
    None,
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// Scores of a classification head.
    Rank,
}

/// How RoPE reaches further than in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RopeScaling {
    /// What the model says.
    #[default]
    Model,
    None,
    Linear,
    Yarn,
    LongRope,
}

/// YaRN's parameters; None: what the model says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Yarn {
    /// Mix of extrapolation and interpolation, 0 to 1.
    pub ext_factor: Option<f32>,
    /// Scale of the magnitude.
    pub attn_factor: Option<f32>,
    /// Correction for low dimensions.
    pub beta_fast: Option<f32>,
    /// Correction for high dimensions.
    pub beta_slow: Option<f32>,
    /// Context size before the scaling, tokens.
    pub orig_ctx: Option<u32>,
}

/// The parameters of a [`Context`](super::Context).
///
/// ```
/// use llama_turboquant::llama::{CacheType, ContextParams};
///
/// let params = ContextParams::default()
///     .n_ctx(8192)
///     .cache_types(CacheType::Turbo4, CacheType::Turbo3);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct ContextParams {
    pub(super) n_ctx: u32,
    pub(super) n_batch: u32,
    pub(super) n_ubatch: u32,
    pub(super) n_seq_max: u32,
    pub(super) n_threads: Option<u32>,
    pub(super) n_threads_batch: Option<u32>,
    pub(super) rope_scaling: RopeScaling,
    pub(super) rope_freq_base: Option<f32>,
    pub(super) rope_freq_scale: Option<f32>,
    pub(super) yarn: Yarn,
    pub(super) flash_attention: FlashAttention,
    pub(super) pooling: Pooling,
    pub(super) embeddings: bool,
    pub(super) offload_kqv: bool,
    pub(super) op_offload: bool,
    pub(super) swa_full: bool,
    pub(super) kv_unified: bool,
    pub(super) type_k: CachePolicy,
    pub(super) type_v: CachePolicy,
    pub(super) anchors: KvAnchors,
    pub(super) calibration: Option<KvCalibration>,
}

impl Default for ContextParams {
    fn default() -> Self {
        Self {
            n_ctx: 4096,
            n_batch: 2048,
            n_ubatch: 512,
            n_seq_max: 1,
            n_threads: None,
            n_threads_batch: None,
            rope_scaling: RopeScaling::default(),
            rope_freq_base: None,
            rope_freq_scale: None,
            yarn: Yarn::default(),
            flash_attention: FlashAttention::default(),
            pooling: Pooling::default(),
            embeddings: false,
            offload_kqv: true,
            op_offload: true,
            swa_full: true,
            kv_unified: false,
            type_k: CachePolicy::default(),
            type_v: CachePolicy::default(),
            anchors: KvAnchors::default(),
            calibration: None,
        }
    }
}

/// ggml has room for no more threads.
const N_THREADS_MAX: u32 = 512;

impl ContextParams {
    /// Tokens of all sequences together; 0: what the model was trained with. Default: 4096. llama.cpp rounds it
    /// up to a multiple of 256, per sequence unless the cache is unified.
    pub fn n_ctx(self, n: u32) -> Self {
        Self { n_ctx: n, ..self }
    }

    /// Tokens that one decode takes at most. Default: 2048.
    pub fn n_batch(self, n: u32) -> Self {
        Self { n_batch: n, ..self }
    }

    /// Tokens that are computed at once. Default: 512.
    pub fn n_ubatch(self, n: u32) -> Self {
        Self { n_ubatch: n, ..self }
    }

    /// Sequences, 1 to 256. Default: 1.
    pub fn n_seq_max(self, n: u32) -> Self {
        Self { n_seq_max: n, ..self }
    }

    /// Threads for decoding token by token, 1 to 512. Default: as many as there are cores.
    pub fn n_threads(self, n: u32) -> Self {
        Self { n_threads: Some(n), ..self }
    }

    /// Threads for decoding many tokens, 1 to 512. Default: [`ContextParams::n_threads`].
    pub fn n_threads_batch(self, n: u32) -> Self {
        Self { n_threads_batch: Some(n), ..self }
    }

    /// How RoPE is scaled. Default: what the model says.
    pub fn rope_scaling(self, scaling: RopeScaling) -> Self {
        Self { rope_scaling: scaling, ..self }
    }

    /// RoPE's base frequency. Default: what the model says.
    pub fn rope_freq_base(self, base: f32) -> Self {
        Self { rope_freq_base: Some(base), ..self }
    }

    /// RoPE's frequency factor: 0.5 reaches twice as far. Default: what the model says.
    pub fn rope_freq_scale(self, scale: f32) -> Self {
        Self { rope_freq_scale: Some(scale), ..self }
    }

    /// YaRN's parameters, for [`RopeScaling::Yarn`].
    pub fn yarn(self, yarn: Yarn) -> Self {
        Self { yarn, ..self }
    }

    /// When attention is computed in one piece. Default: automatic.
    pub fn flash_attention(self, flash: FlashAttention) -> Self {
        Self { flash_attention: flash, ..self }
    }

    /// How embeddings are pooled. Default: what the model says.
    pub fn pooling(self, pooling: Pooling) -> Self {
        Self { pooling, ..self }
    }

    /// Whether decoding yields embeddings. Default: no.
    pub fn embeddings(self, embeddings: bool) -> Self {
        Self { embeddings, ..self }
    }

    /// Whether the cache and attention are on the GPU where layers are. Default: yes.
    pub fn offload_kqv(self, offload: bool) -> Self {
        Self { offload_kqv: offload, ..self }
    }

    /// Whether large products of weights on the host are computed by the GPU. Default: yes.
    pub fn op_offload(self, offload: bool) -> Self {
        Self { op_offload: offload, ..self }
    }

    /// Whether layers with a sliding window keep all tokens, without which their sequences cannot be rolled back
    /// beyond the window. Default: yes.
    pub fn swa_full(self, full: bool) -> Self {
        Self { swa_full: full, ..self }
    }

    /// Whether all sequences share one cache, so that each may grow to `n_ctx` and parts can be copied without
    /// cost; else each has `n_ctx / n_seq_max`, and attention is faster. Default: no.
    pub fn kv_unified(self, unified: bool) -> Self {
        Self { kv_unified: unified, ..self }
    }

    /// The types of K and V: a [`CacheType`](super::CacheType), or a policy with exceptions by layer. Default: f16.
    pub fn cache_types(self, k: impl Into<CachePolicy>, v: impl Into<CachePolicy>) -> Self {
        Self { type_k: k.into(), type_v: v.into(), ..self }
    }

    /// Whether keys have anchors. Default: where K is of a turbo type.
    pub fn kv_anchors(self, anchors: KvAnchors) -> Self {
        Self { anchors, ..self }
    }

    /// Where key scales come from. Default: where K is of a turbo type, as [`KvCalibration::IfPossible`] says; else there are
    /// none.
    pub fn kv_calibration(self, calibration: KvCalibration) -> Self {
        Self { calibration: Some(calibration), ..self }
    }

    /// Numbers that llama.cpp would abort on, or take for others.
    pub(super) fn check(&self) -> Result<(), ContextError> {
        let max = i32::MAX.unsigned_abs();
        for (name, value, min, max) in [
            ("n_ctx", self.n_ctx, 0, max),
            ("n_batch", self.n_batch, 1, max),
            ("n_ubatch", self.n_ubatch, 1, max),
            ("n_seq_max", self.n_seq_max, 1, sys_max_sequences()),
            ("n_threads", self.threads(), 1, N_THREADS_MAX),
            ("n_threads_batch", self.threads_batch(), 1, N_THREADS_MAX),
        ] {
            if !(min..=max).contains(&value) {
                let [value, min, max] = [value, min, max].map(u64::from);
                return Err(ContextError::OutOfRange { name, value, min, max });
            }
        }
        Ok(())
    }

    /// The parameters but for the strings.
    pub(super) fn raw(&self) -> sys::llama_context_params {
        // SAFETY: plain values.
        let mut raw = unsafe { sys::llama_context_default_params() };
        raw.n_ctx = self.n_ctx;
        raw.n_batch = self.n_batch;
        raw.n_ubatch = self.n_ubatch;
        raw.n_seq_max = self.n_seq_max;
        raw.n_threads = self.threads().cast_signed();
        raw.n_threads_batch = self.threads_batch().cast_signed();
        raw.rope_scaling_type = match self.rope_scaling {
            RopeScaling::Model => sys::LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
            RopeScaling::None => sys::LLAMA_ROPE_SCALING_TYPE_NONE,
            RopeScaling::Linear => sys::LLAMA_ROPE_SCALING_TYPE_LINEAR,
            RopeScaling::Yarn => sys::LLAMA_ROPE_SCALING_TYPE_YARN,
            RopeScaling::LongRope => sys::LLAMA_ROPE_SCALING_TYPE_LONGROPE,
        };
        raw.rope_freq_base = self.rope_freq_base.unwrap_or(0.0);
        raw.rope_freq_scale = self.rope_freq_scale.unwrap_or(0.0);
        raw.yarn_ext_factor = self.yarn.ext_factor.unwrap_or(-1.0);
        raw.yarn_attn_factor = self.yarn.attn_factor.unwrap_or(-1.0);
        raw.yarn_beta_fast = self.yarn.beta_fast.unwrap_or(-1.0);
        raw.yarn_beta_slow = self.yarn.beta_slow.unwrap_or(-1.0);
        raw.yarn_orig_ctx = self.yarn.orig_ctx.unwrap_or(0);
        raw.flash_attn_type = match self.flash_attention {
            FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
            FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        };
        raw.pooling_type = match self.pooling {
            Pooling::Model => sys::LLAMA_POOLING_TYPE_UNSPECIFIED,
            Pooling::None => sys::LLAMA_POOLING_TYPE_NONE,
            Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
            Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
            Pooling::Last => sys::LLAMA_POOLING_TYPE_LAST,
            Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
        };
        raw.embeddings = self.embeddings;
        raw.offload_kqv = self.offload_kqv;
        raw.op_offload = self.op_offload;
        raw.swa_full = self.swa_full;
        raw.kv_unified = self.kv_unified;
        raw.type_k = self.type_k.base().ggml();
        raw.type_v = self.type_v.base().ggml();
        raw.kv_anchors = self.anchors.raw();
        raw
    }

    fn threads(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
        let cores = || u32::try_from(cores()).unwrap_or(N_THREADS_MAX).min(N_THREADS_MAX);
        self.n_threads.unwrap_or_else(cores)
    }

    fn threads_batch(&self) -> u32 {
        self.n_threads_batch.unwrap_or_else(|| self.threads())
    }
}

fn sys_max_sequences() -> u32 {
    // SAFETY: returns a constant.
    u32::try_from(unsafe { sys::llama_max_parallel_sequences() }).unwrap_or(u32::MAX)
}
