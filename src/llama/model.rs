//! Loaded models.

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache_check::CacheShape;
use super::error::{Exception, ModelError};
use super::ffi::fenced;
use super::model_builder::ModelBuilder;
use super::sys::{self, fence};
use super::vocab::Vocab;

/// A layer with keys and values of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvLayer {
    /// Number of the layer in the model.
    pub layer: u32,
    /// KV heads.
    pub n_head_kv: u32,
    /// Values per head of a key.
    pub head_dim_k: u32,
    /// Values per head of a value.
    pub head_dim_v: u32,
    /// Whether it sees a window of the last tokens alone.
    pub sliding_window: bool,
}

/// Where a model is from, and how much of it is there.
#[derive(Debug)]
pub(super) struct Origin {
    pub path: PathBuf,
    pub vocab_only: bool,
    /// Tensors have no memory.
    pub no_alloc: bool,
}

/// A model: weights and vocabulary. Contexts share it; it lives as long as the last of them.
pub struct Model {
    raw: NonNull<sys::llama_model>,
    shape: CacheShape,
    n_ctx_train: u32,
    n_pos: Option<u32>,
    can_rank: bool,
    origin: Origin,
    /// Held while llama.cpp changes the model: when contexts and adapters come and go.
    changing: Mutex<()>,
}

// SAFETY: no thread owns anything in a loaded model.
unsafe impl Send for Model {}
// SAFETY: a loaded model is only read, but for the training context size, which creating a context with YaRN
// changes and which is read here once, and the list of adapters: both under `changing`.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a GGUF file: [`Model::builder`] with the defaults. Errors: [`ModelError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Arc<Self>, ModelError> {
        Self::builder(path).load()
    }

    /// How to load a GGUF file. Of a file in parts, the first.
    pub fn builder(path: impl AsRef<Path>) -> ModelBuilder<'static> {
        ModelBuilder::new(path.as_ref().into())
    }

    /// The vocabulary and its tokenizer.
    pub fn vocab(&self) -> Vocab<'_> {
        // SAFETY: the model lives, and its vocabulary as long.
        let raw = unsafe { sys::llama_model_get_vocab(self.raw()) };
        Vocab::new(self, raw)
    }

    /// Context size that the model was trained with, tokens.
    pub fn n_ctx_train(&self) -> u32 {
        self.n_ctx_train
    }

    /// Values per embedding of a token.
    pub fn n_embd(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_embd(self.raw()) }.unsigned_abs()
    }

    /// Values per embedding that comes out: `n_embd` but for few models.
    pub fn n_embd_out(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_embd_out(self.raw()) }.unsigned_abs()
    }

    /// Layers.
    pub fn n_layer(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_layer(self.raw()) }.unsigned_abs()
    }

    /// Query heads of the first layer.
    pub fn n_head(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_head(self.raw()) }.unsigned_abs()
    }

    /// KV heads of the first layer.
    pub fn n_head_kv(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_head_kv(self.raw()) }.unsigned_abs()
    }

    /// Values per head of a key, of the first layer with keys; 0: no layer has.
    pub fn head_dim(&self) -> u32 {
        self.kv_layers().first().map_or(0, |layer| layer.head_dim_k)
    }

    /// The layers with keys and values of their own, which the selectors of
    /// [`CachePolicy`](super::CachePolicy) count.
    pub fn kv_layers(&self) -> &[KvLayer] {
        &self.shape.layers
    }

    /// Tokens that layers with a sliding window see; 0: no layer has one.
    pub fn n_swa(&self) -> u32 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_swa(self.raw()) }.unsigned_abs()
    }

    /// Bytes of all tensors.
    pub fn size(&self) -> u64 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_size(self.raw()) }
    }

    /// Parameters.
    pub fn n_params(&self) -> u64 {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_n_params(self.raw()) }
    }

    /// Whether it has an encoder, which [`Context::encode`](super::Context::encode) runs.
    pub fn has_encoder(&self) -> bool {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_has_encoder(self.raw()) }
    }

    /// Whether it has a decoder.
    pub fn has_decoder(&self) -> bool {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_has_decoder(self.raw()) }
    }

    /// Whether all of its memory is recurrent states, as Mamba's, or some of it.
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: the model lives.
        unsafe {
            sys::llama_model_is_recurrent(self.raw()) || sys::llama_model_is_hybrid(self.raw())
        }
    }

    /// Architecture, size and type of the weights: `llama 134M Q4_1`.
    pub fn description(&self) -> String {
        // SAFETY: llama.cpp writes at most `len` bytes.
        read_string(|buf, len| unsafe { sys::llama_model_desc(self.raw(), buf, len) })
            .unwrap_or_default()
    }

    /// The chat template that the model comes with, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        // SAFETY: null or a terminated string that lives as long as the model.
        let source = unsafe {
            let source = sys::llama_model_chat_template(self.raw(), std::ptr::null());
            (!source.is_null()).then(|| CStr::from_ptr(source))
        };
        source?.to_str().ok()
    }

    /// A value of the GGUF's metadata, as text; None: no such key, or an array.
    pub fn meta(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        // SAFETY: the key is terminated; llama.cpp writes at most `len` bytes.
        read_string(|buf, len| unsafe {
            sys::llama_model_meta_val_str(self.raw(), key.as_ptr(), buf, len)
        })
    }

    /// Keys and values of the GGUF's metadata, arrays left out.
    pub fn metadata(&self) -> impl Iterator<Item = (String, String)> + '_ {
        // SAFETY: the model lives.
        let n = unsafe { sys::llama_model_meta_count(self.raw()) };
        (0..n).filter_map(|i| {
            // SAFETY: i is in range; llama.cpp writes at most `len` bytes.
            let key = read_string(|buf, len| unsafe {
                sys::llama_model_meta_key_by_index(self.raw(), i, buf, len)
            });
            // SAFETY: as above.
            let value = read_string(|buf, len| unsafe {
                sys::llama_model_meta_val_str_by_index(self.raw(), i, buf, len)
            });
            Some((key?, value?))
        })
    }

    /// The raw model, for functions that are not wrapped.
    pub fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub(super) fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// The file that it was loaded from. Of a file in parts, the first.
    pub fn path(&self) -> &Path {
        &self.origin.path
    }

    /// Whether attention is latent (MLA): values are a part of keys.
    pub(super) fn is_latent(&self) -> bool {
        self.shape.latent
    }

    /// Positions that it has embeddings of; None: it has none, and takes any.
    pub(super) fn n_pos(&self) -> Option<u32> {
        self.n_pos
    }

    /// Whether it has a classification head.
    pub(super) fn can_rank(&self) -> bool {
        self.can_rank
    }

    /// Whether a decoder attends to what an encoder yields.
    pub(super) fn is_encoder_decoder(&self) -> bool {
        self.has_encoder() && self.has_decoder()
    }

    /// Whether a graph without a cache ends in logits.
    pub(super) fn is_diffusion(&self) -> bool {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_is_diffusion(self.raw()) }
    }

    pub(super) fn no_alloc(&self) -> bool {
        self.origin.no_alloc
    }

    pub(super) fn vocab_only(&self) -> bool {
        self.origin.vocab_only
    }

    /// To be held while llama.cpp changes the model.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: loaded by us and freed once; contexts, samplers and adapters hold the model, so none is left.
        unsafe { sys::llama_model_free(self.raw()) }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("description", &self.description()).finish_non_exhaustive()
    }
}

