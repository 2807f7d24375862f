//! Calibrations: made of a model, or of one that was made, with scales by hand.

use std::path::PathBuf;

use llama_turboquant::llama::sys;

use super::engine::{Model, c_path, logged};
use super::gguf_file::{Gguf, Tensor};

/// A file of key scales, in a temporary folder.
pub struct Calibration {
    dir: tempfile::TempDir,
}

impl Calibration {
    /// Fitted to `n_tokens` of the library's text.
    pub fn of(model: &Model, n_tokens: i32) -> Self {
        let new = Self::empty();
        let path = c_path(&new.path());
        // SAFETY: plain values; the model is loaded, the path is terminated.
        let (done, log) = logged(|| unsafe {
            let mut params = sys::llama_kv_calibrate_default_params();
            params.n_tokens = n_tokens;
            params.n_threads = 2;
            sys::llama_kv_calibrate(model.raw(), path.as_ptr(), params)
        });
        assert!(done, "{log}");
        new
    }

    fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("scales.gguf")
    }

    /// A copy with something else in it.
    pub fn changed(&self, change: impl FnOnce(&mut Gguf)) -> Self {
        let mut file = Gguf::read(&self.path());
        change(&mut file);
        let new = Self::empty();
        file.write(&new.path());
        new
    }

    /// A copy with other scales: `scale` is called for each pair of channels of each head.
    pub fn with_scales(&self, pairs: RopePairs, mut scale: impl FnMut() -> f32) -> Self {
        self.changed(|file| {
            for tensor in &mut file.tensors {
                let head_dim = tensor.shape[0] as usize;
                let n_heads = tensor.values().len() / head_dim;
                let heads = (0..n_heads).flat_map(|_| {
                    let scales: Vec<_> = (0..head_dim / 2).map(|_| scale()).collect();
                    (0..head_dim).map(move |channel| scales[pairs.of(channel, head_dim)])
                });
                let values: Vec<_> = heads.collect();
                *tensor =
                    Tensor::f32(tensor.name.clone(), tensor.shape.clone(), values.into_iter());
            }
        })
    }

    /// Of all layers, one after another.
    pub fn scales(&self) -> Vec<f32> {
        Gguf::read(&self.path()).tensors.iter().flat_map(Tensor::values).collect()
    }

    /// The largest factor by which a scale differs from 1.
    pub fn strength(&self) -> f32 {
        self.scales().into_iter().map(|s| s.max(1.0 / s)).fold(1.0, f32::max)
    }
}

/// Channels that RoPE turns together.
#[derive(Clone, Copy, Debug)]
pub enum RopePairs {
    /// 2i and 2i + 1, as of llama's models.
    Adjacent,
    /// i and i + head_dim/2, as of gemma's.
    Halves,
}

impl RopePairs {
    /// The number of a channel's pair.
    fn of(self, channel: usize, head_dim: usize) -> usize {
        match self {
            Self::Adjacent => channel / 2,
            Self::Halves => channel % (head_dim / 2),
        }
    }
}
