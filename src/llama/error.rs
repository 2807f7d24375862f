//! What can go wrong, one enum per operation. Where llama.cpp logged a reason, the error carries it.

use std::path::PathBuf;

use super::cache_type::{CacheType, KeysOrValues};
use super::{Pos, SeqId, Token};

/// A C++ exception that was caught on its way to Rust.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("llama.cpp threw an exception: {message}")]
pub struct Exception {
    /// Its `what()`.
    pub message: String,
}

/// A path that llama.cpp cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// llama.cpp's paths are UTF-8.
    #[error("the path {} is not UTF-8: rename the file", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// C's strings end at a NUL.
    #[error("the path {} has a NUL byte in it", path.display())]
    Nul {
        /// The path.
        path: PathBuf,
    },
}

/// Why a model was not loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error(transparent)]
    Path(#[from] PathError),
    /// Found before llama.cpp is asked.
    #[error("{} is a folder, not a GGUF file", path.display())]
    Folder { path: PathBuf },
    /// Found before llama.cpp is asked.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// Where it should be.
        path: PathBuf,
    },
    /// The progress callback said so.
    #[error("stopped loading {}", path.display())]
    Stopped {
        /// The model's file.
        path: PathBuf,
    },
    /// llama.cpp would not have it.
    #[error("cannot load the model {}: {reason}", path.display())]
    Load {
        /// The model's file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why a model cannot have a cache of these types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A row of a head has to be of whole blocks.
    #[error(
        "{side} cache type {cache_type} needs a head_dim that is a multiple of {block}, but layer {layer} has \
         {head_dim}: use {instead}"
    )]
    HeadDim {
        side: KeysOrValues,
        cache_type: CacheType,
        /// Values per block.
        block: u32,
        /// Number of the layer in the model.
        layer: u32,
        head_dim: u32,
        /// The nearest type that works.
        instead: CacheType,
    },
    /// llama.cpp rotates only caches of one head_dim.
    #[error(
        "{side} cache type {cache_type} is a code for rotated data, but layers differ in head_dim ({first} and \
         {other}), which is not rotated: use {instead}"
    )]
    HeadDimsDiffer {
        side: KeysOrValues,
        cache_type: CacheType,
        first: u32,
        other: u32,
        /// The nearest type that works.
        instead: CacheType,
    },
    /// Quantized values are read by flash attention alone.
    #[error(
        "V cache type {cache_type} needs flash attention, which is off: switch it on, or use {instead}"
    )]
    FlashAttentionOff {
        cache_type: CacheType,
        /// A type that works without.
        instead: CacheType,
    },
    /// Quantized values are read by flash attention alone, which the graphs of some models leave even where it is on.
    #[error(
        "V cache type {cache_type} needs flash attention, which the attention of this model cannot use: use {instead} \
         for V"
    )]
    NoFlashAttention {
        cache_type: CacheType,
        /// A type that works without.
        instead: CacheType,
    },
    /// Latent attention's graph does not rotate.
    #[error(
        "cache type {cache_type} is a code for rotated data, but the keys of multi-head latent attention are not \
         rotated: use {instead}"
    )]
    Latent {
        cache_type: CacheType,
        /// The nearest type that works.
        instead: CacheType,
    },
    /// The user switched the rotation off.
    #[error(
        "cache type {cache_type} is a code for rotated data, but LLAMA_ATTN_ROT_DISABLE={value} switches the rotation \
         off: unset it, or use {instead}"
    )]
    RotationOff {
        cache_type: CacheType,
        /// Of the variable.
        value: String,
        /// The nearest type that works.
        instead: CacheType,
    },
    /// Latent attention keeps K and V in one tensor.
    #[error("this model needs K and V of one type, not {k} and {v}: use {k} for both")]
    TypesDiffer { k: CacheType, v: CacheType },
    /// The graph writes one cache for all layers.
    #[error("the KV cache of this model has one type for all layers: no exceptions are possible")]
    OneType,
    /// An exception for layers that the model does not have.
    #[error("{selector} is out of range: the model has {n_layer} KV layers")]
    Layers {
        /// As it is written: `last2`, `7-9`.
        selector: String,
        n_layer: usize,
    },
}

