#include "llama-kv-state.h"

#include "ggml.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-turbo.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

// bits beside a number of layers, and none is another's
static_assert((LLAMA_TURBO_STATE_ANCHORS & LLAMA_TURBO_STATE_SCALES) == 0, "two bits are one");
static_assert(((LLAMA_TURBO_STATE_ANCHORS | LLAMA_TURBO_STATE_SCALES) & LLAMA_KV_STATE_ROT) == 0, "two bits are one");
static_assert(LLAMA_MAX_LAYERS < LLAMA_KV_STATE_ROT_V, "a number of layers reaches the bits beside it");

// ggml reads numbers of up to 8 bytes, and states in memory begin at any byte
static bool is_finite(ggml_type type, const uint8_t * data, size_t size) {
    if ((uintptr_t) data % 8 == 0) {
        return ggml_validate_row_data(type, data, size);
    }
    std::vector<uint64_t> copy(1 << 13);
    const size_t n_max = copy.size()*sizeof(copy[0])/ggml_type_size(type)*ggml_type_size(type);
    for (size_t i = 0; i < size; i += n_max) {
        const size_t n = std::min(n_max, size - i);
        memcpy(copy.data(), data + i, n);
        if (!ggml_validate_row_data(type, copy.data(), n)) {
            return false;
        }
    }
    return true;
}

bool llama_kv_state_check_row(int type, const void * data, size_t size, const std::string & what, const char * row, size_t i) {
    if (is_finite((ggml_type) type, (const uint8_t *) data, size)) {
        return true;
    }
    LLAMA_LOG_ERROR("%s: the state is damaged: %s has a value that is not finite in %s %zu (type %s)\n",
            __func__, what.c_str(), row, i, ggml_type_name((ggml_type) type));
    return false;
}

void llama_kv_state_read(llama_io_read_i & io, ggml_tensor * tensor, size_t offset, size_t size,
        size_t size_row, size_t first, const std::string & what, const char * row) {
    const auto check = [&](const uint8_t * data) {
        if (is_finite(tensor->type, data, size)) {
            return;
        }
        for (size_t i = 0; i*size_row < size; ++i) {
            if (!llama_kv_state_check_row(tensor->type, data + i*size_row, size_row, what, row, first + i)) {
                throw std::runtime_error("a value of the state is not finite");
            }
        }
    };

    struct scope {
        llama_io_read_i & io;
        ~scope() { io.check = nullptr; }
    } scope { io };

    io.check = check;
    io.read_tensor(tensor, offset, size);
}

uint32_t llama_kv_state_rotation(bool rot_k, bool rot_v) {
    return LLAMA_KV_STATE_ROT_KNOWN | (rot_k ? LLAMA_KV_STATE_ROT_K : 0) | (rot_v ? LLAMA_KV_STATE_ROT_V : 0);
}

static bool check_side(const char * name, bool state, bool cache) {
    if (state != cache) {
        LLAMA_LOG_ERROR("%s: the state was saved with %s rotated: %s, but this context rotates it: %s. %s LLAMA_ATTN_ROT_DISABLE, as when it was saved\n",
                __func__, name, state ? "yes" : "no", cache ? "yes" : "no", state ? "unset" : "set");
        return false;
    }
    return true;
}

bool llama_kv_state_check_rotation(uint32_t flags, bool rot_k, bool rot_v, bool quantized) {
    if (flags & LLAMA_KV_STATE_ROT_KNOWN) {
        return check_side("K", flags & LLAMA_KV_STATE_ROT_K, rot_k) && check_side("V", flags & LLAMA_KV_STATE_ROT_V, rot_v);
    }
    if (quantized) {
        LLAMA_LOG_ERROR("%s: the state does not say whether K and V are rotated, since upstream's llama.cpp or an earlier version wrote it: "
                "with a quantized cache, process the prompt again and save it\n", __func__);
        return false;
    }
    return true;
}

bool llama_kv_state_check_rotation(const char * name, uint32_t n_rot_state, uint32_t n_rot) {
    if (!check_side(name, n_rot_state > 0, n_rot > 0)) {
        return false;
    }
    if (n_rot_state != n_rot) {
        LLAMA_LOG_ERROR("%s: the state is of another model, or damaged: it was saved with %s rotated by %u values, but this context rotates it by %u\n",
                __func__, name, n_rot_state, n_rot);
        return false;
    }
    return true;
}
