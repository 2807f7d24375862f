// Which key scales a new context has: none, those of a file, or a fit to the model that the user's cache folder keeps.
//
// A context with turbo keys whose user says nothing (or "try", for K of any type) gets the kept fit. If there is none, a quick one is made with the
// model that is loaded: a small context runs a few tokens. Where that cannot be, the context has no scales, and the log
// says why. What a user names (a file, or "auto" for K of any type) is an error where it cannot be.

#pragma once

#include "llama.h"

#include "llama-kv-calib.h"
#include "llama-kv-calib-file.h"

#include <memory>
#include <string>

struct llama_model;

struct llama_kv_fit {
    llama_kv_fit_type type = LLAMA_KV_FIT_NONE;

    // the file. empty: the scales are in memory alone
    std::string source;

    llama_kv_calib_file data;

    uint64_t id = 0; // of the data
};

// the scales of a context with these parameters; null: none. throws std::runtime_error if those that were asked for
// cannot be
std::shared_ptr<const llama_kv_fit> llama_kv_fit_find(llama_model & model, const llama_context_params & params);

// what a context with turbo keys and default parameters would have
struct llama_kv_fit_outlook {
    llama_kv_fit_type type = LLAMA_KV_FIT_NONE;

    std::shared_ptr<const llama_kv_fit> fit; // null: it is not made yet, or there will be none

    std::string why; // why there will be no quick fit; empty: there will, or there is one
};

// path: the model's file. The model may be without its weights, of which a few are read. throws std::runtime_error if they cannot be
llama_kv_fit_outlook llama_kv_fit_expect(llama_model & model, const std::string & path);

// a file in the user's cache whose scales have this id, for messages. empty: there is none
std::string llama_kv_fit_kept_as(const llama_model & model, uint64_t id);

// hands the scales to the context that this thread creates
class llama_kv_fit_scope {
public:
    explicit llama_kv_fit_scope(std::shared_ptr<const llama_kv_fit> fit);
    ~llama_kv_fit_scope();

    llama_kv_fit_scope(const llama_kv_fit_scope &) = delete;
    llama_kv_fit_scope & operator=(const llama_kv_fit_scope &) = delete;

    // of the innermost scope; null: none
    static std::shared_ptr<const llama_kv_fit> current();

private:
    std::shared_ptr<const llama_kv_fit> outer;
};
