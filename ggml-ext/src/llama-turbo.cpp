#include "llama-turbo.h"

#include "ggml-anchors.h"
#include "llama-graph.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-anchors.h"
#include "llama-kv-fit.h"
#include "llama-kv-policy.h"
#include "llama-kv-scales.h"
#include "llama-model.h"
#include "turbo-grammar.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

static bool is_turbo(ggml_type type) {
    return type == GGML_TYPE_TURBO2 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO4;
}

// the types that our flash attention reads beside turbo
static bool is_fast_partner(ggml_type type) {
    return is_turbo(type) || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || type == GGML_TYPE_F32;
}

// the cache types nearest in size to turbo that run at this head_dim
static const char * alternatives(uint32_t n_embd_head) {
    return n_embd_head % 32 == 0 ? "q8_0, q5_0, q4_0 or f16" : "f16 or bf16";
}

bool llama_turbo_has_own_attention(const llama_model & model) {
    switch (model.arch) {
        case LLM_ARCH_DEEPSEEK32:
        case LLM_ARCH_DEEPSEEK4:
        case LLM_ARCH_DFLASH:
        case LLM_ARCH_DOTS3NOTE:
        case LLM_ARCH_GLM5_NEXT:
        case LLM_ARCH_GLM_DSA:
        case LLM_ARCH_HY_V4:
        case LLM_ARCH_MINIMAX_M3:
        case LLM_ARCH_QWEN4EXP:
#ifdef LLAMA_TURBO_LATENT // newer
        case LLM_ARCH_DEEPSEEK41:
        case LLM_ARCH_MISTRAL_LARGE4:
#endif
            return true;
        default:
            return false;
    }
}

const char * llama_turbo_no_flash_attention(const llama_model & model) {
    switch (model.arch) {
        case LLM_ARCH_GROK:
            return "llama.cpp switches it off for this architecture";
        case LLM_ARCH_T5:
            return "self-attention adds a bias for each distance, which it does not take";
        default:
            return nullptr;
    }
}

void llama_turbo_check_values(const ggml_tensor * v, int32_t il) {
    if (ggml_is_quantized(v->type)) {
        throw std::runtime_error(std::string("V cache type ") + ggml_type_name(v->type) + " needs flash attention, which the graph of layer " +
                std::to_string(il) + " does not use. use f16 for V");
    }
}

//
// layers
//

std::vector<uint32_t> llama_turbo_kv_layers(const llama_model & model) {
    const auto & hparams = model.hparams;

    std::vector<uint32_t> res;
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        // Falcon-H1's layers are recurrent and attend, too
        const bool is_recr = hparams.is_recr(il) && model.arch != LLM_ARCH_FALCON_H1;
        // Nemotron-H's layers recur, attend or feed forward. The last may have heads by their metadata
        const bool is_ffn = (model.arch == LLM_ARCH_NEMOTRON_H || model.arch == LLM_ARCH_NEMOTRON_H_MOE) && hparams.n_ff(il) > 0;
        if (hparams.has_kv(il) && !is_recr && !is_ffn && hparams.n_head_kv(il) > 0) {
            res.push_back(il);
        }
    }
    return res;
}

static const char * exceptions(const llama_context_params & params, bool is_k) {
    const char * text = is_k ? params.type_k_layers : params.type_v_layers;
    return text && *text ? text : nullptr;
}

//
// checks
//

// the value by which the environment switches the rotation off, or null
static const char * rotation_disabled() {
    const char * value = getenv("LLAMA_ATTN_ROT_DISABLE");
    return value && atoi(value) ? value : nullptr;
}

// whether heads can be padded: not where a graph reads and writes the cache by itself, or takes values from keys
static bool pads_heads(const llama_model & model) {
    return !model.hparams.is_mla() && !llama_turbo_has_own_attention(model);
}

