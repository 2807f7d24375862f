// What a turbo K or V cache needs of a model and a context. Nothing falls back: what cannot run is
// refused, with the reason and what to use instead.

#pragma once

#include "llama.h"

#include <memory>
#include <vector>

class  llama_kv_anchors;
class  llama_kv_scales;
struct ggml_context;
struct ggml_tensor;
struct llama_hparams;
struct llama_model;

// The cache options of the context that is being created on this thread. Constructors between a context and its
// caches take types and sizes alone: what they do not pass on is found here.
class llama_turbo_options_scope {
public:
    // takes the key scales of the current llama_kv_fit_scope. throws std::runtime_error
    llama_turbo_options_scope(const llama_model & model, const llama_context_params & params);
    ~llama_turbo_options_scope();

    llama_turbo_options_scope(const llama_turbo_options_scope &) = delete;
    llama_turbo_options_scope & operator=(const llama_turbo_options_scope &) = delete;

private:
    const llama_context_params * outer;
    std::shared_ptr<const llama_kv_scales> outer_scales;
};

// while it lives, the log of this thread has no more than errors. not copied, not nested
struct llama_turbo_mute {
    llama_turbo_mute();
    ~llama_turbo_mute();
};

// asked of every line of the log
bool llama_turbo_is_mute(ggml_log_level level);

// whether K of any layer is of a turbo type
bool llama_turbo_any_turbo_k(const llama_model & model, const llama_context_params & params);

// why a quantized K of these parameters is not rotated, which key scales count on; empty: it is, or is not quantized
std::string llama_turbo_why_not_rotated(const llama_model & model, const llama_context_params & params);

// the key scales of a new cache, or null
std::shared_ptr<const llama_kv_scales> llama_turbo_scales();

// the model's layers with keys and values of their own, in order: what policies count
std::vector<uint32_t> llama_turbo_kv_layers(const llama_model & model);

// models whose graphs write keys to the cache by themselves, or read them in ways that do not add the anchors' term
bool llama_turbo_has_own_attention(const llama_model & model);

// why the graphs of a model leave flash attention, which alone reads quantized values, even where it is on. null: they do not
const char * llama_turbo_no_flash_attention(const llama_model & model);

// called where a graph attends without flash attention: throws if it would take blocks of values for single ones
void llama_turbo_check_values(const ggml_tensor * v, int32_t il);

// the anchors of a new cache, or null if it has none; the log says which. throws if they are asked for and cannot be
std::shared_ptr<llama_kv_anchors> llama_turbo_make_anchors(
        const llama_model & model,
        const llama_hparams & hparams,
        ggml_type type_k,
        uint32_t n_cells,
        uint32_t n_stream,
        bool offload);

// whether a layer with this K has them, if the cache does
bool llama_turbo_layer_has_anchors(ggml_type type_k);

// called before a context is created: resolves what the cache types ask of it. logs the reason and returns false if
// it cannot have them
bool llama_turbo_check_params(const llama_model & model, llama_context_params & params);

// the type of K or V in layer il of a cache whose type is the given one but for exceptions
ggml_type llama_turbo_layer_type(const llama_model & model, uint32_t il, ggml_type type, bool is_k);

// whether K or V of any layer is quantized, so that the graph has to rotate all of them
bool llama_turbo_any_quantized(const llama_model & model, ggml_type type, bool is_k);

// the log of a cache with exceptions
void llama_turbo_log_layer_types(const llama_model & model, ggml_type type_k, ggml_type type_v);

// called by every KV cache (also those inside hybrid, sliding-window and indexer caches) once it has decided
// whether the graph rotates K and V. throws if a turbo type would not be rotated
//   n_embd_head_k, n_embd_head_v: -1 if the layers of the cache differ, 0 if it has none
void llama_turbo_check_rotation(
        ggml_type type_k, bool rot_k, int n_embd_head_k,
        ggml_type type_v, bool rot_v, int n_embd_head_v,
        bool has_v);

// of what heads have to be a multiple: blocks, but for turbo types, which are padded
uint32_t llama_turbo_head_block(ggml_type type);

// what a cache has for hparams: those of the model, but heads of turbo types are padded to whole blocks. the log says what a
// value then takes
llama_hparams llama_turbo_pad_heads(const llama_model & model, const llama_hparams & hparams, ggml_type type_k, ggml_type type_v);

// [n_embd_head, n_head, n_tokens] with zeros behind each head, so that it has n_padded values. null stays null
ggml_tensor * llama_turbo_pad(ggml_context * ctx, ggml_tensor * heads, int64_t n_padded);

// takes them off again: [n_padded*n_head, n_tokens] to [n_embd_head*n_head, n_tokens]
ggml_tensor * llama_turbo_unpad(ggml_context * ctx, ggml_tensor * heads, int64_t n_padded, int64_t n_embd_head);

// values per head that a K-shift has to take, when it takes apart a quantized and rotated K:
// all of them, since a rotation of a whole head cannot be undone on its first n_rot values
int64_t llama_turbo_shift_width(ggml_type type_k, int64_t n_rot, int64_t n_embd_head_k, int64_t n_embd_nope);

// whether a rotation of n values at once leaves latent values and the channels of RoPE apart
bool llama_turbo_rotation_fits(const llama_hparams & hparams, uint32_t n);

// the type of a cache whose rows the graph does not rotate, beside K of the given type: none of ours. The log says if it is another
ggml_type llama_turbo_packed_type(ggml_type type_k);

// a saved state has other types than the context: says so by name. name is "K" or "V"
void llama_turbo_log_state_type(const char * name, int type_ctx, int type_state);

// set in the number of layers that a saved state begins with, if key anchors follow
#define LLAMA_TURBO_STATE_ANCHORS 0x80000000u
// and if the id of its key scales does
#define LLAMA_TURBO_STATE_SCALES  0x40000000u

// false, and the reason in the log, unless state and context both have key anchors or both have none
bool llama_turbo_check_state_anchors(bool state_has, bool has);
