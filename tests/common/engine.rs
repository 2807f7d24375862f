//! Model and context over the raw bindings: just enough to decode and to look at the logits.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Once;

use llama_turboquant::llama::sys::{self, ggml_type};

use super::stats::argmax;

thread_local! {
    static LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

unsafe extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level >= sys::GGML_LOG_LEVEL_WARN {
        // SAFETY: ggml passes a string that lives during the call.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        LOG.with_borrow_mut(|log| log.push_str(&text));
    }
}

/// Before any other function of llama.cpp.
pub fn init() {
    static ONCE: Once = Once::new();
    // SAFETY: called once, before any other function of llama.cpp.
    ONCE.call_once(|| unsafe {
        sys::llama_log_set(Some(log), std::ptr::null_mut());
        sys::llama_backend_init();
    });
}

/// Runs `f`; returns its result and the warnings and errors that llama.cpp logged on this thread.
pub fn logged<T>(f: impl FnOnce() -> T) -> (T, String) {
    LOG.with_borrow_mut(String::clear);
    let result = f();
    (result, LOG.take())
}

pub fn type_name(t: ggml_type) -> &'static str {
    // SAFETY: every id that the tests use has a name, a static string.
    unsafe { CStr::from_ptr(sys::ggml_type_name(t)) }.to_str().expect("an ASCII name")
}

/// A path as C takes it.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().expect("a path in UTF-8")).expect("no NUL in a path")
}

/// The types of K and V by name: `turbo4/turbo2`.
pub fn label((k, v): (ggml_type, ggml_type)) -> String {
    format!("{}/{}", type_name(k), type_name(v))
}

/// A context that must come to be.
pub fn context<'m>(model: &'m Model, options: Options) -> Context<'m> {
    Context::new(model, options).expect("a context")
}

/// A loaded model.
pub struct Model {
    raw: NonNull<sys::llama_model>,
    vocab: *const sys::llama_vocab,
}

// SAFETY: a loaded model is only read; contexts of several threads share it.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a GGUF file. Error: what llama.cpp logged.
    pub fn load(path: &Path) -> Result<Self, String> {
        init();
        let file = c_path(path);
        let (raw, log) = logged(|| {
            // SAFETY: the path is terminated; the default parameters are valid.
            unsafe {
                sys::llama_model_load_from_file(file.as_ptr(), sys::llama_model_default_params())
            }
        });
        let raw = NonNull::new(raw).ok_or(log)?;
        // SAFETY: the model is loaded, and its vocabulary lives as long.
        let vocab = unsafe { sys::llama_model_get_vocab(raw.as_ptr()) };
        Ok(Self { raw, vocab })
    }

    /// The raw model, for the functions that one test needs.
    pub fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary lives as long as self.
        unsafe { sys::llama_vocab_n_tokens(self.vocab) as usize }
    }

    /// The tokens of a text, with the special ones that the model begins with.
    pub fn tokenize(&self, text: &str) -> Vec<i32> {
        let mut tokens = vec![0; text.len() + 8];
        // SAFETY: both lengths are the buffers' own.
        let n = unsafe {
            sys::llama_tokenize(
                self.vocab,
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                true,
                false,
            )
        };
        tokens.truncate(usize::try_from(n).expect("one token a byte is enough"));
        tokens
    }

    /// The text of some tokens.
    pub fn text(&self, tokens: &[i32]) -> String {
        let mut text = vec![0u8; 64 * tokens.len() + 64];
        // SAFETY: both lengths are the buffers' own.
        let n = unsafe {
            sys::llama_detokenize(
                self.vocab,
                tokens.as_ptr(),
                tokens.len() as i32,
                text.as_mut_ptr().cast(),
                text.len() as i32,
                false,
                true,
            )
        };
        text.truncate(usize::try_from(n).expect("64 bytes a token are enough"));
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: loaded by us and freed once; contexts borrow the model, so none is left.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

/// What a context is made of.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    pub k: ggml_type,
    pub v: ggml_type,
    pub n_ctx: u32,
    pub n_ubatch: u32,
    pub n_threads: i32,
    pub n_seq: u32,
    /// One cache for all sequences instead of one each.
    pub unified: bool,
    pub flash_attn: sys::llama_flash_attn_type,
    pub anchors: sys::llama_kv_anchors_type,
    /// A file of key scales; None: there are none, whatever K is.
    pub kv_calib: Option<&'a Path>,
}

impl Options<'_> {
    pub fn new((k, v): (ggml_type, ggml_type)) -> Self {
        Self {
            k,
            v,
            n_ctx: 512,
            n_ubatch: 512,
            n_threads: 1,
            n_seq: 1,
            unified: false,
            flash_attn: sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            anchors: sys::LLAMA_KV_ANCHORS_AUTO,
            kv_calib: None,
        }
    }
}

/// A token to decode: where it stands, in which sequence, and whether its logits are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub token: i32,
    pub pos: usize,
    pub seq: i32,
    pub output: bool,
}

/// A context of a model. Every decode must succeed.
pub struct Context<'m> {
    raw: NonNull<sys::llama_context>,
    model: &'m Model,
}

