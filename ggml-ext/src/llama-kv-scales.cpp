#include "llama-kv-scales.h"

#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-kv-fit.h"
#include "llama-model.h"
#include "llama-turbo.h"

#include <cinttypes>
#include <map>
#include <stdexcept>

//
// scales on the devices
//

// for the log: what the user can do about it
static const char * describe(llama_kv_fit_type type) {
    switch (type) {
        case LLAMA_KV_FIT_QUICK:    return "quick fit; turboquant calibrate makes a thorough one";
        case LLAMA_KV_FIT_THOROUGH: return "thorough fit";
        case LLAMA_KV_FIT_NORMS:    return "from the weights of q and k norms";
        default:                    return "as asked for";
    }
}

static void log_fit(const llama_kv_fit & fit) {
    double gain = 0.0;
    for (const auto & [_, layer] : fit.data.layers) {
        gain += (layer.error_without > 0.0f ? layer.error_with/layer.error_without : 1.0)/fit.data.layers.size();
    }
    const std::string of        = fit.source.empty() ? "in memory" : "of '" + fit.source + "'";
    const std::string predicted = fit.type == LLAMA_KV_FIT_NORMS ? "" : format(": quantized keys are predicted to cost %.0f%% of what they do without", 100.0*gain);
    LLAMA_LOG_INFO("llama_kv_scales: key scales %s (%s), id %016" PRIx64 "%s\n", of.c_str(), describe(fit.type), fit.id, predicted.c_str());
}

llama_kv_scales::llama_kv_scales(const llama_model & model, const llama_kv_fit & fit, bool offload) : layers(model.hparams.n_layer_all), hash(fit.id) {
    const auto & file = fit.data;

    const auto buft_of = [&](uint32_t il) {
        return offload ? ggml_backend_dev_buffer_type(model.dev_layer(il)) : ggml_backend_cpu_buffer_type();
    };

    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> ctxs;
    for (const auto & [il, _] : file.layers) {
        auto & ctx = ctxs[buft_of(il)];
        if (!ctx) {
            ctx.reset(ggml_init({ /*.mem_size =*/ 2*file.layers.size()*ggml_tensor_overhead(), /*.mem_buffer =*/ nullptr, /*.no_alloc =*/ true }));
        }
        for (ggml_tensor ** t : { &layers[il].key, &layers[il].query }) {
            *t = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, model.hparams.n_embd_head_k(il), 1, model.hparams.n_head_kv(il));
        }
        ggml_format_name(layers[il].key,   "k_scale_l%d", il);
        ggml_format_name(layers[il].query, "q_scale_l%d", il);
    }
    for (auto & [buft, ctx] : ctxs) {
        ggml_backend_buffer_ptr buf { ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft) };
        if (!buf) {
            throw std::runtime_error(format("failed to allocate a %s buffer for key scales", ggml_backend_buft_name(buft)));
        }
        ctxs_bufs.emplace_back(std::move(ctx), std::move(buf));
    }

    for (const auto & [il, layer] : file.layers) {
        std::vector<float> inverse;
        for (const float s : layer.scale) {
            inverse.push_back(1.0f/s);
        }
        ggml_backend_tensor_set(layers[il].key,   layer.scale.data(), 0, ggml_nbytes(layers[il].key));
        ggml_backend_tensor_set(layers[il].query, inverse.data(),     0, ggml_nbytes(layers[il].query));
    }

    log_fit(fit);
}

tq_rope llama_kv_scales::rope_of(const llama_model & model) {
    switch (model.hparams.rope_type) {
        case LLAMA_ROPE_TYPE_NONE: return TQ_ROPE_NONE;
        case LLAMA_ROPE_TYPE_NORM: return TQ_ROPE_ADJACENT;
        default:                   return TQ_ROPE_HALVES;
    }
}

