#include "llama-kv-policy.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <sstream>
#include <stdexcept>

// as -ctk and -ctv have them (kv_cache_types in common/arg.cpp)
static constexpr ggml_type CACHE_TYPES[] = {
    GGML_TYPE_F32,
    GGML_TYPE_F16,
    GGML_TYPE_BF16,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,
    GGML_TYPE_IQ4_NL,
    GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1,
    GGML_TYPE_TURBO2,
    GGML_TYPE_TURBO3,
    GGML_TYPE_TURBO4,
};

bool llama_kv_is_cache_type(ggml_type type) {
    return std::find(std::begin(CACHE_TYPES), std::end(CACHE_TYPES), type) != std::end(CACHE_TYPES);
}

std::string llama_kv_cache_type_names() {
    std::string res;
    for (const ggml_type type : CACHE_TYPES) {
        res += (res.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    return res;
}

static ggml_type parse_type(const std::string & name) {
    for (const ggml_type type : CACHE_TYPES) {
        if (name == ggml_type_name(type)) {
            return type;
        }
    }
    throw std::invalid_argument("'" + name + "' is no cache type: use one of " + llama_kv_cache_type_names());
}

// the number that a text consists of
static uint32_t parse_number(const std::string & text, const std::string & selector) {
    if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) {
        throw std::invalid_argument("'" + selector + "' selects no layers: expected firstN, lastN, N or N-M");
    }
    return strtoul(text.c_str(), nullptr, 10);
}

// first and one past the last layer
static std::pair<uint32_t, uint32_t> parse_selector(const std::string & selector, uint32_t n) {
    std::pair<uint32_t, uint32_t> res;
    if (selector.rfind("first", 0) == 0) {
        res = { 0, parse_number(selector.substr(5), selector) };
    } else if (selector.rfind("last", 0) == 0) {
        const uint32_t n_last = parse_number(selector.substr(4), selector);
        res = { n_last <= n ? n - n_last : 0, n_last <= n ? n : n_last };
    } else if (const size_t dash = selector.find('-'); dash != std::string::npos) {
        res = { parse_number(selector.substr(0, dash), selector), parse_number(selector.substr(dash + 1), selector) + 1 };
    } else {
        const uint32_t i = parse_number(selector, selector);
        res = { i, i + 1 };
    }
    if (res.first >= res.second || res.second > n) {
        throw std::invalid_argument("'" + selector + "' is out of range: the model has " + std::to_string(n) + " KV layers");
    }
    return res;
}

llama_kv_policy::llama_kv_policy(ggml_type base, const char * text, uint32_t n_layer_kv) : types(n_layer_kv, base) {
    std::istringstream items(text ? text : "");
    for (std::string item; std::getline(items, item, ',');) {
        const size_t eq = item.find('=');
        if (eq == std::string::npos) {
            throw std::invalid_argument("'" + item + "' is no exception: expected SELECTOR=TYPE, as first2=q8_0");
        }
        const ggml_type type = parse_type(item.substr(eq + 1));
        const auto [i0, i1] = parse_selector(item.substr(0, eq), n_layer_kv);
        for (uint32_t i = i0; i < i1; ++i) {
            types[i] = type;
        }
    }
}

std::string llama_kv_policy::describe() const {
    std::ostringstream res;
    for (size_t i = 0; i < types.size();) {
        size_t j = i;
        while (j + 1 < types.size() && types[j + 1] == types[i]) {
            ++j;
        }
        res << (i > 0 ? ", " : "") << i;
        if (j > i) {
            res << "-" << j;
        }
        res << ": " << ggml_type_name(types[i]);
        i = j + 1;
    }
    return res.str();
}
