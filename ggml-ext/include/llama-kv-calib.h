// Key scales of contexts, beside `kv_calib` of llama_context_params and llama_kv_calibrate in llama.h.
//
// kv_calib NULL or "": where K is of a turbo type, the context has the scales that the user's cache folder keeps for the
// model. If it keeps none, they are fitted first, in seconds (a quick fit), by a small context that runs a few hundred tokens
// with the model that is loaded. Where that cannot be, the context has none, and the log says why. "try": the same for K of any
// type. "auto": likewise, and an error where it cannot be. "off": none. Else a file of llama_kv_calibrate.
//
// docs/keys.md in llama-turboquant.

#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// Copies a calibration to the user's cache folder, where contexts of the model find it (kv_calib NULL and "auto") and
// prefer it to a quick fit. false, and the reason in the log, if that cannot be
LLAMA_API bool llama_kv_calib_keep(const struct llama_model * model, const char * path);

// where the key scales of a context are from
enum llama_kv_fit_type {
    LLAMA_KV_FIT_NONE     = 0, // it has none
    LLAMA_KV_FIT_QUICK    = 1, // made at first use of the model
    LLAMA_KV_FIT_THOROUGH = 2, // of llama_kv_calib_keep or `turboquant calibrate`
    LLAMA_KV_FIT_FILE     = 3, // the file that kv_calib names
    LLAMA_KV_FIT_NORMS    = 4, // the weights of q and k norms: the model could not be run
};

struct llama_kv_fit_info {
    enum llama_kv_fit_type type;
    uint64_t               id;     // of the scales; saved states carry it. 0: none
    const char *           source; // their file; "": they are in memory alone. lives as long as the context
};

LLAMA_API struct llama_kv_fit_info llama_get_kv_fit(const struct llama_context * ctx);

// Who is told how far the quick fit of a new context is, 0 .. 1, on the thread that creates it, after every layer. The fit stops,
// and the context has no scales, when the callback returns false, or the abort callback of the context's parameters true. A context
// with turbo keys that the callback creates has no scales. NULL: nobody. May be called at any time
LLAMA_API void llama_kv_fit_set_progress(llama_progress_callback callback, void * user_data);

#ifdef __cplusplus
}
#endif