static bool check_layer(const llama_model & model, uint32_t il, ggml_type type, bool is_k) {
    const auto   & hparams     = model.hparams;
    const char *   kv          = is_k ? "K" : "V";
    const uint32_t n_embd_head = is_k ? hparams.n_embd_head_k(il) : hparams.n_embd_head_v(il);
    if (n_embd_head % ggml_blck_size(type) != 0 && !(is_turbo(type) && pads_heads(model))) {
        LLAMA_LOG_ERROR("%s: %s cache type %s needs a head_dim that is a multiple of %d, but layer %u has %u. use %s instead\n",
                __func__, kv, ggml_type_name(type), (int) ggml_blck_size(type), il, n_embd_head, alternatives(n_embd_head));
        return false;
    }
    return true;
}

// types: of K or V, by KV layer
static bool check_types(const llama_model & model, const llama_kv_policy & types, bool is_k) {
    const auto layers = llama_turbo_kv_layers(model);
    for (size_t i = 0; i < layers.size(); ++i) {
        if (!check_layer(model, layers[i], types[i], is_k)) {
            return false;
        }
    }
    return true;
}

static bool any(const llama_kv_policy & types, bool (*is)(ggml_type)) {
    return std::any_of(types.all().begin(), types.all().end(), is);
}

static bool check_base_type(const char * kv, ggml_type type) {
    if (llama_kv_is_cache_type(type)) {
        return true;
    }
    const bool known = type >= 0 && type < GGML_TYPE_COUNT;
    LLAMA_LOG_ERROR("%s: %s cannot be of type %s, which is no cache type. use one of %s\n", __func__, kv,
            known ? ggml_type_name(type) : std::to_string((int) type).c_str(), llama_kv_cache_type_names().c_str());
    return false;
}

// values of latent attention are a part of keys: flash attention reads them where they are
static bool check_latent(const llama_hparams & hparams, llama_context_params & params) {
#ifndef LLAMA_TURBO_LATENT
    if (hparams.swa_type == LLAMA_SWA_TYPE_NONE) {
        LLAMA_LOG_ERROR("%s: cache type %s is a code for rotated data, but the keys of multi-head latent attention (head_dim %u) "
                "are not rotated by this llama.cpp. use q8_0 or f16 instead, or a newer one\n", __func__, ggml_type_name(params.type_k), hparams.n_embd_head_k());
        return false;
    }
#endif
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        LLAMA_LOG_ERROR("%s: K cache type %s of a model with multi-head latent attention requires flash attention, which is off. use -fa on, or f16 instead\n",
                __func__, ggml_type_name(params.type_k));
        return false;
    }
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    return true;
}