/// Text that `read` writes into a buffer; it returns the length without the NUL, or a negative number.
pub(super) fn read_string(read: impl Fn(*mut c_char, usize) -> i32) -> Option<String> {
    let mut buf = vec![0u8; 256];
    loop {
        let n = usize::try_from(read(buf.as_mut_ptr().cast(), buf.len())).ok()?;
        if n < buf.len() {
            buf.truncate(n);
            return Some(String::from_utf8_lossy(&buf).into_owned());
        }
        buf.resize(n + 1, 0);
    }
}

/// Takes over a model that was loaded, and reads what contexts ask of it.
pub(super) fn loaded(raw: NonNull<sys::llama_model>, origin: Origin) -> Result<Model, Exception> {
    let mut model = Model {
        raw,
        shape: CacheShape::default(),
        // SAFETY: the model is loaded.
        n_ctx_train: unsafe { sys::llama_model_n_ctx_train(raw.as_ptr()) }.unsigned_abs(),
        n_pos: None,
        can_rank: false,
        origin,
        changing: Mutex::new(()),
    };
    let mut traits = fence::tq_model_traits::default();
    // SAFETY: the model is loaded, the result has room.
    fenced(unsafe { fence::tq_model_get_traits(raw.as_ptr(), &raw mut traits) })?;
    let mut layers = vec![fence::tq_kv_layer::default(); model.n_layer() as usize];
    let mut n = 0;
    // SAFETY: as above; the length is the buffer's own.
    fenced(unsafe {
        fence::tq_model_get_kv_layers(raw.as_ptr(), layers.as_mut_ptr(), layers.len(), &raw mut n)
    })?;
    layers.truncate(n);
    model.n_pos = (traits.n_pos > 0).then_some(traits.n_pos);
    model.can_rank = traits.can_rank;
    let layer = |l: fence::tq_kv_layer| KvLayer {
        layer: l.il,
        n_head_kv: l.n_head_kv,
        head_dim_k: l.n_embd_head_k,
        head_dim_v: l.n_embd_head_v,
        sliding_window: l.is_swa,
    };
    model.shape = CacheShape {
        layers: layers.into_iter().map(layer).collect(),
        latent: traits.is_mla,
        sliding_window: traits.has_swa,
        own_attention: traits.has_own_attention,
        same_types: traits.same_kv_types,
        no_flash_attention: traits.no_flash_attn,
    };
    Ok(model)
}
