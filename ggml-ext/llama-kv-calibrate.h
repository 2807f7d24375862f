// Fits key scales to a model: runs a text with an f16 cache, and looks at the queries, keys and values of every layer.

#pragma once

#include "llama.h"

#include "llama-kv-calib.h"
#include "llama-kv-calib-file.h"

#include <stdexcept>
#include <string>

// a callback said so
struct llama_kv_calibrate_stopped : std::runtime_error {
    llama_kv_calibrate_stopped() : std::runtime_error("stopped") {}
};

// encoders, and what else attends without one
struct llama_kv_no_cache : std::runtime_error {
    explicit llama_kv_no_cache(const std::string & arch) : std::runtime_error("the model (" + arch + ") has no KV cache") {}
};

// as llama_kv_calibrate of llama.h, but throws std::runtime_error
void llama_kv_calibrate_to(llama_model & model, const std::string & path, const llama_kv_calibrate_params & params);

// A fit to a few hundred tokens of the text that comes with the library, for the first use of a model. n_threads: 0 for
// as many as there are cores; the scales are the same whatever their number. throws std::runtime_error
llama_kv_calib_file llama_kv_calibrate_quick(llama_model & model, int32_t n_threads);

// Scales of the weights of q and k norms, which no text has to be run for. false: some layer has none
bool llama_kv_calib_of_norms(const llama_model & model, llama_kv_calib_file & res);
