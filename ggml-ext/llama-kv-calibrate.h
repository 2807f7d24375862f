// Fits key scales to a model: runs a text with an f16 cache, and looks at the queries, keys and values of every layer.

#pragma once

#include "llama.h"

#include <string>

// as llama_kv_calibrate of llama.h, but throws std::runtime_error
void llama_kv_calibrate_to(llama_model & model, const std::string & path, const llama_kv_calibrate_params & params);