static bool check_params(const llama_model & model, llama_context_params & params) {
    const auto & hparams = model.hparams;

    if (!check_base_type("K", params.type_k) || !check_base_type("V", params.type_v)) {
        return false;
    }

    const bool has_exceptions = exceptions(params, true) || exceptions(params, false);
    if (has_exceptions && (hparams.is_mla() || llama_turbo_has_own_attention(model))) {
        LLAMA_LOG_ERROR("%s: the KV cache of this model (%s) has one type for all layers: no exceptions are possible\n", __func__, model.arch_name().c_str());
        return false;
    }

    const uint32_t n_layer_kv = llama_turbo_kv_layers(model).size();
    const llama_kv_policy types_k(params.type_k, exceptions(params, true),  n_layer_kv);
    const llama_kv_policy types_v(params.type_v, exceptions(params, false), n_layer_kv);

    const char * no_flash_attn = llama_turbo_no_flash_attention(model);
    if (no_flash_attn && (ggml_is_quantized(params.type_v) || any(types_v, ggml_is_quantized))) {
        LLAMA_LOG_ERROR("%s: V cache type %s needs flash attention, which this model (%s) cannot have: %s. use f16 for V\n",
                __func__, types_v.describe().c_str(), model.arch_name().c_str(), no_flash_attn);
        return false;
    }

    if (has_exceptions && any(types_v, ggml_is_quantized)) {
        if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO) {
            LLAMA_LOG_INFO("%s: enabling flash_attn since it is required for quantized V cache\n", __func__);
            params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        }
        if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
            LLAMA_LOG_ERROR("%s: quantized V cache (layers %s) requires flash attention, which is off. use -fa on, or f16 for V\n",
                    __func__, types_v.describe().c_str());
            return false;
        }
    }

    const bool turbo_k = is_turbo(params.type_k) || any(types_k, is_turbo);
    const bool turbo_v = is_turbo(params.type_v) || any(types_v, is_turbo);

    if (!turbo_k && !turbo_v) {
        return !has_exceptions || (check_types(model, types_k, true) && check_types(model, types_v, false));
    }

    if (!check_types(model, types_k, true) || !check_types(model, types_v, false)) {
        return false;
    }

    if (const char * rot_disable = rotation_disabled()) {
        LLAMA_LOG_ERROR("%s: cache types K (%s), V (%s): turbo is a code for rotated data, but LLAMA_ATTN_ROT_DISABLE=%s switches the rotation off. "
                "unset it, or use q8_0 or f16 instead\n", __func__, types_k.describe().c_str(), types_v.describe().c_str(), rot_disable);
        return false;
    }

    if (hparams.is_mla() && !check_latent(hparams, params)) {
        return false;
    }

    if (turbo_v && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        LLAMA_LOG_ERROR("%s: V cache type %s requires flash attention, which is off. use -fa on, or f16 for V\n",
                __func__, ggml_type_name(params.type_v));
        return false;
    }

    for (uint32_t i = 0; i < n_layer_kv; ++i) {
        if ((is_turbo(types_k[i]) || is_turbo(types_v[i])) && !(is_fast_partner(types_k[i]) && is_fast_partner(types_v[i]))) {
            LLAMA_LOG_WARN("%s: attention over K of type %s and V of type %s is slow: it takes each row apart again for every query head. "
                    "pair turbo types with each other, q8_0, f16 or bf16\n",
                    __func__, ggml_type_name(types_k[i]), ggml_type_name(types_v[i]));
            break;
        }
    }

    return true;
}

bool llama_turbo_check_params(const llama_model & model, llama_context_params & params) {
    try {
        return check_params(model, params);
    } catch (const std::invalid_argument & err) {
        LLAMA_LOG_ERROR("%s: cache types of layers: %s\n", __func__, err.what());
    }
    return false;
}

static llama_kv_policy k_types(const llama_model & model, const llama_context_params & params) {
    return llama_kv_policy(params.type_k, exceptions(params, true), llama_turbo_kv_layers(model).size());
}

bool llama_turbo_any_turbo_k(const llama_model & model, const llama_context_params & params) {
    return is_turbo(params.type_k) || any(k_types(model, params), is_turbo);
}

std::string llama_turbo_why_not_rotated(const llama_model & model, const llama_context_params & params) {
    // heads of turbo types are padded until they can be rotated
    if (llama_turbo_any_turbo_k(model, params) || !any(k_types(model, params), ggml_is_quantized)) {
        return "";
    }
    if (const char * disabled = rotation_disabled()) {
        return std::string("LLAMA_ATTN_ROT_DISABLE=") + disabled + " switches off the rotation, to which scales are fitted";
    }
    for (const uint32_t il : llama_turbo_kv_layers(model)) {
        const uint32_t n_embd_head = model.hparams.n_embd_head_k(il);
        if (n_embd_head % 64 != 0) {
            return "scales are fitted to rotated keys, and with head_dim " + std::to_string(n_embd_head) +
                ", no multiple of 64, only keys of turbo types are rotated";
        }
    }
    return "";
}

static void check_rotation(const char * kv, ggml_type type, bool rot, int n_embd_head) {
    if (!is_turbo(type) || rot || n_embd_head == 0) {
        return;
    }
    std::string why;
    if (n_embd_head < 0) {
        why = "the layers of this cache differ in head_dim";
    } else if (n_embd_head % 64 != 0) {
        why = "head_dim " + std::to_string(n_embd_head) + " is not a multiple of 64";
    } else {
        why = "the rotation is switched off (head_dim " + std::to_string(n_embd_head) + ")";
    }
    throw std::runtime_error(std::string(kv) + " cache type " + ggml_type_name(type) + " is a code for rotated data, but " +
            why + ". use q8_0 or f16 for " + kv + " instead");
}

