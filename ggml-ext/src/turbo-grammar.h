// Grammars that would take the stack or the memory: what llama-grammar.cpp asks here (0021-nesting.toml).

#pragma once

#include "llama-grammar.h"
#include "llama-impl.h"
#include "turbo-limits.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// elements that a grammar's repetitions add to it: "text"{2000} has the text's as often
static constexpr uint64_t TURBO_GRAMMAR_ELEMENTS = 1u << 21;

// stacks that one step of a grammar goes through: rules whose alternatives begin alike multiply them
static constexpr size_t TURBO_GRAMMAR_STACKS = 1u << 14;

// bytes of a token that a grammar can allow: matching goes down a level for each character
static constexpr size_t TURBO_GRAMMAR_TOKEN = 256;

// max_times: UINT64_MAX is without end. n_added: elements that repetitions added so far
inline void turbo_check_repetition(uint64_t min_times, uint64_t max_times, size_t n_elements, uint64_t & n_added) {
    if (max_times < min_times) {
        throw std::runtime_error("a repetition of at least " + std::to_string(min_times) + " and at most " + std::to_string(max_times) + " times");
    }
    const uint64_t times = max_times == UINT64_MAX ? min_times + 1 : max_times;
    n_added += times*(n_elements + 3);
    if (n_added > TURBO_GRAMMAR_ELEMENTS) {
        throw std::runtime_error("the grammar's repetitions make more than " + std::to_string(TURBO_GRAMMAR_ELEMENTS) + " elements, which is the limit");
    }
}

inline void turbo_check_stacks(size_t n) {
    if (n > TURBO_GRAMMAR_STACKS) {
        throw std::runtime_error("the grammar can go on in more than " + std::to_string(TURBO_GRAMMAR_STACKS) + " ways, which is the limit");
    }
}

// why the last grammar of this thread came to nothing. empty: it did not, or the log says why
inline std::string & turbo_grammar_reason() {
    static thread_local std::string reason;
    return reason;
}

// the grammar, or null with the reason in the log
template <typename... Args> llama_grammar * turbo_grammar_init(Args... args) {
    turbo_grammar_reason().clear();
    try {
        return llama_grammar_init_impl(args...);
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err.what());
        turbo_grammar_reason() = err.what();
    }
    return nullptr;
}

// upstream's function of this name, without recursion, which would be as deep as rules refer to each other; and it does
// not follow again what it has followed
static inline bool llama_grammar_detect_left_recursion(
        const llama_grammar_rules & rules,
        size_t rule_index,
        std::vector<bool> * rules_visited,
        std::vector<bool> * rules_in_progress,
        std::vector<bool> * rules_may_be_empty) {
    struct frame {
        size_t rule;
        size_t i;         // element
        bool   leftmost;  // nothing has to come before it
        bool   returning; // from the rule that the element refers to
    };
    std::vector<frame> frames;

    const auto enter = [&](size_t index) {
        (*rules_in_progress)[index] = true;
        bool at_start = true;
        for (const auto & element : rules[index]) {
            const bool is_end = element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT;
            if (is_end && at_start) {
                (*rules_may_be_empty)[index] = true;
                break;
            }
            at_start = is_end;
        }
        frames.push_back({ index, 0, true, false });
    };

    if ((*rules_in_progress)[rule_index]) {
        return true;
    }
    enter(rule_index);
    while (!frames.empty()) {
        frame & top = frames.back();
        const auto & rule = rules[top.rule];
        if (top.i >= rule.size()) {
            (*rules_in_progress)[top.rule] = false;
            (*rules_visited)[top.rule]     = true;
            frames.pop_back();
            continue;
        }
        const auto & element = rule[top.i];
        if (element.type == LLAMA_GRETYPE_RULE_REF && top.leftmost) {
            const size_t child = element.value;
            if (!top.returning) {
                if ((*rules_in_progress)[child]) {
                    return true;
                }
                if (!(*rules_visited)[child]) {
                    top.returning = true;
                    enter(child); // top is gone
                    continue;
                }
            }
            top.returning = false;
            top.leftmost  = (*rules_may_be_empty)[child];
        } else {
            top.leftmost = element.type == LLAMA_GRETYPE_END || element.type == LLAMA_GRETYPE_ALT;
        }
        ++top.i;
    }
    return false;
}
