#pragma once

// What one llama.cpp that this project is built with has in another place than the other (vendor/llama.cpp.toml). Found by what
// its types have, so that trees between the two are served, too.

struct llama_turbo_compat {
    // whether the weights were left out (llama_model_params::no_alloc)
    template <typename model_t>
    static bool no_alloc(const model_t & model) { return no_alloc_of(model, 0); }

private:
    template <typename model_t>
    static auto no_alloc_of(const model_t & model, int) -> decltype(model.no_alloc()) { return model.no_alloc(); }
    template <typename model_t>
    static auto no_alloc_of(const model_t & model, long) -> decltype(model.hparams.no_alloc) { return model.hparams.no_alloc; }
};
