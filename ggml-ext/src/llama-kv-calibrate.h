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

// A fit to a few hundred tokens of the text that comes with the library, for the first use of a model, by the context with these
// parameters. It takes their number of threads, of which the scales are independent, and stops when their abort callback says so.
// throws std::runtime_error
llama_kv_calib_file llama_kv_calibrate_quick(llama_model & model, const llama_context_params & cparams);

// Why no quick fit can be made of a model, as far as its metadata tells; empty: it can. Not whether the model has weights and a
// cache.
std::string llama_kv_calibrate_why_not(const llama_model & model);

// Whether queries and keys of every layer are normalised head by head, so that the weights of the norms give scales
bool llama_kv_calib_has_norms(const llama_model & model);

// Scales of the weights of q and k norms, which no text has to be run for. false: some layer has none
bool llama_kv_calib_of_norms(const llama_model & model, llama_kv_calib_file & res);
