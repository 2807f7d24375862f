//! ggml-ext/turbo-api.h: llama.cpp's functions with a fence around them, which lets no C++ exception out.
//!
//! All but the freeing functions return 0, or -1 where an exception was caught: `tq_api_error` has its message.

use std::ffi::{c_char, c_void};

use super::*;

/// What decides which cache types a model can have.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct tq_model_traits {
    pub is_mla: bool,
    pub has_swa: bool,
    pub has_own_attention: bool,
    pub same_kv_types: bool,
    pub n_pos_per_embd: u32,
}

/// A layer with keys and values of its own.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct tq_kv_layer {
    pub il: u32,
    pub n_head_kv: u32,
    pub n_embd_head_k: u32,
    pub n_embd_head_v: u32,
    pub is_swa: bool,
}

/// Bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct tq_memory_use {
    pub k: u64,
    pub v: u64,
    pub state: u64,
    pub model: u64,
    pub compute: u64,
}

/// A parsed chat template.
#[repr(C)]
pub struct tq_chat_template {
    _opaque: [u8; 0],
}

/// A prompt with tools, and how its answer is read.
#[repr(C)]
pub struct tq_chat_prompt {
    _opaque: [u8; 0],
}

/// Gets a text, once.
pub type tq_write = unsafe extern "C" fn(*mut c_void, *const c_char, usize);

