// What calibrations are told apart by: a model's shape, and the vectors among its weights, which no quantization touches.

#include "llama-kv-calib-file.h"

#include "ggml-cpp.h"
#include "gguf.h"
#include "llama-impl.h"
#include "llama-model.h"
#include "llama-turbo-compat.h"
#include "llama-turbo.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>

uint64_t llama_kv_hash(uint64_t hash, const void * data, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        hash = (hash ^ ((const uint8_t *) data)[i]) * 0x100000001b3ull;
    }
    return hash;
}

static bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The vectors of the layers, by name: weights of norms, biases. Not those of layers after the last, which draft and are loaded
// only sometimes, nor the scales of weights, which belong to a quantization.
static std::map<std::string, const ggml_tensor *> vectors_of(const llama_model & model) {
    std::map<std::string, const ggml_tensor *> res;
    for (const auto & [name, t] : model.tensors_by_name) {
        unsigned il = 0;
        const bool is_layer = sscanf(name.c_str(), "blk.%u.", &il) == 1 && il < model.hparams.n_layer();
        const bool is_scale = ends_with(name, ".scale") || ends_with(name, ".input_scale");
        if (is_layer && !is_scale && t->type == GGML_TYPE_F32 && ggml_n_dims(t) == 1) {
            res.emplace(name, t);
        }
    }
    return res;
}

// get: (name, tensor) -> its bytes
template<typename F>
static uint64_t hash_of(const llama_model & model, F get) {
    const auto & hparams   = model.hparams;
    const auto   kv_layers = llama_turbo_kv_layers(model);
    if (kv_layers.empty()) {
        throw std::runtime_error("the model has no KV cache");
    }

    uint64_t res = LLAMA_KV_HASH_INIT;

    const std::string arch = model.arch_name();
    res = llama_kv_hash(res, arch.data(), arch.size());

    for (const uint32_t il : kv_layers) {
        for (const uint32_t x : { il, hparams.n_embd_head_k(il), hparams.n_head(il), hparams.n_head_kv(il) }) {
            res = llama_kv_hash(res, &x, sizeof(x));
        }
    }

    const auto vectors = vectors_of(model);
    for (const auto & [name, t] : vectors) {
        const std::vector<uint8_t> data = get(name, t);
        res = llama_kv_hash(res, name.data(), name.size());
        res = llama_kv_hash(res, data.data(), data.size());
    }
    // norms without weights, as in OLMo: only the name tells models of one shape apart
    if (vectors.empty()) {
        res = llama_kv_hash(res, model.name.data(), model.name.size());
    }
    return res;
}

uint64_t llama_kv_fingerprint(const llama_model & model) {
    if (llama_turbo_compat::no_alloc(model) || model.hparams.vocab_only) {
        throw std::runtime_error("the model was loaded without its weights");
    }
    return hash_of(model, [](const std::string &, const ggml_tensor * t) {
        std::vector<uint8_t> res(ggml_nbytes(t));
        ggml_backend_tensor_get(t, res.data(), 0, res.size());
        return res;
    });
}

//
// from the model's file
//

// files may have more bytes than a long counts
static bool seek(FILE * file, uint64_t offset) {
#if defined(_WIN32)
    return _fseeki64(file, offset, SEEK_SET) == 0;
#else
    return fseeko(file, offset, SEEK_SET) == 0;
#endif
}

namespace {

// the tensors of a GGUF, whose data stays in the file
struct part_t {
    std::unique_ptr<FILE, int (*)(FILE *)> file { nullptr, fclose };

    gguf_context_ptr gguf;

    explicit part_t(const std::string & path) {
        file.reset(ggml_fopen(path.c_str(), "rb"));
        if (file) {
            gguf.reset(gguf_init_from_file_ptr(file.get(), { /*.no_alloc =*/ true, /*.ctx =*/ nullptr }));
        }
        if (!gguf) {
            throw std::runtime_error("cannot read the model's file '" + path + "'");
        }
    }

    // false: it has no such tensor
    bool read(const std::string & name, std::vector<uint8_t> & data) const {
        const int64_t id = gguf_find_tensor(gguf.get(), name.c_str());
        if (id < 0) {
            return false;
        }
        const size_t offset = gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id);
        if (!seek(file.get(), offset) || fread(data.data(), 1, data.size(), file.get()) != data.size()) {
            throw std::runtime_error("the model's file ends within " + name);
        }
        return true;
    }
};

}

// of a model in several files, the path is that of the first
static std::vector<part_t> parts_of(const std::string & path) {
    std::vector<part_t> res;
    res.emplace_back(path);

    const int64_t id      = gguf_find_key(res[0].gguf.get(), "split.count");
    const int     n_split = id >= 0 && gguf_get_kv_type(res[0].gguf.get(), id) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(res[0].gguf.get(), id) : 1;

    std::vector<char> prefix(path.size() + 1);
    std::vector<char> part(path.size() + 64);
    for (int i = 1; i < n_split; ++i) {
        if (llama_split_prefix(prefix.data(), prefix.size(), path.c_str(), 0, n_split) <= 0) {
            throw std::runtime_error("'" + path + "' is not named as the first of " + std::to_string(n_split) + " files");
        }
        llama_split_path(part.data(), part.size(), prefix.data(), i, n_split);
        res.emplace_back(part.data());
    }
    return res;
}

uint64_t llama_kv_fingerprint(const llama_model & model, const std::string & path) {
    const auto parts = parts_of(path);
    return hash_of(model, [&](const std::string & name, const ggml_tensor * t) {
        std::vector<uint8_t> res(ggml_nbytes(t));
        for (const auto & part : parts) {
            if (part.read(name, res)) {
                return res;
            }
        }
        throw std::runtime_error("the model's file has no " + name);
    });
}
