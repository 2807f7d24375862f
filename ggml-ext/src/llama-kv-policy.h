// Types of the K and V cache layer by layer: a type for all, and exceptions by the number of the KV layer.

#pragma once

#include "ggml.h"

#include <cstdint>
#include <string>
#include <vector>

// the types that caches may have, as -ctk and -ctv take them: of others ggml cannot write rows, or attention not read them
bool llama_kv_is_cache_type(ggml_type type);

// "f32, f16, ..."
std::string llama_kv_cache_type_names();

// exceptions: "SELECTOR=TYPE", separated by commas; the last that fits counts. TYPE: a cache type's name. SELECTOR:
//   firstN   the first N KV layers
//   lastN    the last N
//   N, N-M   by number, from 0
// KV layers are the layers that have keys and values of their own: hybrids and models that share them have fewer
// than layers.
class llama_kv_policy {
public:
    // text: NULL or empty: no exceptions. throws std::invalid_argument with what is wrong
    llama_kv_policy(ggml_type base, const char * text, uint32_t n_layer_kv);

    ggml_type operator[](uint32_t i) const { return types[i]; }

    const std::vector<ggml_type> & all() const { return types; }

    // "0-1: q8_0, 2-27: turbo2, 28-29: q8_0"
    std::string describe() const;

private:
    std::vector<ggml_type> types;
};