void llama_turbo_check_rotation(
        ggml_type type_k, bool rot_k, int n_embd_head_k,
        ggml_type type_v, bool rot_v, int n_embd_head_v,
        bool has_v) {
    check_rotation("K", type_k, rot_k, n_embd_head_k);
    if (has_v) {
        check_rotation("V", type_v, rot_v, n_embd_head_v);
    }
}

int64_t llama_turbo_shift_width(ggml_type type_k, int64_t n_rot, int64_t n_embd_head_k, int64_t n_embd_nope) {
#ifdef LLAMA_TURBO_LATENT // RoPE finds its channels in a whole row
    GGML_UNUSED(n_embd_nope);
    return ggml_is_quantized(type_k) ? n_embd_head_k : n_rot;
#else
    return ggml_is_quantized(type_k) && n_embd_nope == 0 ? n_embd_head_k : n_rot;
#endif
}

bool llama_turbo_rotation_fits(const llama_hparams & hparams, uint32_t n) {
    return hparams.n_lora_kv == 0 || (hparams.n_embd_head_k() - hparams.n_rot()) % n == 0;
}

ggml_type llama_turbo_packed_type(ggml_type type_k) {
    if (!is_turbo(type_k)) {
        return type_k;
    }
    // one text for all types: `turboquant plan` asks for several, and shows a warning once
    LLAMA_LOG_WARN("%s: rows that cannot be rotated are kept as %s: K takes more memory than its type says\n", __func__, ggml_type_name(GGML_TYPE_Q8_0));
    return GGML_TYPE_Q8_0;
}

void llama_turbo_log_state_type(const char * name, int type_ctx, int type_state) {
    const bool known = type_state >= 0 && type_state < GGML_TYPE_COUNT;
    LLAMA_LOG_ERROR("%s: the state was saved with a %s cache of type %s, but this context has %s: create it with the same cache types\n",
            __func__, name, known ? ggml_type_name((ggml_type) type_state) : "unknown", ggml_type_name((ggml_type) type_ctx));
}

bool llama_turbo_check_state_anchors(bool state_has, bool has) {
    if (state_has != has) {
        LLAMA_LOG_ERROR("%s: the state was saved %s key anchors, but this context has %s: create it with kv_anchors %s (--kv-anchors %s)\n", __func__,
                state_has ? "with" : "without", has ? "them" : "none", state_has ? "on" : "off", state_has ? "on" : "off");
        return false;
    }
    return true;
}

//
// options
//

static thread_local const llama_context_params * options = nullptr;
static thread_local std::shared_ptr<const llama_kv_scales> options_scales;

llama_turbo_options_scope::llama_turbo_options_scope(const llama_model & model, const llama_context_params & params) : outer(options), outer_scales(options_scales) {
    const auto fit = llama_kv_fit_scope::current();
    options_scales = fit ? std::make_shared<llama_kv_scales>(model, *fit, params.offload_kqv) : nullptr;
    options = &params;
}

llama_turbo_options_scope::~llama_turbo_options_scope() {
    options = outer;
    options_scales = outer_scales;
}

std::shared_ptr<const llama_kv_scales> llama_turbo_scales() {
    return options_scales;
}

//
// log
//

static thread_local bool muted = false;

llama_turbo_mute::llama_turbo_mute() {
    muted = true;
}

llama_turbo_mute::~llama_turbo_mute() {
    muted = false;
}

bool llama_turbo_is_mute(ggml_log_level level) {
    return muted && level != GGML_LOG_LEVEL_ERROR;
}

//
// types of layers
//