/// Why a context was not created.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Path(#[from] PathError),
    /// A number that llama.cpp would not take.
    #[error("{name} is {value}: it has to be in {min}..={max}")]
    OutOfRange { name: &'static str, value: u64, min: u64, max: u64 },
    /// The model was loaded without weights.
    #[error("the model has its vocabulary alone: load it without vocab_only")]
    VocabOnly,
    /// Encoders and decoders share one cache.
    #[error(
        "a model with an encoder and a decoder cannot have {n_seq_max} sequences with a cache each: set kv_unified(true)"
    )]
    EncoderSequences { n_seq_max: u32 },
    /// The decoder attends to every token that was encoded.
    #[error(
        "a model with an encoder and a decoder cannot pool embeddings, which the decoder reads: use Pooling::None"
    )]
    EncoderPooling,
    /// [`Pooling::Rank`](super::Pooling::Rank) and no reranking model.
    #[error("the model has no classification head, which Pooling::Rank needs: use another pooling")]
    NoRanking,
    /// The caches and the buffers for computing are larger than the memory that is free.
    #[error("{}", no_room(*n_ctx, *needed, *free, *longest))]
    Memory {
        n_ctx: u32,
        /// Bytes, at least.
        needed: u64,
        /// Bytes, swap included.
        free: u64,
        /// The longest context, up to that of training, with the other parameters as they are. None: no context fits.
        longest: Option<u32>,
    },
    /// llama.cpp would not.
    #[error("cannot create a context: {reason}")]
    Create {
        /// What llama.cpp logged.
        reason: String,
    },
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Bytes as messages tell them.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn no_room(n_ctx: u32, needed: u64, free: u64, longest: Option<u32>) -> String {
    let (needed, free) = (gib(needed), gib(free));
    let text =
        format!("a context of {n_ctx} tokens takes {needed:.1} GiB, and {free:.1} GiB are free");
    match longest {
        Some(longest) => format!("{text}: {longest} tokens fit, or more with smaller cache types"),
        None => format!("{text}: with these parameters not even the shortest fits"),
    }
}

/// Why a text has no tokens, or tokens no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VocabError {
    /// The model came without one.
    #[error("the model has no vocabulary")]
    None,
    /// The model says that texts begin or end with a token that it does not have.
    #[error(
        "the vocabulary lacks the {name} token that it wants added: tokenize without add_special"
    )]
    NoSpecial { name: &'static str },
    /// llama.cpp counts in 32 bits.
    #[error("{len} bytes or tokens at once are too many: split them")]
    TooLong { len: usize },
    /// Not in the vocabulary.
    #[error("token {token} is not in 0..{n_tokens}")]
    Token { token: Token, n_tokens: u32 },
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why a token was not added to a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It is full.
    #[error("the batch is full: it has room for {capacity} tokens")]
    Full { capacity: usize },
    /// More sequences than the batch was made for, or none.
    #[error("a token of {n_seq} sequences: this batch takes 1..={max}")]
    Sequences { n_seq: usize, max: usize },
    /// llama.cpp counts positions in 31 bits.
    #[error("position {pos} is too large")]
    Position { pos: u32 },
}