std::vector<std::pair<uint32_t, uint32_t>> llama_kv_scales::rope_pairs(const llama_model & model, uint32_t il) {
    const uint32_t n    = model.hparams.n_rot(il)/2;
    const tq_rope  rope = rope_of(model);

    std::vector<std::pair<uint32_t, uint32_t>> res;
    for (uint32_t i = 0; i < n; ++i) {
        switch (rope) {
            case TQ_ROPE_NONE:                                      break;
            case TQ_ROPE_ADJACENT: res.push_back({ 2*i, 2*i + 1 }); break;
            case TQ_ROPE_HALVES:   res.push_back({ i, i + n });     break;
        }
    }
    return res;
}

//
// which models
//

std::string llama_kv_scales_why_not(const llama_model & model) {
    if (model.hparams.is_mla()) {
        return "the model's attention is latent (MLA): its keys are its values, too";
    }
    if (model.hparams.n_lora_kv > 0) {
        return "the model (" + model.arch_name() + ") has keys of which RoPE turns the last channels alone";
    }
    if (llama_turbo_has_own_attention(model)) {
        return "the model's attention (" + model.arch_name() + ") writes the cache by itself";
    }
    if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        return "the model is split by tensors (-sm tensor), and scales are whole";
    }
    if (llama_turbo_kv_layers(model).empty()) {
        return "the model (" + model.arch_name() + ") has no KV cache";
    }
    return "";
}

//
// graph
//

ggml_tensor * llama_kv_scales_mul(ggml_context * ctx, ggml_tensor * t, ggml_tensor * by) {
    if (!by || !t) {
        return t;
    }
    const int64_t n_head_kv = by->ne[2];
    const int64_t n_group   = t->ne[1]/n_head_kv;

    GGML_ASSERT(t->ne[0] == by->ne[0] && t->ne[1] == n_group*n_head_kv && t->ne[3] == 1);

    ggml_tensor * res = ggml_view_4d(ctx, t, t->ne[0], n_group, n_head_kv, t->ne[2], t->nb[1], n_group*t->nb[1], t->nb[2], 0);
    res = ggml_mul(ctx, res, by);
    return ggml_reshape_3d(ctx, res, t->ne[0], t->ne[1], t->ne[2]);
}

ggml_tensor * llama_kv_cache::scale_k(ggml_context * ctx, ggml_tensor * k_cur, int32_t il) const {
    return llama_kv_scales_mul(ctx, k_cur, layers[map_layer_ids.at(il)].k_scale);
}

ggml_tensor * llama_kv_cache::scale_q(ggml_context * ctx, ggml_tensor * q_cur, int32_t il) const {
    return llama_kv_scales_mul(ctx, q_cur, layers[map_layer_ids.at(il)].q_scale);
}

ggml_tensor * llama_kv_cache_context::scale_k(ggml_context * ctx, ggml_tensor * k_cur, int32_t il) const {
    return kv->scale_k(ctx, k_cur, il);
}

ggml_tensor * llama_kv_cache_context::scale_q(ggml_context * ctx, ggml_tensor * q_cur, int32_t il) const {
    return kv->scale_q(ctx, q_cur, il);
}

//
// state
//

static std::string name_of(uint64_t id) {
    return id == 0 ? "none" : format("%016" PRIx64, id);
}

// what to create a context with that takes a state with these scales
static std::string way_out(const llama_model & model, uint64_t id) {
    if (id == 0) {
        return "create it without them (--kv-calib off, kv_calib \"off\")";
    }
    const std::string kept = llama_kv_fit_kept_as(model, id);
    return kept.empty() ?
        "create it with the same calibration (kv_calib, --kv-calib FILE); if its file is gone, the prompt has to be run again" :
        "create it with the same calibration: --kv-calib '" + kept + "'";
}

bool llama_kv_cache::check_state_scales(uint64_t id) const {
    const uint64_t ours = scales ? scales->id() : 0;
    if (id != ours) {
        LLAMA_LOG_ERROR("%s: the state was saved with key scales %s, but this context has %s: %s\n",
                __func__, name_of(id).c_str(), name_of(ours).c_str(), way_out(model, id).c_str());
    }
    return id == ours;
}