// the types of K or V by KV layer, if the cache that is being created has exceptions
static llama_kv_policy layer_types(const llama_model & model, ggml_type type, bool is_k) {
    return llama_kv_policy(type, options ? exceptions(*options, is_k) : nullptr, llama_turbo_kv_layers(model).size());
}

ggml_type llama_turbo_layer_type(const llama_model & model, uint32_t il, ggml_type type, bool is_k) {
    const auto layers = llama_turbo_kv_layers(model);
    const auto it = std::find(layers.begin(), layers.end(), il);
    return it == layers.end() ? type : layer_types(model, type, is_k)[it - layers.begin()];
}

bool llama_turbo_any_quantized(const llama_model & model, ggml_type type, bool is_k) {
    return ggml_is_quantized(type) || any(layer_types(model, type, is_k), ggml_is_quantized);
}

//
// padding
//

static uint32_t padded(uint32_t n_embd_head) {
    return GGML_PAD(n_embd_head, (uint32_t) ggml_blck_size(GGML_TYPE_TURBO4));
}

static double bits(ggml_type type) {
    return 8.0*ggml_type_size(type)/ggml_blck_size(type);
}

// pads one side, if any layer has it of a turbo type
static void pad_side(const llama_model & model, const char * kv, ggml_type type, bool is_k, uint32_t & n_full, uint32_t & n_swa) {
    const auto types = layer_types(model, type, is_k);
    const auto turbo = std::find_if(types.all().begin(), types.all().end(), is_turbo);
    if (turbo == types.all().end()) {
        return;
    }
    for (uint32_t * n : { &n_full, &n_swa }) {
        const uint32_t n_padded = padded(*n);
        if (n_padded != *n) {
            LLAMA_LOG_INFO("%s: %s heads of %u values are padded to %u: %s takes %.2f bits a value (q8_0 %.2f, q4_0 %.2f)\n", __func__, kv,
                    *n, n_padded, ggml_type_name(*turbo), bits(*turbo)*n_padded / *n, bits(GGML_TYPE_Q8_0), bits(GGML_TYPE_Q4_0));
        }
        *n = n_padded;
    }
}

uint32_t llama_turbo_head_block(ggml_type type) {
    return is_turbo(type) ? 1 : ggml_blck_size(type);
}

llama_hparams llama_turbo_pad_heads(const llama_model & model, const llama_hparams & hparams, ggml_type type_k, ggml_type type_v) {
    llama_hparams res = hparams;
    if (pads_heads(model)) {
        pad_side(model, "K", type_k, true,  res.n_embd_head_k_full, res.n_embd_head_k_swa);
        pad_side(model, "V", type_v, false, res.n_embd_head_v_full, res.n_embd_head_v_swa);
    }
    return res;
}

ggml_tensor * llama_turbo_pad(ggml_context * ctx, ggml_tensor * heads, int64_t n_padded) {
    if (!heads || heads->ne[0] == n_padded) {
        return heads;
    }
    // not every back end pads what lies in parts
    if (!ggml_is_contiguous(heads)) {
        heads = ggml_cont(ctx, heads);
    }
    return ggml_pad(ctx, heads, n_padded - heads->ne[0], 0, 0, 0);
}

ggml_tensor * llama_turbo_unpad(ggml_context * ctx, ggml_tensor * heads, int64_t n_padded, int64_t n_embd_head) {
    if (n_padded == n_embd_head) {
        return heads;
    }
    const int64_t n_head = heads->ne[0]/n_padded;
    heads = ggml_view_3d(ctx, heads, n_embd_head, n_head, heads->ne[1], n_padded*heads->nb[0], heads->nb[1], 0);
    return ggml_cont_2d(ctx, heads, n_embd_head*n_head, heads->ne[2]);
}

//
// the log of types
//

void llama_turbo_log_layer_types(const llama_model & model, ggml_type type_k, ggml_type type_v) {
    if (options && (exceptions(*options, true) || exceptions(*options, false))) {
        LLAMA_LOG_INFO("%s: types by KV layer: K %s; V %s\n", __func__,
                layer_types(model, type_k, true).describe().c_str(), layer_types(model, type_v, false).describe().c_str());
    }
}