/// Why a batch was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing to do.
    #[error("the batch is empty")]
    Empty,
    /// More than the context takes at once.
    #[error("the batch has {n_tokens} tokens, the context takes {max} at once ({name}): split it")]
    TooLong {
        n_tokens: usize,
        max: u32,
        /// Which of the context's parameters says so.
        name: &'static str,
    },
    /// A sequence that the context was not made for.
    #[error("sequence {seq} is not in 0..{n_seq_max}: raise n_seq_max")]
    Sequence { seq: SeqId, n_seq_max: u32 },
    /// Not in the vocabulary.
    #[error("token {token} is not in 0..{n_tokens}")]
    Token { token: Token, n_tokens: u32 },
    /// More than the model has learned an embedding of.
    #[error(
        "position {pos} is beyond the {n_pos} that the model has embeddings of: use shorter sequences"
    )]
    Position { pos: Pos, n_pos: u32 },
    /// [`Context::encode`](super::Context::encode), of a decoder.
    #[error("the model has no encoder: decode the batch")]
    NoEncoder,
    /// The decoder of a model with an encoder attends to what was encoded for a sequence.
    #[error("nothing is encoded for sequence {seq}: encode a batch of it before decoding")]
    NotEncoded { seq: SeqId },
    /// The cache is as it was before.
    #[error(
        "no room for {n_tokens} tokens in a cache of {n_ctx} cells: remove some, or raise n_ctx"
    )]
    NoRoom { n_tokens: usize, n_ctx: u32 },
    /// The abort flag was set. What was decoded before stays in the cache.
    #[error("aborted")]
    Aborted,
    /// As positions that do not follow on those in the cache. The cache is as it was before.
    #[error("invalid batch: {reason}")]
    Invalid {
        /// What llama.cpp logged.
        reason: String,
    },
    /// The computation failed. What was decoded before stays in the cache.
    #[error("decoding failed with status {status}: {reason}")]
    Failed {
        status: i32,
        /// What llama.cpp logged.
        reason: String,
    },
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why the last decode has no such output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// It was not asked for, or the last decode failed.
    #[error("the last decode has no output {index}: set `output` of that token")]
    None {
        /// In the batch; for sequences, their number.
        index: usize,
    },
    /// Logits of a model, or of the part of it that ran last, that yields embeddings.
    #[error("an encoder yields no logits: ask for embeddings")]
    NoLogits,
    /// Embeddings of a context without.
    #[error("the context has no embeddings: create it with ContextParams::embeddings(true)")]
    NoEmbeddings,
    /// An embedding of a token.
    #[error(
        "the context pools embeddings: ask for those of sequences, or create it with Pooling::None"
    )]
    Pooled,
    /// An embedding of a sequence.
    #[error(
        "the context does not pool embeddings: ask for those of tokens, or create it with Pooling::Mean"
    )]
    NotPooled,
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why a sequence was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// A sequence that the context was not made for.
    #[error("sequence {seq} is not in 0..{n_seq_max}: raise n_seq_max")]
    Sequence { seq: SeqId, n_seq_max: u32 },
    /// Positions of 31 bits.
    #[error("position {pos} is not in 0..=2147483647")]
    Position { pos: i64 },
    /// Sequences with a cache each are copied whole, and so are recurrent states.
    #[error(
        "part of a sequence cannot be copied in this context: copy it whole, or, for attention, create the context with \
         kv_unified(true)"
    )]
    PartialCopy,
    /// Recurrent states do not remember what they were.
    #[error(
        "this model's memory cannot forget part of sequence {seq}: remove it whole and decode it again"
    )]
    PartialRemove { seq: SeqId },
    /// Models with several positions per token, or RoPE that differs between layers.
    #[error("this model's keys cannot be moved to other positions")]
    CannotShift,
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why a state was not saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    #[error(transparent)]
    Path(#[from] PathError),
    /// A sequence that the context was not made for.
    #[error("sequence {seq} is not in 0..{n_seq_max}: raise n_seq_max")]
    Sequence { seq: SeqId, n_seq_max: u32 },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    /// Not a state, or of another version or kind.
    #[error("{} is no saved {what}: {reason}", path.display())]
    Format {
        path: PathBuf,
        /// State of a context or of a sequence.
        what: &'static str,
        reason: &'static str,
    },
    /// The file is shorter than the state: the disk is full. The old file is as it was.
    #[error("{} bytes of {expected} were written to {}: is the disk full?", written, path.display())]
    Short { path: PathBuf, written: u64, expected: u64 },
    /// llama.cpp would not.
    #[error("cannot save the state: {reason}")]
    Save {
        /// What llama.cpp logged.
        reason: String,
    },
    /// Of another model or other cache types, damaged, or too large for this context. What it should have
    /// replaced is cleared.
    #[error("cannot restore the state: {reason}")]
    Restore {
        /// What llama.cpp logged.
        reason: String,
    },
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why there is no sampler, or why it chose no token.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A parameter that is out of range, infinite or not a number.
    #[error("{name} cannot be {value}")]
    Number { name: &'static str, value: f32 },
    /// C's strings end at a NUL.
    #[error("the text of {name} has a NUL byte in it")]
    Nul { name: &'static str },
    /// Not in the vocabulary.
    #[error("token {token} is not in 0..{n_tokens}")]
    Token { token: Token, n_tokens: u32 },
    /// Not in GBNF.
    #[error("bad grammar: {reason}")]
    Grammar {
        /// What llama.cpp logged.
        reason: String,
    },
    /// It would never begin.
    #[error("the grammar has no trigger: give one, or use SamplerBuilder::grammar")]
    NoTrigger,
    /// Where a grammar begins.
    #[error("{pattern:?} cannot trigger a grammar: {reason}")]
    Trigger {
        pattern: String,
        /// What the expression's parser says.
        reason: String,
    },
    /// A prompt's grammar is of its model's tokens.
    #[error("the prompt is for another model than the sampler")]
    OtherModel,
    /// A grammar beside that of tools.
    #[error("the sampler has a grammar, and tools have one: offer none, or take another sampler")]
    TwoGrammars,
    /// llama.cpp made none.
    #[error("cannot create the sampler {name}")]
    Create { name: &'static str },
    /// Logits of another vocabulary.
    #[error("{n} logits for a vocabulary of {n_tokens} tokens")]
    Logits { n: usize, n_tokens: u32 },
    /// The model's weights are damaged, or a number overflowed in it.
    #[error("a logit is not a number")]
    NotANumber,
    /// Grammar and biases leave none.
    #[error("no token is possible")]
    NoCandidate,
    /// Not what the grammar derives.
    #[error("the grammar does not allow token {token}")]
    Rejected { token: Token },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Exception(#[from] Exception),
}

/// Why a generation broke off.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Vocab(#[from] VocabError),
}

/// Why a chat has no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A base model, mostly.
    #[error("the model comes without a chat template: give one to ChatTemplate::new")]
    None,
    /// C's strings end at a NUL.
    #[error("a message or template has a NUL byte in it: {0}")]
    Nul(#[from] std::ffi::NulError),
    /// Not in Jinja.
    #[error("bad chat template: {reason}")]
    Template {
        /// What llama.cpp's parser says.
        reason: String,
    },
    /// A text of a message or of a tool.
    #[error("{what} has a NUL byte in it")]
    NulByte {
        /// Whose it is.
        what: String,
    },
    /// The model would not learn of them, or its calls not be found.
    #[error(
        "the chat template has no place for tools, or none that llama.cpp reads: give one to ChatTemplate::new, or offer no tools"
    )]
    NoTools,
    /// [`ToolChoice::Required`](super::ToolChoice::Required), and no tool.
    #[error("a call is required, but no tool is offered")]
    NothingToCall,
    /// Calls are by name.
    #[error("tool {index} has no name")]
    ToolName {
        /// Among those that are offered.
        index: usize,
    },
    /// Calls are by name.
    #[error("two tools are called {name}")]
    ToolTwice { name: String },
    /// Of a tool's parameters.
    #[error("the parameters of the tool {tool} are no JSON schema of an object: {reason}")]
    Schema { tool: String, reason: String },
    /// Of a call in a message.
    #[error("the arguments of a call of {tool} are no JSON: {reason}")]
    Arguments { tool: String, reason: String },
    /// Not what the prompt's grammar derives, as where it was not given to the sampler.
    #[error("the answer cannot be read: {reason}")]
    Parse {
        /// What llama.cpp's parser says.
        reason: String,
    },
    /// The template refuses the messages.
    #[error("the chat template cannot be applied: {reason}")]
    Apply {
        /// What the template says.
        reason: String,
    },
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChatSessionError {
    /// One message, with those that the chat began with, is more than the context takes.
    #[error(
        "the prompt has {n_tokens} tokens, the context has room for {n_ctx}: shorten it, or raise n_ctx"
    )]
    TooLong { n_tokens: usize, n_ctx: usize },
    /// An answer to a call that the model's last message does not have, or has answered already.
    #[error("no call {id} waits for an answer")]
    NoCall { id: String },
    /// A call whose answer is missing.
    #[error("the call {id} of {name} has no answer: answer all calls at once")]
    Unanswered { id: String, name: String },
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    #[error(transparent)]
    Vocab(#[from] VocabError),
}

/// Why texts have no embeddings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Texts are pooled in one piece.
    #[error(
        "text {index} has {n_tokens} tokens, {max} are possible: shorten it, or raise n_ubatch, n_batch and n_ctx"
    )]
    TooLong { index: usize, n_tokens: usize, max: usize },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Sequence(#[from] SequenceError),
}

/// Why an adapter was not loaded or set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    #[error(transparent)]
    Path(#[from] PathError),
    /// The model was loaded without weights.
    #[error("the model has its vocabulary alone: load it without vocab_only")]
    VocabOnly,
    /// llama.cpp would not have it.
    #[error("cannot load the adapter {}: {reason}", path.display())]
    Load {
        /// The adapter's file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },
    /// Loaded for another model, or for another copy of it.
    #[error("the adapter was loaded for another model than the context is of")]
    OtherModel,
    /// Infinite or not a number.
    #[error("an adapter's scale cannot be {scale}")]
    Scale { scale: f32 },
    /// One adapter with two scales.
    #[error("an adapter is set twice: add up its scales")]
    Twice,
    #[error(transparent)]
    Exception(#[from] Exception),
}
