//! llama.cpp with the turbo types, as build.rs built it: a safe API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`calibrate`] | key scales, fitted once to a model |
//! | [`log`] | llama.cpp's log in `tracing` |
//! | [`sys`] | the C API, unsafe |
//! | [`tools`] | llama.cpp's own programs |
//!
//! All else is here: a [`Model`] is loaded once and shared; a [`Context`] of it remembers sequences of tokens,
//! with K and V caches of the types in [`ContextParams`]; a [`Batch`] is decoded into it.
//! What llama.cpp would abort the process for is checked before; its exceptions are caught and are errors.

mod batch;
mod cache_check;
mod cache_policy;
mod cache_type;
pub mod calibrate;
mod chat;
mod chat_message;
mod chat_prompt;
mod chat_request;
mod chat_session;
mod context;
mod context_params;
mod embeddings;
mod error;
mod ffi;
mod generate;
mod grammar;
mod kv_fit;
mod kv_preset;
pub mod log;
mod logprobs;
mod lora;
mod memory_check;
mod memory_use;
mod model;
mod model_builder;
mod probe;
mod sampler;
mod sampler_builder;
mod sequence;
mod state;
mod stop;
pub mod sys;
mod system;
mod timings;
pub mod tools;
mod utf8;
mod vocab;

pub use batch::Batch;
pub use cache_policy::CachePolicy;
pub use cache_type::{CacheType, KeysOrValues, KvAnchors, KvCalibration, ParseCacheTypeError};
pub use chat::ChatTemplate;
pub use chat_message::{ChatMessage, Role, ToolCall};
pub use chat_prompt::ChatPrompt;
pub use chat_request::{ChatRequest, ChatTool, ToolChoice};
pub use chat_session::{Answer, ChatSession};
pub use context::Context;
pub use context_params::{ContextParams, FlashAttention, Pooling, RopeScaling, Yarn};
pub use embeddings::normalize;
pub(crate) use error::gib;
pub use error::{
    BatchError, CacheError, ChatError, ChatSessionError, ContextError, DecodeError, EmbedError,
    Exception, GenerateError, LoraError, ModelError, OutputError, PathError, SamplerError,
    SequenceError, StateError, VocabError,
};
pub use generate::{Finish, GenerateOptions, Generation, Piece};
pub use grammar::GrammarTrigger;
pub use kv_fit::{KvFit, KvFitKind, KvFitOutlook, on_fit_progress};
pub use kv_preset::{KvPreset, UnknownPreset};
pub use logprobs::TokenLogprob;
pub use lora::Lora;
pub use memory_use::MemoryUse;
pub use model::{KvLayer, Model};
pub use model_builder::ModelBuilder;
pub use probe::ModelProbe;
pub use sampler::Sampler;
pub use sampler_builder::{Dry, Penalties, SamplerBuilder};
pub use system::{Device, GGML, LLAMA_CPP, cpu, devices, features, free_memory};
pub use timings::Timings;
pub use utf8::Utf8Stream;
pub use vocab::{Vocab, VocabKind};

/// The number of a token in its vocabulary.
pub type Token = i32;
/// The number of a sequence in a context, from 0.
pub type SeqId = u32;
/// The position of a token in its sequence, from 0.
pub type Pos = u32;