//
// anchors
//

// whether flash attention with anchors over this K runs on the device
static bool device_has_anchors(ggml_backend_dev_t dev, ggml_type type_k, int64_t n_embd_head) {
    const ggml_init_params params = {
        /*.mem_size   =*/ 16*ggml_tensor_overhead(),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ true,
    };
    ggml_context_ptr ctx { ggml_init(params) };

    const int64_t n_kv = 256;

    ggml_tensor * q = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, n_embd_head, 1, 1);
    ggml_tensor * k = ggml_new_tensor_3d(ctx.get(), type_k, n_embd_head, n_kv, 1);
    ggml_tensor * fa = ggml_flash_attn_ext(ctx.get(), q, k, k, nullptr, 1.0f, 0.0f, 0.0f);
    ggml_flash_attn_ext_add_anchors(fa, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, n_embd_head, 4), ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, n_kv));

    return ggml_backend_dev_supports_op(dev, fa);
}

// empty: they can be
static std::string why_no_anchors(const llama_model & model, const llama_hparams & hparams, ggml_type type_k, bool offload) {
    if (hparams.is_mla()) {
        return "the model's attention is latent: its keys are its values, too";
    }
    if (llama_turbo_has_own_attention(model)) {
        return "the model's attention (" + model.arch_name() + ") writes the cache by itself";
    }
    if (hparams.n_lora_kv > 0) {
        return "the model (" + model.arch_name() + ") has keys of which RoPE turns the last channels alone";
    }
    if (offload) {
        for (const uint32_t il : llama_turbo_kv_layers(model)) {
            auto * dev = model.dev_layer(il);
            if (!device_has_anchors(dev, type_k, hparams.n_embd_head_k(il))) {
                return std::string("flash attention on ") + ggml_backend_dev_name(dev) + " cannot add their term; keep the cache on the CPU (-nkvo) to have them";
            }
        }
    }
    return "";
}

std::shared_ptr<llama_kv_anchors> llama_turbo_make_anchors(
        const llama_model & model,
        const llama_hparams & hparams,
        ggml_type type_k,
        uint32_t n_cells,
        uint32_t n_stream,
        bool offload) {
    const llama_kv_anchors_type wanted = options ? options->kv_anchors : LLAMA_KV_ANCHORS_AUTO;

    const bool turbo_k = is_turbo(type_k) || any(layer_types(model, type_k, true), is_turbo);

    if (wanted == LLAMA_KV_ANCHORS_OFF || (wanted == LLAMA_KV_ANCHORS_AUTO && !turbo_k)) {
        if (turbo_k) {
            LLAMA_LOG_INFO("%s: key anchors are off\n", __func__);
        }
        return nullptr;
    }

    const std::string why = why_no_anchors(model, hparams, type_k, offload);
    if (!why.empty()) {
        if (wanted == LLAMA_KV_ANCHORS_ON) {
            throw std::runtime_error("key anchors cannot be on: " + why + ". use --kv-anchors auto or off");
        }
        LLAMA_LOG_WARN("%s: key anchors are off: %s. quantized keys are less precise without them\n", __func__, why.c_str());
        return nullptr;
    }

    LLAMA_LOG_INFO("%s: key anchors are on: one F16 vector per %u cells, counted as part of K (--kv-anchors off switches them off)\n",
            __func__, llama_kv_anchors::N_RUN);
    return std::make_shared<llama_kv_anchors>(n_cells, n_stream);
}

bool llama_turbo_layer_has_anchors(ggml_type type_k) {
    return is_turbo(type_k) || (options && options->kv_anchors == LLAMA_KV_ANCHORS_ON);
}

//
// grammars
//

extern "C" LLAMA_API const char * llama_turbo_grammar_reason(void);

const char * llama_turbo_grammar_reason(void) {
    const auto & reason = turbo_grammar_reason();
    return reason.empty() ? "the log says why" : reason.c_str();
}
