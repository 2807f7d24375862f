// What a turbo K or V cache needs of a model and a context. Nothing falls back: what cannot run is
// refused, with the reason and what to use instead.

#pragma once

#include "llama.h"

struct llama_hparams;

// called before a context is created; logs the reason and returns false if it cannot have these cache types
bool llama_turbo_check_params(const llama_hparams & hparams, const llama_context_params & params);

// called by every KV cache (also those inside hybrid, sliding-window and indexer caches) once it has decided
// whether the graph rotates K and V. throws if a turbo type would not be rotated
//   n_embd_head_k, n_embd_head_v: -1 if the layers of the cache differ, 0 if it has none
void llama_turbo_check_rotation(
        ggml_type type_k, bool rot_k, int n_embd_head_k,
        ggml_type type_v, bool rot_v, int n_embd_head_v,
        bool has_v);

// values per head that a K-shift has to take, when it takes apart a quantized and rotated K:
// all of them, since a rotation of a whole head cannot be undone on its first n_rot values
int64_t llama_turbo_shift_width(ggml_type type_k, int64_t n_rot, int64_t n_embd_head_k, int64_t n_embd_nope);

// a saved state has other types than the context: says so by name. name is "K" or "V"
void llama_turbo_log_state_type(const char * name, int type_ctx, int type_state);
