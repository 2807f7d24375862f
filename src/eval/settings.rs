//! How contexts are made of pairs of types.

use std::sync::Arc;

use crate::llama::{
    CacheError, CachePolicy, ContextParams, FlashAttention, KvAnchors, KvCalibration, Model,
};

/// What the contexts of several pairs of types have in common.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CacheSettings {
    /// Threads. Default: as many as there are cores.
    pub n_threads: Option<u32>,
    /// Key anchors. Default: automatic.
    pub anchors: KvAnchors,
    /// Key scales. Default: where K is of a turbo type, those of the user's cache or a quick fit.
    pub calibration: Option<KvCalibration>,
    /// Default: automatic.
    pub flash_attention: FlashAttention,
}

/// Why a model cannot have a pair of types.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{k} / {v}: {reason}")]
pub struct PairError {
    /// Types of K.
    pub k: CachePolicy,
    /// Types of V.
    pub v: CachePolicy,
    reason: CacheError,
}

/// Tokens that are computed at once, as in llama-perplexity.
pub(super) const N_UBATCH: u32 = 512;

impl CacheSettings {
    /// The same without anchors and scales.
    pub(super) fn plain(&self) -> Self {
        Self { anchors: KvAnchors::Off, calibration: Some(KvCalibration::Off), ..self.clone() }
    }

    /// Layers with a sliding window keep no more than they need, as in most programs.
    pub(super) fn params(&self, n_ctx: usize, k: &CachePolicy, v: &CachePolicy) -> ContextParams {
        let mut params = ContextParams::default()
            .n_ctx(u32::try_from(n_ctx).unwrap_or(u32::MAX))
            .n_batch(N_UBATCH)
            .n_ubatch(N_UBATCH)
            .swa_full(false)
            .cache_types(k.clone(), v.clone())
            .kv_anchors(self.anchors)
            .flash_attention(self.flash_attention);
        if let Some(n) = self.n_threads {
            params = params.n_threads(n);
        }
        match &self.calibration {
            Some(calibration) => params.kv_calibration(calibration.clone()),
            None => params,
        }
    }

    /// Whether the model can have all pairs, before anything is run.
    pub(super) fn check(
        &self,
        model: &Arc<Model>,
        pairs: &[(CachePolicy, CachePolicy)],
    ) -> Result<(), PairError> {
        let flash = self.flash_attention != FlashAttention::Off;
        pairs.iter().try_for_each(|(k, v)| {
            let refused = |reason| PairError { k: k.clone(), v: v.clone(), reason };
            model.check_cache(k, v, flash).map_err(refused)
        })
    }
}
