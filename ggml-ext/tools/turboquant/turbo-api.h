// What the Rust API calls of llama.cpp where llama.h lets C++ exceptions out, or has no function for it.
//
// All but the freeing functions return 0, or -1 where an exception was caught: tq_api_error() is then its message.
// What the fenced function returns is in the last parameter.

#pragma once

#include "llama.h"
#include "llama-kv-calib.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// why the last call on this thread returned -1. valid until the next call on it
const char * tq_api_error(void);

//
// models and contexts
//

int32_t tq_model_load   (const char * path, const struct llama_model_params * params, struct llama_model ** model);
int32_t tq_context_new  (struct llama_model * model, const struct llama_context_params * params, struct llama_context ** ctx);
int32_t tq_lora_load    (struct llama_model * model, const char * path, struct llama_adapter_lora ** lora);
int32_t tq_lora_set     (struct llama_context * ctx, struct llama_adapter_lora ** loras, size_t n, float * scales);

// what decides which caches and contexts a model can have, and what it can decode
struct tq_model_traits {
    bool     is_mla;            // multi-head latent attention
    bool     has_swa;           // layers with a sliding window
    bool     has_own_attention; // graphs that write the cache by themselves: one type for all layers
    bool     same_kv_types;     // K and V have to be of one type
    bool     no_flash_attn;     // graphs that leave flash attention: V cannot be quantized
    uint32_t n_pos_per_embd;    // positions per token: more than 1 cannot be shifted
    uint32_t n_pos;             // positions that it has embeddings of. 0: it has none, and takes any
    bool     can_rank;          // it has a classification head
};

// a layer with keys and values of its own
struct tq_kv_layer {
    uint32_t il;            // of the model
    uint32_t n_head_kv;
    uint32_t n_embd_head_k; // head_dim
    uint32_t n_embd_head_v;
    bool     is_swa;
};

int32_t tq_model_get_traits(const struct llama_model * model, struct tq_model_traits * traits);

// layers: room for n_max, of which the first are filled. n: how many there are
int32_t tq_model_get_kv_layers(const struct llama_model * model, struct tq_kv_layer * layers, size_t n_max, size_t * n);

// bytes
struct tq_memory_use {
    uint64_t k;       // with key anchors
    uint64_t v;
    uint64_t state;   // of recurrent layers
    uint64_t model;   // weights
    uint64_t compute; // buffers of the graph
};

int32_t tq_context_get_memory(const struct llama_context * ctx, struct tq_memory_use * sizes);

int32_t tq_kv_calibrate(struct llama_model * model, const char * path, const struct llama_kv_calibrate_params * params, bool * done);

//
// text
//

int32_t tq_tokenize      (const struct llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t n_max, bool add_special, bool parse_special, int32_t * n);
int32_t tq_token_to_piece(const struct llama_vocab * vocab, llama_token token, char * buf, int32_t length, bool special, int32_t * n);
int32_t tq_detokenize    (const struct llama_vocab * vocab, const llama_token * tokens, int32_t n_tokens, char * text, int32_t n_max, bool remove_special, bool unparse_special, int32_t * n);

struct tq_chat_template;

// source: a Jinja template. own: it is the model's, whose variant for tools then goes with it. syntax errors are exceptions
int32_t tq_chat_template_new (const struct llama_model * model, const char * source, bool own, struct tq_chat_template ** tmpl);
void    tq_chat_template_free(struct tq_chat_template * tmpl);

// gets a text, once
typedef void (* tq_write)(void * user_data, const char * text, size_t len);

// a prompt for messages that are a role and a text each
int32_t tq_chat_template_apply(
        const struct tq_chat_template * tmpl,
        const char ** roles,
        const char ** contents,
        size_t        n,
        bool          add_assistant,
        tq_write      write,
        void        * user_data);

// a prompt with tools, and how its answer is read
struct tq_chat_prompt;

// request: JSON with
//   messages, tools, tool_choice, parallel_tool_calls (null: if the template can)  as in OpenAI's API
//   enable_thinking, add_generation_prompt
// about: JSON with
//   prompt, generation_prompt (the end of prompt, where the answer's syntax begins; of a required call with its mark)
//   grammar ("": none), grammar_lazy, triggers: [{word} | {pattern} | {token}]
//   preserved_tokens, stops, thinking_start, thinking_ends
//   describes_tools (the template does), reads_calls (the parser does)
int32_t tq_chat_prompt_new(
        const struct tq_chat_template * tmpl,
        const char             * request,
        struct tq_chat_prompt ** prompt,
        tq_write                 about,
        void                   * user_data);