unsafe extern "C" {
    pub fn tq_api_error() -> *const c_char;

    pub fn tq_model_load(
        path: *const c_char,
        params: *const llama_model_params,
        model: *mut *mut llama_model,
    ) -> i32;
    pub fn tq_context_new(
        model: *mut llama_model,
        params: *const llama_context_params,
        ctx: *mut *mut llama_context,
    ) -> i32;
    pub fn tq_lora_load(
        model: *mut llama_model,
        path: *const c_char,
        lora: *mut *mut llama_adapter_lora,
    ) -> i32;
    pub fn tq_lora_set(
        ctx: *mut llama_context,
        loras: *mut *mut llama_adapter_lora,
        n: usize,
        scales: *mut f32,
    ) -> i32;
    pub fn tq_model_get_traits(model: *const llama_model, traits: *mut tq_model_traits) -> i32;
    pub fn tq_model_get_kv_layers(
        model: *const llama_model,
        layers: *mut tq_kv_layer,
        n_max: usize,
        n: *mut usize,
    ) -> i32;
    pub fn tq_context_get_memory(ctx: *const llama_context, memory: *mut tq_memory_use) -> i32;

    pub fn tq_tokenize(
        vocab: *const llama_vocab,
        text: *const c_char,
        text_len: i32,
        tokens: *mut llama_token,
        n_max: i32,
        add_special: bool,
        parse_special: bool,
        n: *mut i32,
    ) -> i32;
    pub fn tq_token_to_piece(
        vocab: *const llama_vocab,
        token: llama_token,
        buf: *mut c_char,
        length: i32,
        special: bool,
        n: *mut i32,
    ) -> i32;
    pub fn tq_detokenize(
        vocab: *const llama_vocab,
        tokens: *const llama_token,
        n_tokens: i32,
        text: *mut c_char,
        n_max: i32,
        remove_special: bool,
        unparse_special: bool,
        n: *mut i32,
    ) -> i32;

    pub fn tq_chat_template_new(
        model: *const llama_model,
        source: *const c_char,
        own: bool,
        template: *mut *mut tq_chat_template,
    ) -> i32;
    pub fn tq_chat_template_free(template: *mut tq_chat_template);
    pub fn tq_chat_template_apply(
        template: *const tq_chat_template,
        roles: *mut *const c_char,
        contents: *mut *const c_char,
        n: usize,
        add_assistant: bool,
        write: tq_write,
        user_data: *mut c_void,
    ) -> i32;

    pub fn tq_chat_prompt_new(
        template: *const tq_chat_template,
        request: *const c_char,
        prompt: *mut *mut tq_chat_prompt,
        about: tq_write,
        user_data: *mut c_void,
    ) -> i32;
    pub fn tq_chat_prompt_free(prompt: *mut tq_chat_prompt);
    pub fn tq_chat_prompt_parse(
        prompt: *const tq_chat_prompt,
        answer: *const c_char,
        len: usize,
        partial: bool,
        write: tq_write,
        user_data: *mut c_void,
    ) -> i32;
    pub fn tq_json_schema_to_grammar(
        schema: *const c_char,
        write: tq_write,
        user_data: *mut c_void,
    ) -> i32;

    pub fn tq_decode(ctx: *mut llama_context, batch: *const llama_batch, status: *mut i32) -> i32;
    pub fn tq_encode(ctx: *mut llama_context, batch: *const llama_batch, status: *mut i32) -> i32;
    pub fn tq_synchronize(ctx: *mut llama_context) -> i32;
    pub fn tq_logits(ctx: *mut llama_context, i: i32, logits: *mut *mut f32) -> i32;
    pub fn tq_embeddings(ctx: *mut llama_context, i: i32, embeddings: *mut *mut f32) -> i32;
    pub fn tq_embeddings_seq(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        embeddings: *mut *mut f32,
    ) -> i32;

    pub fn tq_memory_clear(ctx: *mut llama_context, data: bool) -> i32;
    pub fn tq_seq_rm(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
        removed: *mut bool,
    ) -> i32;
    pub fn tq_seq_cp(
        ctx: *mut llama_context,
        seq_id_src: llama_seq_id,
        seq_id_dst: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
    ) -> i32;
    pub fn tq_seq_add(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        p0: llama_pos,
        p1: llama_pos,
        delta: llama_pos,
    ) -> i32;

    pub fn tq_state_size(ctx: *mut llama_context, seq_id: llama_seq_id, n: *mut usize) -> i32;
    pub fn tq_state_get(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        dst: *mut u8,
        size: usize,
        n: *mut usize,
    ) -> i32;
    pub fn tq_state_set(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        src: *const u8,
        size: usize,
        n: *mut usize,
    ) -> i32;
    pub fn tq_state_save(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        path: *const c_char,
        tokens: *const llama_token,
        n_tokens: usize,
        saved: *mut bool,
    ) -> i32;
    pub fn tq_state_load(
        ctx: *mut llama_context,
        seq_id: llama_seq_id,
        path: *const c_char,
        tokens: *mut llama_token,
        n_max: usize,
        n_tokens: *mut usize,
        loaded: *mut bool,
    ) -> i32;

    pub fn tq_sampler_grammar(
        vocab: *const llama_vocab,
        grammar: *const c_char,
        root: *const c_char,
        sampler: *mut *mut llama_sampler,
    ) -> i32;
    pub fn tq_sampler_grammar_lazy(
        vocab: *const llama_vocab,
        grammar: *const c_char,
        root: *const c_char,
        patterns: *mut *const c_char,
        n_patterns: usize,
        tokens: *const llama_token,
        n_tokens: usize,
        sampler: *mut *mut llama_sampler,
    ) -> i32;
    pub fn tq_sampler_dry(
        vocab: *const llama_vocab,
        multiplier: f32,
        base: f32,
        allowed_length: i32,
        last_n: i32,
        breakers: *mut *const c_char,
        n_breakers: usize,
        sampler: *mut *mut llama_sampler,
    ) -> i32;
    pub fn tq_sampler_apply(
        sampler: *mut llama_sampler,
        candidates: *mut llama_token_data_array,
    ) -> i32;
    pub fn tq_sampler_accept(sampler: *mut llama_sampler, token: llama_token) -> i32;
    pub fn tq_sampler_reset(sampler: *mut llama_sampler) -> i32;
    pub fn tq_sampler_clone(sampler: *const llama_sampler, clone: *mut *mut llama_sampler) -> i32;
    pub fn tq_trigger_check(pattern: *const c_char) -> i32;
}
