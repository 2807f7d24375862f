#include "llama-turbo.h"

#include "llama-hparams.h"
#include "llama-impl.h"

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

static bool check_head_dim(const llama_hparams & hparams, ggml_type type, bool is_k) {
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        if (!hparams.has_kv(il) || hparams.is_recr(il)) {
            continue;
        }
        const uint32_t n_embd_head = is_k ? hparams.n_embd_head_k(il) : hparams.n_embd_head_v(il);
        if (n_embd_head % 64 != 0) {
            LLAMA_LOG_ERROR("%s: %s cache type %s needs a head_dim that is a multiple of 64, but layer %u has %u. use %s instead\n",
                    __func__, is_k ? "K" : "V", ggml_type_name(type), il, n_embd_head, alternatives(n_embd_head));
            return false;
        }
    }
    return true;
}

bool llama_turbo_check_params(const llama_hparams & hparams, const llama_context_params & params) {
    const bool turbo_k = is_turbo(params.type_k);
    const bool turbo_v = is_turbo(params.type_v);

    if (!turbo_k && !turbo_v) {
        return true;
    }

    const char * name = ggml_type_name(turbo_k ? params.type_k : params.type_v);

    if ((turbo_k && !check_head_dim(hparams, params.type_k, true)) ||
        (turbo_v && !check_head_dim(hparams, params.type_v, false))) {
        return false;
    }

    const char * rot_disable = getenv("LLAMA_ATTN_ROT_DISABLE");
    if (rot_disable && atoi(rot_disable)) {
        LLAMA_LOG_ERROR("%s: cache type %s is a code for rotated data, but LLAMA_ATTN_ROT_DISABLE=%s switches the rotation off. "
                "unset it, or use q8_0 or f16 instead\n", __func__, name, rot_disable);
        return false;
    }

    // the graph of multi-head latent attention without a sliding window (llm_graph_input_attn_k) does not rotate
    if (hparams.is_mla() && hparams.swa_type == LLAMA_SWA_TYPE_NONE) {
        LLAMA_LOG_ERROR("%s: cache type %s is a code for rotated data, but the keys of multi-head latent attention (head_dim %u) "
                "are not rotated. use q8_0 or f16 instead\n", __func__, name, hparams.n_embd_head_k());
        return false;
    }

    if (turbo_v && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        LLAMA_LOG_ERROR("%s: V cache type %s requires flash attention, which is off. use -fa on, or f16 for V\n",
                __func__, ggml_type_name(params.type_v));
        return false;
    }

    if (!is_fast_partner(params.type_k) || !is_fast_partner(params.type_v)) {
        LLAMA_LOG_WARN("%s: attention over K of type %s and V of type %s is slow: it takes each row apart again for every query head. "
                "pair turbo types with each other, q8_0, f16 or bf16\n",
                __func__, ggml_type_name(params.type_k), ggml_type_name(params.type_v));
    }

    return true;
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
    return ggml_is_quantized(type_k) && n_embd_nope == 0 ? n_embd_head_k : n_rot;
}

void llama_turbo_log_state_type(const char * name, int type_ctx, int type_state) {
    const bool known = type_state >= 0 && type_state < GGML_TYPE_COUNT;
    LLAMA_LOG_ERROR("%s: the state was saved with a %s cache of type %s, but this context has %s: create it with the same cache types\n",
            __func__, name, known ? ggml_type_name((ggml_type) type_state) : "unknown", ggml_type_name((ggml_type) type_ctx));
}