void tq_chat_prompt_free(struct tq_chat_prompt * prompt);

// partial: more is to come. write gets a message in JSON, as in OpenAI's API
int32_t tq_chat_prompt_parse(
        const struct tq_chat_prompt * prompt,
        const char * answer,
        size_t       len,
        bool         partial,
        tq_write     write,
        void       * user_data);

// write gets the grammar of what a JSON schema describes
int32_t tq_json_schema_to_grammar(const char * schema, tq_write write, void * user_data);

//
// key scales
//

// what a context with turbo keys and default parameters would have
struct tq_kv_fit_outlook {
    enum llama_kv_fit_type type;    // NONE: none
    bool                   is_kept; // there is a fit already; false: it would be made
    uint64_t               id;      // of a fit that is kept
};

// The model may be without its weights: a few are read from its file. write gets the file of a fit that is kept, or why no text can
// be run for one; nothing if one would be made
int32_t tq_model_expect_kv_fit(
        struct llama_model       * model,
        const char               * path,
        struct tq_kv_fit_outlook * outlook,
        tq_write                   write,
        void                     * user_data);

//
// decoding
//

int32_t tq_decode        (struct llama_context * ctx, const struct llama_batch * batch, int32_t * status);
int32_t tq_encode        (struct llama_context * ctx, const struct llama_batch * batch, int32_t * status);
int32_t tq_synchronize   (struct llama_context * ctx);
int32_t tq_logits        (struct llama_context * ctx, int32_t i, float ** logits);
int32_t tq_embeddings    (struct llama_context * ctx, int32_t i, float ** embeddings);
int32_t tq_embeddings_seq(struct llama_context * ctx, llama_seq_id seq_id, float ** embeddings);

//
// sequences
//

int32_t tq_memory_clear(struct llama_context * ctx, bool data);
int32_t tq_seq_rm      (struct llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1, bool * removed);
int32_t tq_seq_cp      (struct llama_context * ctx, llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1);
int32_t tq_seq_add     (struct llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos delta);

//
// states. seq_id -1: the whole context
//
// Shifts and copies that wait for the next decode are done first: upstream would save new positions with old keys.
//

int32_t tq_state_size(struct llama_context * ctx, llama_seq_id seq_id, size_t * n);
int32_t tq_state_get (struct llama_context * ctx, llama_seq_id seq_id, uint8_t * dst, size_t size, size_t * n);
int32_t tq_state_set (struct llama_context * ctx, llama_seq_id seq_id, const uint8_t * src, size_t size, size_t * n);
int32_t tq_state_save(struct llama_context * ctx, llama_seq_id seq_id, const char * path, const llama_token * tokens, size_t n_tokens, bool * saved);
int32_t tq_state_load(struct llama_context * ctx, llama_seq_id seq_id, const char * path, llama_token * tokens, size_t n_max, size_t * n_tokens, bool * loaded);

//
// samplers
//

int32_t tq_sampler_grammar(const struct llama_vocab * vocab, const char * grammar, const char * root, struct llama_sampler ** smpl);
int32_t tq_sampler_grammar_lazy(const struct llama_vocab * vocab, const char * grammar, const char * root, const char ** patterns, size_t n_patterns, const llama_token * tokens, size_t n_tokens, struct llama_sampler ** smpl);
int32_t tq_sampler_dry    (const struct llama_vocab * vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n, const char ** breakers, size_t n_breakers, struct llama_sampler ** smpl);
int32_t tq_sampler_apply  (struct llama_sampler * smpl, llama_token_data_array * candidates);
int32_t tq_sampler_accept (struct llama_sampler * smpl, llama_token token);
int32_t tq_sampler_reset  (struct llama_sampler * smpl);
int32_t tq_sampler_clone  (const struct llama_sampler * smpl, struct llama_sampler ** clone);

// an exception if it is no regular expression, or one that is too long
int32_t tq_trigger_check(const char * pattern);

#ifdef __cplusplus
}
#endif
