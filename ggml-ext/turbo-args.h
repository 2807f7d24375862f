// Command-line values of the cache options that turbo types bring.

#pragma once

#include "llama.h"

#include <stdexcept>
#include <string>

static inline llama_kv_anchors_type turbo_parse_kv_anchors(const std::string & value) {
    if (value == "on" || value == "1") {
        return LLAMA_KV_ANCHORS_ON;
    }
    if (value == "off" || value == "0") {
        return LLAMA_KV_ANCHORS_OFF;
    }
    if (value == "auto") {
        return LLAMA_KV_ANCHORS_AUTO;
    }
    throw std::invalid_argument("unknown value for --kv-anchors: '" + value + "', expected on, off or auto");
}
