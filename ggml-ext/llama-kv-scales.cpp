#include "llama-kv-scales.h"

#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-kv-calib-file.h"
#include "llama-kv-calibrate.h"
#include "llama-model.h"
#include "llama-turbo.h"

#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>

//
// scales on the devices
//

llama_kv_scales::llama_kv_scales(const llama_model & model, const std::string & path, bool offload) : layers(model.hparams.n_layer_all) {
    const auto file = llama_kv_calib_file::read(model, path);

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

    double gain = 0.0;

    hash = LLAMA_KV_HASH_INIT;
    for (const auto & [il, layer] : file.layers) {
        std::vector<float> inverse;
        for (const float s : layer.scale) {
            inverse.push_back(1.0f/s);
        }
        ggml_backend_tensor_set(layers[il].key,   layer.scale.data(), 0, ggml_nbytes(layers[il].key));
        ggml_backend_tensor_set(layers[il].query, inverse.data(),     0, ggml_nbytes(layers[il].query));

        hash  = llama_kv_hash(hash, layer.scale.data(), layer.scale.size()*sizeof(float));
        gain += (layer.error_without > 0.0f ? layer.error_with/layer.error_without : 1.0)/file.layers.size();
    }

    LLAMA_LOG_INFO("%s: key scales of '%s', id %016" PRIx64 ": quantized keys are predicted to cost %.0f%% of what they do without\n",
            __func__, path.c_str(), hash, 100.0*gain);
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
// which models, which file
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

// the folder for calibrations that are made by themselves
static std::filesystem::path cache_folder() {
    namespace fs = std::filesystem;

    const auto env = [](const char * name) {
#if defined(_WIN32)
        const wchar_t * value = _wgetenv(std::wstring(name, name + strlen(name)).c_str());
#else
        const char * value = getenv(name);
#endif
        return value && *value ? fs::path(value) : fs::path();
    };

    fs::path res = env("LLAMA_CACHE");
    if (!res.empty()) {
        return res;
    }
#if defined(_WIN32)
    res = env("LOCALAPPDATA");
#elif defined(__APPLE__)
    res = env("HOME").empty() ? fs::path() : env("HOME") / "Library" / "Caches";
#else
    res = env("XDG_CACHE_HOME");
    if (res.empty() && !env("HOME").empty()) {
        res = env("HOME") / ".cache";
    }
#endif
    if (res.empty()) {
        throw std::runtime_error("key scales: no folder to keep a calibration in. set LLAMA_CACHE to one, or name a file (--kv-calib FILE)");
    }
    return res / "llama.cpp";
}

std::string llama_kv_scales_find(llama_model & model, const llama_context_params & params) {
    namespace fs = std::filesystem;

    // a model without data is there to measure memory, of which scales take next to nothing
    if (!params.kv_calib || !*params.kv_calib || model.hparams.no_alloc) {
        return "";
    }

    const std::string why = llama_kv_scales_why_not(model);
    if (!why.empty()) {
        throw std::runtime_error("key scales (kv_calib, --kv-calib) cannot be: " + why + ". leave them out");
    }

    if (strcmp(params.kv_calib, "auto") != 0) {
        return params.kv_calib;
    }

    const fs::path folder = cache_folder() / "kv-calib";
    const fs::path path   = folder / format("%016" PRIx64 "-v%u.gguf", llama_kv_fingerprint(model), llama_kv_calib_file::VERSION);

    const auto is_good = [&]() {
        try {
            llama_kv_calib_file::read(model, path.u8string());
            return true;
        } catch (const std::exception & err) {
            LLAMA_LOG_WARN("%s: %s\n", __func__, err.what());
        }
        return false;
    };
    std::error_code ec;
    if (fs::exists(path, ec) && is_good()) {
        return path.u8string();
    }

    fs::create_directories(folder, ec);
    if (ec) {
        throw std::runtime_error("key scales: cannot make the folder '" + folder.u8string() + "' (" + ec.message() + "). set LLAMA_CACHE to one that is writable, or name a file (--kv-calib FILE)");
    }

    LLAMA_LOG_INFO("%s: calibrating key scales, once for this model\n", __func__);
    auto cal = llama_kv_calibrate_default_params();
    cal.n_threads = params.n_threads_batch;
    const int64_t t_begin = ggml_time_us();
    try {
        llama_kv_calibrate_to(model, path.u8string(), cal);
    } catch (const std::exception & err) {
        // another process may have been first, and reads its file
        if (!fs::exists(path, ec) || !is_good()) {
            throw std::runtime_error(std::string("key scales: cannot calibrate: ") + err.what());
        }
    }
    LLAMA_LOG_INFO("%s: calibrated in %.1f s\n", __func__, 1e-6*(ggml_time_us() - t_begin));
    return path.u8string();
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

bool llama_kv_cache::check_state_scales(uint64_t id) const {
    const uint64_t ours = scales ? scales->id() : 0;
    if (id != ours) {
        LLAMA_LOG_ERROR("%s: the state was saved with key scales %s, but this context has %s: create it with the same calibration (kv_calib, --kv-calib)\n",
                __func__, name_of(id).c_str(), name_of(ours).c_str());
    }
    return id == ours;
}
