// Command-line values of the cache options that turbo types bring.

#pragma once

#include "llama.h"
#include "llama-kv-calib.h"

#include <cstdio>
#include <stdexcept>
#include <string>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

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

// "TYPE" or "TYPE,SELECTOR=TYPE,...": returns the type; layers gets the exceptions, which are checked once the model is
// known
static inline std::string turbo_parse_cache_type(const std::string & value, std::string & layers) {
    const size_t comma = value.find(',');
    layers = comma == std::string::npos ? "" : value.substr(comma + 1);
    if (comma != std::string::npos && layers.empty()) {
        throw std::invalid_argument("nothing behind the comma of '" + value + "': expected TYPE,SELECTOR=TYPE,...");
    }
    return value.substr(0, comma);
}

struct turbo_kv_preset {
    const char * name;
    const char * k;
    const char * v;
    const char * kv_calib; // "": as by default
};

// docs/quality.md has their measured rows
static const turbo_kv_preset TURBO_KV_PRESETS[] = {
    { "k3v2",    "turbo3", "turbo2", "" },
    { "k4v2",    "turbo4", "turbo2", "" },
    { "k4v3",    "turbo4", "turbo3", "" },
    { "k4v4",    "turbo4", "turbo4", "" },
    { "quality", "q8_0",   "turbo4", "try" },
};

static inline std::string turbo_kv_preset_names() {
    std::string res;
    for (const auto & preset : TURBO_KV_PRESETS) {
        res += (res.empty() ? "" : ", ") + std::string(preset.name);
    }
    return res;
}

static inline const turbo_kv_preset & turbo_find_kv_preset(const std::string & name) {
    for (const auto & preset : TURBO_KV_PRESETS) {
        if (name == preset.name) {
            return preset;
        }
    }
    throw std::invalid_argument("unknown value for --kv-preset: '" + name + "', expected one of " + turbo_kv_preset_names());
}

// While key scales are fitted to a model for the first time, a terminal has a line with how far it is.
static inline void turbo_show_fit() {
#if defined(_WIN32)
    const bool is_terminal = _isatty(_fileno(stderr));
#else
    const bool is_terminal = isatty(fileno(stderr));
#endif
    if (!is_terminal) {
        return;
    }
    llama_kv_fit_set_progress([](float progress, void *) {
        fprintf(stderr, "\rfitting key scales, once for this model: %3d%%%s", (int) (100.0f*progress), progress >= 1.0f ? "\n" : "");
        fflush(stderr);
        return true;
    }, nullptr);
}
