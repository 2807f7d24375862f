//! Contexts: a model's memory of sequences, and what decodes into it.

use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::Batch;
use super::cache_type::KvCalibration;
use super::context_params::{ContextParams, FlashAttention};
use super::error::{ContextError, DecodeError, OutputError};
use super::ffi::{fenced, path_to_c};
use super::lora::Lora;
use super::model::Model;
use super::sys::{self, fence};
use super::{SeqId, Token, log, memory_check};

/// A context of a model, which it keeps alive.
///
/// A context may move to another thread, but is used by one at a time: decoding takes `&mut`, and what borrows
/// its outputs keeps it from decoding.
pub struct Context {
    raw: NonNull<sys::llama_context>,
    model: Arc<Model>,
    kv_unified: bool,
    embeddings: bool,
    /// Whether the last decode went well, so that its outputs are there.
    has_outputs: bool,
    /// Whether they may be logits: encoders yield embeddings alone.
    has_logits: bool,
    /// The sequences that were encoded last, for models whose decoder attends to them.
    encoded: Vec<SeqId>,
    /// What aborts decoding; llama.cpp has its address.
    abort: Arc<AtomicBool>,
    /// What llama.cpp has the addresses of.
    loras: Vec<Arc<Lora>>,
}

// SAFETY: llama.cpp ties no part of a context to the thread that made it; the model may be used by any thread.
// Not Sync: reading outputs orders and waits for them.
unsafe impl Send for Context {}

impl Context {
    /// Creates a context. Errors: [`ContextError`]; cache types that the model cannot have, and sizes that the machine has
    /// no memory for, are found before anything is allocated.
    pub fn new(model: &Arc<Model>, params: &ContextParams) -> Result<Self, ContextError> {
        if model.vocab_only() {
            return Err(ContextError::VocabOnly);
        }
        params.check()?;
        check_kind(model, params)?;
        let flash = params.flash_attention != FlashAttention::Off;
        model.check_cache(&params.type_k, &params.type_v, flash)?;
        memory_check::check(model, params)?;

        let layers =
            |text: String| (!text.is_empty()).then(|| CString::new(text).unwrap_or_default());
        let (k_layers, v_layers) =
            (layers(params.type_k.exceptions()), layers(params.type_v.exceptions()));
        let calibration = match &params.calibration {
            None => None,
            Some(KvCalibration::Auto) => Some(c"auto".to_owned()),
            Some(KvCalibration::IfPossible) => Some(c"try".to_owned()),
            Some(KvCalibration::Off) => Some(c"off".to_owned()),
            Some(KvCalibration::File(path)) => Some(path_to_c(path)?),
        };
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());

        let abort = Arc::new(AtomicBool::new(false));
        let mut raw_params = params.raw();
        raw_params.type_k_layers = pointer(&k_layers);
        raw_params.type_v_layers = pointer(&v_layers);
        raw_params.kv_calib = pointer(&calibration);
        raw_params.abort_callback = Some(on_abort);
        raw_params.abort_callback_data = Arc::as_ptr(&abort).cast_mut().cast();

