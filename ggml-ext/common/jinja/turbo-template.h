// What of chat templates turbo-limits.h does not see: how deep their syntax trees are, and how much they do and write
// in one run. Loops over what they make themselves, macros that call themselves twice, and strings that are doubled end in
// an exception, where the process would have hung or run out of memory.

#pragma once

#include "../turbo-limits.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace jinja {

//
// syntax trees
//

template <typename T> int turbo_depth_of(const T &) { return 0; }
template <typename T> int turbo_depth_of(const std::unique_ptr<T> & node) { return node ? node->depth : 0; }
template <typename A, typename B> int turbo_depth_of(const std::pair<A, B> & both) {
    return std::max(turbo_depth_of(both.first), turbo_depth_of(both.second));
}
template <typename T> int turbo_depth_of(const std::vector<T> & nodes) {
    int res = 0;
    for (const auto & node : nodes) {
        res = std::max(res, turbo_depth_of(node));
    }
    return res;
}

// the depth of a node over these parts
template <typename... Parts> int turbo_node_depth(const Parts &... parts) {
    const int depth = 1 + std::max({ 0, turbo_depth_of(parts)... });
    if (depth > TURBO_NEST_LIMITS[TURBO_NEST_TEMPLATE].max) {
        turbo_nest_fail(TURBO_NEST_TEMPLATE);
    }
    return depth;
}

//
// runs
//

static constexpr uint64_t TURBO_TEMPLATE_STEPS  = 500*1000;     // statements and expressions
static constexpr uint64_t TURBO_TEMPLATE_VALUES = 10*1000*1000; // values that are written, compared or gathered
static constexpr uint64_t TURBO_TEMPLATE_BYTES  = 64u << 20;    // strings and lists, together with what they were made of

struct turbo_template_run {
    uint64_t steps  = 0;
    uint64_t values = 0;
    uint64_t bytes  = 0;

    turbo_template_run() : outer(current()) {
        current() = this;
    }
    ~turbo_template_run() {
        current() = outer;
    }
    turbo_template_run(const turbo_template_run &) = delete;
    turbo_template_run & operator=(const turbo_template_run &) = delete;

    // of this thread. null: no template runs
    static turbo_template_run *& current() {
        static thread_local turbo_template_run * run = nullptr;
        return run;
    }

private:
    turbo_template_run * outer;
};

inline void turbo_template_step() {
    auto * run = turbo_template_run::current();
    if (run && ++run->steps > TURBO_TEMPLATE_STEPS) {
        throw std::runtime_error("a chat template takes more than " + std::to_string(TURBO_TEMPLATE_STEPS) + " steps, which is the limit");
    }
}

inline void turbo_template_value() {
    auto * run = turbo_template_run::current();
    if (run && ++run->values > TURBO_TEMPLATE_VALUES) {
        throw std::runtime_error("a chat template goes through more than " + std::to_string(TURBO_TEMPLATE_VALUES) + " values, which is the limit");
    }
}

inline void turbo_template_take(uint64_t bytes) {
    auto * run = turbo_template_run::current();
    if (run && (run->bytes += bytes) > TURBO_TEMPLATE_BYTES) {
        throw std::runtime_error("a chat template makes strings and lists of more than " + std::to_string(TURBO_TEMPLATE_BYTES >> 20) +
                " MiB, which is the limit");
    }
}

// one level more of arrays and objects
struct turbo_value_nesting {
    turbo_value_nesting() : nesting(TURBO_NEST_VALUE) {
        turbo_template_value();
    }

private:
    turbo_nesting nesting;
};

// moves the items of an array or object, and theirs, out of it before it goes: one after the other, where each would let go
// of its own by recursion. arrays may have been put into each other as often as a template pleased
template <typename Value> void turbo_release(Value & value) {
    using pointer = typename std::remove_reference<decltype(value.val_arr)>::type::value_type;
    std::vector<pointer> todo;
    const auto take = [&](Value & from) {
        for (auto & item : from.val_arr) {
            todo.push_back(std::move(item));
        }
        for (auto & pair : from.val_obj) {
            todo.push_back(std::move(pair.first));
            todo.push_back(std::move(pair.second));
        }
        from.val_arr.clear();
        from.val_obj.clear();
        from.turbo_take_bound(todo);
    };
    take(value);
    while (!todo.empty()) {
        const pointer item = std::move(todo.back());
        todo.pop_back();
        if (item && item.use_count() == 1) {
            take(*item);
        }
    }
}

} // namespace jinja
