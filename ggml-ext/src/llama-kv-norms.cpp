// Key scales from weights alone: where queries and keys are normalised head by head, the weights of the norms say how
// large their channels are. Not so the weights of projections, whose rows say little of it.

#include "llama-kv-calibrate.h"

#include "llama-impl.h"
#include "llama-kv-scales.h"
#include "llama-model.h"
#include "llama-turbo.h"

#include <algorithm>
#include <cmath>
#include <vector>

static bool is_of_head(const ggml_tensor * norm, uint32_t n_embd_head) {
    return norm && norm->type == GGML_TYPE_F32 && ggml_nelements(norm) == n_embd_head;
}

bool llama_kv_calib_has_norms(const llama_model & model) {
    const auto layers = llama_turbo_kv_layers(model);
    return !layers.empty() && std::all_of(layers.begin(), layers.end(), [&](uint32_t il) {
        const uint32_t n_embd_head = model.hparams.n_embd_head_k(il);
        const auto &   layer       = model.layers[il];
        return is_of_head(layer.attn_q_norm, n_embd_head) && is_of_head(layer.attn_k_norm, n_embd_head);
    });
}

// [n_embd_head]
static std::vector<float> weights_of(const ggml_tensor * norm, uint32_t n_embd_head) {
    std::vector<float> res(n_embd_head);
    ggml_backend_tensor_get(norm, res.data(), 0, ggml_nbytes(norm));
    return res;
}

// s_c = (E q_c^2 / E k_c^2)^(1/4), with the weights for the channels' sizes, the same within RoPE's pairs, of geometric
// mean 1. empty: they are out of bounds
static std::vector<float> scales_of(const llama_model & model, uint32_t il) {
    const uint32_t n_embd_head = model.hparams.n_embd_head_k(il);

    const auto q = weights_of(model.layers[il].attn_q_norm, n_embd_head);
    const auto k = weights_of(model.layers[il].attn_k_norm, n_embd_head);

    std::vector<double> q2(q.begin(), q.end());
    std::vector<double> k2(k.begin(), k.end());
    double q_mean = 0.0;
    double k_mean = 0.0;
    for (uint32_t i = 0; i < n_embd_head; ++i) {
        q_mean += (q2[i] *= q2[i])/n_embd_head;
        k_mean += (k2[i] *= k2[i])/n_embd_head;
    }
    for (const auto & [a, b] : llama_kv_scales::rope_pairs(model, il)) {
        q2[a] = q2[b] = 0.5*(q2[a] + q2[b]);
        k2[a] = k2[b] = 0.5*(k2[a] + k2[b]);
    }

    // a channel without weight has a finite scale
    const double floor = 1e-4;

    std::vector<double> logs(n_embd_head);
    double mean = 0.0;
    for (uint32_t i = 0; i < n_embd_head; ++i) {
        logs[i] = 0.25*std::log((q2[i] + floor*q_mean)/(k2[i] + floor*k_mean));
        mean += logs[i]/n_embd_head;
    }
    std::vector<float> res(n_embd_head);
    for (uint32_t i = 0; i < n_embd_head; ++i) {
        res[i] = std::exp(logs[i] - mean);
        if (!std::isfinite(res[i]) || res[i] < 1e-3f || res[i] > 1e3f) {
            return {};
        }
    }
    return res;
}

bool llama_kv_calib_of_norms(const llama_model & model, llama_kv_calib_file & res) {
    res = {};
    if (!llama_kv_calib_has_norms(model)) {
        return false;
    }
    for (const uint32_t il : llama_turbo_kv_layers(model)) {
        const auto scale = scales_of(model, il);
        if (scale.empty()) {
            return false;
        }
        auto & layer = res.layers[il];
        for (uint32_t h = 0; h < model.hparams.n_head_kv(il); ++h) {
            layer.scale.insert(layer.scale.end(), scale.begin(), scale.end());
        }
    }
    return true;
}