        let mut raw = std::ptr::null_mut();
        let changing = model.changing();
        // SAFETY: the model lives; the strings live during the call, the flag as long as the context.
        let create =
            || unsafe { fence::tq_context_new(model.raw(), &raw const raw_params, &raw mut raw) };
        let (status, reason) = log::errors_of(create);
        drop(changing);
        fenced(status)?;
        let raw = NonNull::new(raw).ok_or(ContextError::Create { reason })?;
        let context = Self {
            raw,
            model: Arc::clone(model),
            kv_unified: params.kv_unified || params.n_seq_max == 1,
            embeddings: params.embeddings,
            has_outputs: false,
            has_logits: false,
            encoded: Vec::new(),
            abort,
            loras: Vec::new(),
        };
        // Here the model's own pooling is known.
        match context.pooling() {
            sys::LLAMA_POOLING_TYPE_NONE => Ok(context),
            sys::LLAMA_POOLING_TYPE_RANK if !model.can_rank() => Err(ContextError::NoRanking),
            _ if model.is_encoder_decoder() => Err(ContextError::EncoderPooling),
            _ => Ok(context),
        }
    }

    /// The model that it is of.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens of all sequences together.
    pub fn n_ctx(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_ctx(self.raw()) }
    }

    /// Tokens of one sequence.
    pub fn n_ctx_seq(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_ctx_seq(self.raw()) }
    }

    /// Tokens that one decode takes at most.
    pub fn n_batch(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_batch(self.raw()) }
    }

    /// Tokens that are computed at once.
    pub fn n_ubatch(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_ubatch(self.raw()) }
    }

    /// Sequences; they are 0 to this.
    pub fn n_seq_max(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_seq_max(self.raw()) }
    }

    /// Sets how many threads decode token by token, and how many decode many tokens. Both are at least 1, at
    /// most 512; others are brought into that range.
    pub fn set_n_threads(&mut self, n_threads: u32, n_threads_batch: u32) {
        let [n, n_batch] = [n_threads, n_threads_batch].map(|n| n.clamp(1, 512).cast_signed());
        // SAFETY: the context lives; the numbers are in range.
        unsafe { sys::llama_set_n_threads(self.raw(), n, n_batch) }
    }

    /// What aborts decoding while it is true: set it from another thread. Only CPUs look at it within a batch.
    pub fn abort_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.abort)
    }

    /// Decodes a batch: its tokens become part of their sequences, and its outputs replace those before.
    ///
    /// Positions of a sequence are consecutive. Errors: [`DecodeError`], which says what became of the cache.
    /// Models without a decoder encode it.
    pub fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        if self.encodes_only() {
            return self.encode(batch);
        }
        self.check_batch(batch, self.pools_ubatches())?;
        if self.model.is_encoder_decoder()
            && let Some(seq) = batch.sequences().find(|seq| !self.encoded.contains(seq))
        {
            return Err(DecodeError::NotEncoded { seq });
        }
        self.run(batch, fence::tq_decode)?;
        self.has_logits = true;
        Ok(())
    }

    /// Runs a batch through the encoder of a model that has one; where the model has a decoder, too, it then attends to
    /// what this yields, for the sequences of the batch and no others.
    ///
    /// Errors: as [`Context::decode`]; [`DecodeError::NoEncoder`].
    pub fn encode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        if !self.encodes_only() && !self.model.has_encoder() {
            return Err(DecodeError::NoEncoder);
        }
        self.check_batch(batch, true)?;
        self.run(batch, fence::tq_encode)?;
        self.has_logits = self.model.is_diffusion();
        self.encoded.clear();
        self.encoded.extend(batch.sequences());
        Ok(())
    }

    /// Decodes tokens behind those that the sequence has, `n_batch` at a time. The logits of the last are
    /// [`Context::last_logits`].
    ///
    /// Errors: [`DecodeError`]; batches before the one that failed stay decoded.
    pub fn append(&mut self, tokens: &[Token], seq: SeqId) -> Result<(), DecodeError> {
        self.check_sequence(seq)?;
        if tokens.is_empty() {
            return Err(DecodeError::Empty);
        }
        let mut pos = self.seq_len(seq);
        let parts = tokens.chunks(self.n_batch().max(1) as usize);
        for part in parts {
            let too_far = |_| DecodeError::NoRoom { n_tokens: part.len(), n_ctx: self.n_ctx() };
            let batch = Batch::of_sequence(part, pos, seq).map_err(too_far)?;
            self.decode(&batch)?;
            pos += part.len() as u32;
        }
        Ok(())
    }

    /// Logits of the token with this index in the last batch: `n_vocab` of them.
    ///
    /// Errors: [`OutputError::None`] if they were not asked for.
    pub fn logits(&self, index: usize) -> Result<&[f32], OutputError> {
        let i = i32::try_from(index).map_err(|_| OutputError::None { index })?;
        self.logits_at(i, index)
    }

    /// Logits of the last token of the last batch of which they were asked for.
    ///
    /// Errors: [`OutputError::None`] if there is none.
    pub fn last_logits(&self) -> Result<&[f32], OutputError> {
        self.logits_at(-1, 0)
    }

    fn logits_at(&self, i: i32, index: usize) -> Result<&[f32], OutputError> {
        if !self.has_outputs {
            return Err(OutputError::None { index });
        }
        if !self.has_logits {
            return Err(OutputError::NoLogits);
        }
        let mut logits = std::ptr::null_mut();
        // SAFETY: the context lives; any index may be asked for.
        fenced(unsafe { fence::tq_logits(self.raw(), i, &raw mut logits) })?;
        let logits = NonNull::new(logits).ok_or(OutputError::None { index })?;
        let n_vocab = self.model.vocab().n_tokens() as usize;
        // SAFETY: n_vocab logits, which stay as they are until the context is borrowed mutably. Outputs are put in
        // order by the first call after a decode, before there is a slice of them.
        Ok(unsafe { std::slice::from_raw_parts(logits.as_ptr(), n_vocab) })
    }

    /// Waits until all that was started is computed.
    ///
    /// Errors: [`DecodeError::Exception`].
    pub fn synchronize(&mut self) -> Result<(), DecodeError> {
        // SAFETY: the context lives.
        Ok(fenced(unsafe { fence::tq_synchronize(self.raw()) })?)
    }

    /// The raw context, for functions that are not wrapped.
    pub fn raw(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    pub(super) fn kv_unified(&self) -> bool {
        self.kv_unified
    }

    pub(super) fn has_embeddings(&self) -> bool {
        self.embeddings
    }

    pub(super) fn has_outputs(&self) -> bool {
        self.has_outputs
    }

    /// Keeps these adapters alive and no others, which llama.cpp is not to use any more.
    pub(super) fn hold_loras(&mut self, loras: Vec<Arc<Lora>>) {
        self.loras = loras;
    }

    pub(super) fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context lives. Null for models without.
        unsafe { sys::llama_get_memory(self.raw()) }
    }

    pub(super) fn pooling(&self) -> sys::llama_pooling_type {
        // SAFETY: the context lives.
        unsafe { sys::llama_pooling_type(self.raw()) }
    }

    /// Whether all that it can do with a batch is to encode it: nothing stays in memory.
    fn encodes_only(&self) -> bool {
        self.memory().is_null() || !self.model.has_decoder()
    }

    /// Whether embeddings are pooled over what is computed at once, so that a batch must not be more.
    fn pools_ubatches(&self) -> bool {
        let over_some = [sys::LLAMA_POOLING_TYPE_MEAN, sys::LLAMA_POOLING_TYPE_CLS];
        self.embeddings && over_some.contains(&self.pooling())
    }

    /// A batch that was checked.
    fn run(
        &mut self,
        batch: &Batch,
        function: unsafe extern "C" fn(
            *mut sys::llama_context,
            *const sys::llama_batch,
            *mut i32,
        ) -> i32,
    ) -> Result<(), DecodeError> {
        self.has_outputs = false;
        let mut pointers = Vec::new();
        let raw_batch = batch.raw(&mut pointers);
        let mut result = 0;
        // SAFETY: the batch and what it points to live during the call, which copies them. Its tokens, sequences
        // and size were checked.
        let run = || unsafe { function(self.raw.as_ptr(), &raw const raw_batch, &raw mut result) };
        let (status, reason) = log::errors_of(run);
        fenced(status)?;
        match result {
            0 => {
                self.has_outputs = true;
                Ok(())
            }
            1 => Err(DecodeError::NoRoom { n_tokens: batch.len(), n_ctx: self.n_ctx() }),
            2 => Err(DecodeError::Aborted),
            -1 => Err(DecodeError::Invalid { reason }),
            status => Err(DecodeError::Failed { status, reason }),
        }
    }

    /// What llama.cpp would abort on. `whole`: it is computed at once.
    fn check_batch(&self, batch: &Batch, whole: bool) -> Result<(), DecodeError> {
        if batch.is_empty() {
            return Err(DecodeError::Empty);
        }
        // SAFETY: the context lives.
        let causal = unsafe { sys::llama_get_causal_attn(self.raw()) };
        let limits =
            [(self.n_batch(), "n_batch", true), (self.n_ubatch(), "n_ubatch", whole || !causal)];
        for (max, name, applies) in limits {
            if applies && batch.len() > max as usize {
                return Err(DecodeError::TooLong { n_tokens: batch.len(), max, name });
            }
        }
        batch.sequences().try_for_each(|seq| self.check_sequence(seq))?;
        if let (Some(n_pos), Some(pos)) = (self.model.n_pos(), batch.last_position())
            && pos >= n_pos
        {
            return Err(DecodeError::Position { pos, n_pos });
        }
        let n_tokens = self.model.vocab().n_tokens();
        let outside = |token: &&Token| u32::try_from(**token).map_or(true, |id| id >= n_tokens);
        match batch.tokens().iter().find(outside) {
            Some(&token) => Err(DecodeError::Token { token, n_tokens }),
            None => Ok(()),
        }
    }

    fn check_sequence(&self, seq: SeqId) -> Result<(), DecodeError> {
        let n_seq_max = self.n_seq_max();
        if seq < n_seq_max { Ok(()) } else { Err(DecodeError::Sequence { seq, n_seq_max }) }
    }
}

/// What contexts of a model's kind cannot be.
fn check_kind(model: &Model, params: &ContextParams) -> Result<(), ContextError> {
    let n_seq_max = params.n_seq_max;
    if model.is_encoder_decoder() && n_seq_max > 1 && !params.kv_unified {
        return Err(ContextError::EncoderSequences { n_seq_max });
    }
    Ok(())
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by us and freed once, before the model and the adapters, which it keeps alive.
        unsafe { sys::llama_free(self.raw()) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut context = f.debug_struct("Context");
        context.field("model", &self.model).field("n_ctx", &self.n_ctx()).finish_non_exhaustive()
    }
}

unsafe extern "C" fn on_abort(flag: *mut c_void) -> bool {
    // SAFETY: the flag of a context, which lives as long as it.
    unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}