impl<'m> Context<'m> {
    /// Errors: what llama.cpp logged.
    pub fn new(model: &'m Model, options: Options) -> Result<Self, String> {
        // SAFETY: plain values.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.type_k = options.k;
        params.type_v = options.v;
        params.n_ctx = options.n_ctx;
        params.n_batch = options.n_ctx;
        params.n_ubatch = options.n_ubatch;
        params.n_seq_max = options.n_seq;
        params.n_threads = options.n_threads;
        params.n_threads_batch = options.n_threads;
        params.kv_unified = options.unified;
        params.flash_attn_type = options.flash_attn;
        params.kv_anchors = options.anchors;
        let kv_calib = options.kv_calib.map_or(c"off".to_owned(), c_path);
        params.kv_calib = kv_calib.as_ptr();
        let (raw, log) = logged(|| {
            // SAFETY: the model outlives the context by 'm, the path the call.
            unsafe { sys::llama_init_from_model(model.raw.as_ptr(), params) }
        });
        NonNull::new(raw).map(|raw| Self { raw, model }).ok_or(log)
    }

    /// The raw context, for the functions that one test needs.
    pub fn raw(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    pub fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context lives.
        unsafe { sys::llama_get_memory(self.raw()) }
    }

    /// Decodes one batch; returns the logits of the entries that want them, in order.
    pub fn decode(&mut self, entries: &[Entry]) -> Vec<Vec<f32>> {
        let mut token: Vec<_> = entries.iter().map(|e| e.token).collect();
        let mut pos: Vec<_> = entries.iter().map(|e| e.pos as sys::llama_pos).collect();
        let mut n_seq_id = vec![1; entries.len()];
        let mut seq: Vec<_> = entries.iter().map(|e| e.seq).collect();
        let mut seq_id: Vec<_> = seq.iter_mut().map(std::ptr::from_mut).collect();
        let mut logits: Vec<_> = entries.iter().map(|e| i8::from(e.output)).collect();
        let batch = sys::llama_batch {
            n_tokens: entries.len() as i32,
            token: token.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: pos.as_mut_ptr(),
            n_seq_id: n_seq_id.as_mut_ptr(),
            seq_id: seq_id.as_mut_ptr(),
            logits: logits.as_mut_ptr(),
        };
        // SAFETY: every array holds n_tokens values and lives during the call.
        let status = unsafe { sys::llama_decode(self.raw(), batch) };
        assert_eq!(status, 0, "llama_decode of {} tokens", entries.len());
        let outputs = entries.iter().enumerate().filter(|(_, e)| e.output);
        outputs
            .map(|(i, _)| {
                // SAFETY: entry i has logits, n_vocab of them, until the next decode.
                unsafe {
                    let logits = sys::llama_get_logits_ith(self.raw(), i as i32);
                    std::slice::from_raw_parts(logits, self.model.n_vocab()).to_vec()
                }
            })
            .collect()
    }

    /// Decodes `n` embeddings of sequence 0 instead of tokens, as those of images are; returns the last logits. `positions`: of
    /// each, or with M-RoPE all of the first kind, then all of the second, and so on.
    pub fn decode_embeddings(
        &mut self,
        embeddings: &[f32],
        positions: &[i32],
        n: usize,
    ) -> Vec<f32> {
        let (mut embeddings, mut positions) = (embeddings.to_vec(), positions.to_vec());
        assert!(embeddings.len().is_multiple_of(n) && positions.len().is_multiple_of(n));
        let mut n_seq_id = vec![1; n];
        let mut seq = vec![0; n];
        let mut seq_id: Vec<_> = seq.iter_mut().map(std::ptr::from_mut).collect();
        let mut logits: Vec<_> = (1..=n).map(|i| i8::from(i == n)).collect();
        let batch = sys::llama_batch {
            n_tokens: n as i32,
            token: std::ptr::null_mut(),
            embd: embeddings.as_mut_ptr(),
            pos: positions.as_mut_ptr(),
            n_seq_id: n_seq_id.as_mut_ptr(),
            seq_id: seq_id.as_mut_ptr(),
            logits: logits.as_mut_ptr(),
        };
        // SAFETY: every array holds as many values as the model takes for n_tokens and lives during the call.
        let status = unsafe { sys::llama_decode(self.raw(), batch) };
        assert_eq!(status, 0, "llama_decode of {n} embeddings");
        // SAFETY: the last entry has logits, n_vocab of them, until the next decode.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.raw(), n as i32 - 1);
            std::slice::from_raw_parts(logits, self.model.n_vocab()).to_vec()
        }
    }

    /// Decodes tokens of sequence `seq` from position `pos` in one batch; returns the last logits.
    pub fn prefill(&mut self, tokens: &[i32], pos: usize, seq: i32) -> Vec<f32> {
        let last = tokens.len() - 1;
        let entry = |(i, &token)| Entry { token, pos: pos + i, seq, output: i == last };
        let entries: Vec<_> = tokens.iter().enumerate().map(entry).collect();
        self.decode(&entries).pop().expect("the last token has logits")
    }

    /// Continues sequence `seq` greedily with `n` tokens: `logits` are those at `pos - 1`.
    pub fn greedy(&mut self, mut logits: Vec<f32>, pos: usize, seq: i32, n: usize) -> Vec<i32> {
        let mut tokens = Vec::new();
        for pos in pos..pos + n {
            let token = argmax(&logits);
            tokens.push(token);
            logits = self.prefill(&[token], pos, seq);
        }
        tokens
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: made by us and freed once.
        unsafe { sys::llama_free(self.raw()) }
    }
}
