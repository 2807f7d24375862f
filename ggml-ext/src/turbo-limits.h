// Limits on what untrusted texts may nest and repeat: grammars, chat templates (GGUF files bring them), JSON, its schemas,
// regular expressions, and what a model answers. All of them are read by recursion. Beyond a limit there is an exception
// that names it, where the stack or the memory would have ended and the process with it.
//
// Limits are chosen for threads with a stack of 512 KiB, the least that llama.cpp's tools run on (macOS); tests go up to
// each on such a stack (tests/nesting). Parsers of answers take 380 bytes a level and some eight levels for a bracket:
// elsewhere, where threads have 1 MiB or more, they may go deeper.

#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

//
// nesting
//

enum turbo_nest {
    TURBO_NEST_GRAMMAR,    // parentheses
    TURBO_NEST_TEMPLATE,   // statements and expressions of a chat template, while it is read
    TURBO_NEST_RUN,        // the same while it runs, where macros call each other
    TURBO_NEST_VALUE,      // arrays and objects of a chat template
    TURBO_NEST_SCHEMA,     // schemas within schemas, by references as well
    TURBO_NEST_PROPERTIES, // properties of an object that are not required: the rule for each is a part of the one before
    TURBO_NEST_ANSWER,     // parsers of an answer
    TURBO_NEST_COUNT,
};

struct turbo_nest_limit {
    int          max;
    const char * what;
};

#ifdef __APPLE__
static constexpr int TURBO_NEST_ANSWER_MAX = 1100;
#else
static constexpr int TURBO_NEST_ANSWER_MAX = 2200;
#endif

static constexpr turbo_nest_limit TURBO_NEST_LIMITS[TURBO_NEST_COUNT] = {
    { 500, "a grammar nests parentheses"                      },
    { 100, "a chat template nests statements and expressions" },
    { 300, "a chat template runs macros and expressions"      },
    { 200, "a chat template nests arrays and objects"         },
    { 100, "a JSON schema nests schemas and references"       },
    { 500, "a JSON schema has properties that are optional"   },
    { TURBO_NEST_ANSWER_MAX, "an answer nests what its parser reads" },
};

[[noreturn]] inline void turbo_nest_fail(turbo_nest kind) {
    const auto & limit = TURBO_NEST_LIMITS[kind];
    if (kind == TURBO_NEST_PROPERTIES) {
        throw std::runtime_error(std::string(limit.what) + ", more than " + std::to_string(limit.max) + " in one object: require some, or split it");
    }
    throw std::runtime_error(std::string(limit.what) + " more than " + std::to_string(limit.max) + " deep, which is the limit");
}

// of this thread
inline int & turbo_nest_depth(turbo_nest kind) {
    static thread_local int depths[TURBO_NEST_COUNT] = {};
    return depths[kind];
}

// one level more, as long as it lives. throws std::runtime_error at the limit
struct turbo_nesting {
    explicit turbo_nesting(turbo_nest kind) : depth(turbo_nest_depth(kind)) {
        if (depth >= TURBO_NEST_LIMITS[kind].max) {
            turbo_nest_fail(kind);
        }
        ++depth;
    }
    ~turbo_nesting() {
        --depth;
    }
    turbo_nesting(const turbo_nesting &) = delete;
    turbo_nesting & operator=(const turbo_nesting &) = delete;

private:
    int & depth;
};

//
// JSON
//

static constexpr int TURBO_JSON_DEPTH = 200;

// whether arrays and objects of a text in JSON are no deeper. texts that are no JSON: any answer
inline bool turbo_json_fits(const std::string & text) {
    int  depth     = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') {
                ++i;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > TURBO_JSON_DEPTH) {
                return false;
            }
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return true;
}

inline void turbo_check_json(const std::string & text) {
    if (!turbo_json_fits(text)) {
        throw std::runtime_error("JSON nests arrays and objects more than " + std::to_string(TURBO_JSON_DEPTH) + " deep, which is the limit");
    }
}

//
// regular expressions: C++ libraries compile and match them by recursion, a level or more for each character
//

static constexpr size_t TURBO_PATTERN_MAX = 500;  // bytes of an expression
static constexpr size_t TURBO_MATCH_MAX   = 1000; // characters of a text that a vocabulary's expressions see at once
static constexpr size_t TURBO_TRIGGER_MAX = 300;  // bytes of an answer's end that a grammar's trigger sees, or its own size

inline void turbo_check_pattern(const std::string & pattern) {
    if (pattern.size() > TURBO_PATTERN_MAX) {
        throw std::runtime_error("a regular expression has " + std::to_string(pattern.size()) + " bytes, and " +
                std::to_string(TURBO_PATTERN_MAX) + " are the limit");
    }
}

// parts of a text, given by their sizes, cut where they are longer than an expression may see: before spaces where there
// are some
template <typename Text>
std::vector<size_t> turbo_match_parts(const Text & text, const std::vector<size_t> & sizes) {
    const auto is_space = [&](size_t i) { return text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r' || text[i] == '\v'; };
    std::vector<size_t> res;
    size_t start = 0;
    for (size_t left : sizes) {
        while (left > TURBO_MATCH_MAX) {
            size_t n = TURBO_MATCH_MAX;
            while (n > 0 && !(text[start + n] == ' ' && !is_space(start + n - 1))) {
                --n;
            }
            n = n > 0 ? n : TURBO_MATCH_MAX;
            res.push_back(n);
            start += n;
            left  -= n;
        }
        res.push_back(left);
        start += left;
    }
    return res;
}

// a name as grammars have them: each run of other characters is a dash. a regular expression in the place of this would
// take stack for each character
inline std::string turbo_rule_name(const std::string & name) {
    std::string res;
    bool in_run = false;
    for (const char c : name) {
        const bool valid = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
        if (valid) {
            res += c;
        } else if (!in_run) {
            res += '-';
        }
        in_run = !valid;
    }
    return res;
}
