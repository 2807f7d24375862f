#include "llama-kv-calib-file.h"

#include "gguf.h"
#include "llama-impl.h"
#include "llama-kv-scales.h"
#include "llama-model.h"
#include "llama-turbo.h"

#include <cinttypes>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <system_error>

#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

static const char * const KEY_TYPE          = "general.type";
static const char * const TYPE              = "kv-calibration";
static const char * const KEY_VERSION       = "kvcal.version";
static const char * const KEY_FINGERPRINT   = "kvcal.fingerprint";
static const char * const KEY_MODEL         = "kvcal.model";
static const char * const KEY_N_TOKENS      = "kvcal.n_tokens";
static const char * const KEY_LAYERS        = "kvcal.layers";
static const char * const KEY_ERROR_WITHOUT = "kvcal.error_without";
static const char * const KEY_ERROR_WITH    = "kvcal.error_with";

static std::string tensor_name(uint32_t il) {
    return format("blk.%u.k_scale", il);
}

static std::string fingerprint_text(uint64_t fingerprint) {
    return format("%016" PRIx64, fingerprint);
}

static std::string model_text(const llama_model & model) {
    return model.name.empty() ? model.arch_name() : model.name;
}

uint64_t llama_kv_calib_file::id() const {
    uint64_t res = LLAMA_KV_HASH_INIT;
    for (const auto & [_, layer] : layers) {
        res = llama_kv_hash(res, layer.scale.data(), layer.scale.size()*sizeof(float));
    }
    return res;
}

//
// read
//

namespace {

// a GGUF that is open
struct reader {
    const std::string & path;

    gguf_context_ptr gguf;
    ggml_context_ptr ctx;

    [[noreturn]] void fail(const std::string & what) const {
        throw std::runtime_error("key scales of '" + path + "': " + what);
    }

    FILE * file = nullptr;

    ~reader() {
        if (file) {
            fclose(file);
        }
    }

    // without the tensors' data: it may be a whole model
    void open() {
        ggml_context * ctx_data = nullptr;
        file = ggml_fopen(path.c_str(), "rb");
        if (file) {
            gguf.reset(gguf_init_from_file_ptr(file, { /*.no_alloc =*/ true, /*.ctx =*/ &ctx_data }));
        }
        ctx.reset(ctx_data);
        if (!gguf) {
            fail("the file is no GGUF, or damaged. make it again (turboquant calibrate)");
        }
    }

    // the values of a tensor, whose type and shape have been checked
    std::vector<float> values(const ggml_tensor * t) {
        const int64_t id     = gguf_find_tensor(gguf.get(), t->name);
        const size_t  offset = gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id);

        std::vector<float> res(ggml_nelements(t));
        if (fseek(file, offset, SEEK_SET) != 0 || fread(res.data(), sizeof(float), res.size(), file) != res.size()) {
            fail(std::string("the file is damaged: it ends within ") + t->name + ". make it again (turboquant calibrate)");
        }
        return res;
    }

    int64_t find(const char * key, gguf_type type) const {
        const int64_t id = gguf_find_key(gguf.get(), key);
        if (id < 0 || gguf_get_kv_type(gguf.get(), id) != type) {
            fail(std::string("the file is damaged: no ") + key + ". make it again (turboquant calibrate)");
        }
        return id;
    }

    std::string str(const char * key) const { return gguf_get_val_str(gguf.get(), find(key, GGUF_TYPE_STRING)); }
    uint32_t    u32(const char * key) const { return gguf_get_val_u32(gguf.get(), find(key, GGUF_TYPE_UINT32)); }

    // one number for every layer
    template<typename T>
    std::vector<T> arr(const char * key, gguf_type type, size_t n) const {
        const int64_t id = find(key, GGUF_TYPE_ARRAY);
        if (gguf_get_arr_type(gguf.get(), id) != type || gguf_get_arr_n(gguf.get(), id) != n) {
            fail(std::string("the file is damaged: ") + key + " has not one number for each of " + std::to_string(n) + " layers");
        }
        const T * data = (const T *) gguf_get_arr_data(gguf.get(), id);
        return std::vector<T>(data, data + n);
    }
};

}

// [n_head_kv][n_embd_head_k]
static std::vector<float> read_scale(reader & file, const llama_model & model, uint32_t il) {
    const ggml_tensor * t = ggml_get_tensor(file.ctx.get(), tensor_name(il).c_str());
    if (!t) {
        file.fail("the file is damaged: no " + tensor_name(il));
    }
    const int64_t n_embd_head = model.hparams.n_embd_head_k(il);
    const int64_t n_head_kv   = model.hparams.n_head_kv(il);

    if (t->type != GGML_TYPE_F32 || t->ne[0] != n_embd_head || t->ne[1] != n_head_kv || ggml_nelements(t) != n_embd_head*n_head_kv) {
        file.fail(format("%s is %s [%d, %d], layer %u of the model needs f32 [%d, %d]", t->name, ggml_type_name(t->type),
                (int) t->ne[0], (int) t->ne[1], il, (int) n_embd_head, (int) n_head_kv));
    }

    const auto res   = file.values(t);
    const auto pairs = llama_kv_scales::rope_pairs(model, il);
    for (int64_t h = 0; h < n_head_kv; ++h) {
        const float * s = res.data() + h*n_embd_head;
        for (int64_t i = 0; i < n_embd_head; ++i) {
            if (!(s[i] >= 1e-3f && s[i] <= 1e3f)) {
                file.fail(format("%s has scale %g for channel %d of head %d: expected 0.001 to 1000", t->name, s[i], (int) i, (int) h));
            }
        }
        for (const auto & [a, b] : pairs) {
            if (s[a] != s[b]) {
                file.fail(format("%s has scales %g and %g for channels %u and %u of head %d, which RoPE turns together: they have to be the same",
                        t->name, s[a], s[b], a, b, (int) h));
            }
        }
    }
    return res;
}

llama_kv_calib_file llama_kv_calib_file::read(const llama_model & model, const std::string & path) {
    return read(model, llama_kv_fingerprint(model), path);
}

llama_kv_calib_file llama_kv_calib_file::read(const llama_model & model, uint64_t fingerprint, const std::string & path) {
    reader file { path, {}, {} };

    std::error_code ec;
    if (!std::filesystem::is_regular_file(std::filesystem::u8path(path), ec)) {
        file.fail(std::filesystem::exists(std::filesystem::u8path(path), ec) ? "that is not a file" :
                "there is no such file. make it with turboquant calibrate, or use --kv-calib auto");
    }

    file.open();
    const int64_t id_type = gguf_find_key(file.gguf.get(), KEY_TYPE);
    if (id_type < 0 || gguf_get_kv_type(file.gguf.get(), id_type) != GGUF_TYPE_STRING || strcmp(gguf_get_val_str(file.gguf.get(), id_type), TYPE) != 0) {
        file.fail("this GGUF is not a calibration. make one with turboquant calibrate");
    }
    const uint32_t version = file.u32(KEY_VERSION);
    if (version != VERSION) {
        file.fail(format("the file is of version %u, this program reads version %u. make it again (turboquant calibrate)", version, VERSION));
    }
    const std::string theirs = file.str(KEY_FINGERPRINT);
    const std::string ours   = fingerprint_text(fingerprint);
    if (theirs != ours) {
        file.fail(format("they are of another model: %s (fingerprint %s), but this is %s (%s). calibrate this one",
                file.str(KEY_MODEL).c_str(), theirs.c_str(), model_text(model).c_str(), ours.c_str()));
    }

    llama_kv_calib_file res;
    res.n_tokens = file.u32(KEY_N_TOKENS);

    const auto kv_layers = llama_turbo_kv_layers(model);
    if (file.arr<uint32_t>(KEY_LAYERS, GGUF_TYPE_UINT32, kv_layers.size()) != kv_layers) {
        file.fail("the file is damaged: its layers are not the model's");
    }
    const auto error_without = file.arr<float>(KEY_ERROR_WITHOUT, GGUF_TYPE_FLOAT32, kv_layers.size());
    const auto error_with    = file.arr<float>(KEY_ERROR_WITH,    GGUF_TYPE_FLOAT32, kv_layers.size());

    for (size_t i = 0; i < kv_layers.size(); ++i) {
        res.layers[kv_layers[i]] = { read_scale(file, model, kv_layers[i]), error_without[i], error_with[i] };
    }
    return res;
}

//
// write
//

// A file that is renamed before its data is on the disk may be empty after the power fails. Where this fails, that is
// what can happen: such a file is refused when it is read.
static void sync_file(const std::string & path) {
#if defined(_WIN32)
    if (FILE * file = ggml_fopen(path.c_str(), "rb+")) {
        _commit(_fileno(file));
        fclose(file);
    }
#else
    const int fd = open(path.c_str(), O_RDONLY);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
#endif
}

void llama_kv_calib_file::write(const llama_model & model, const std::string & path) const {
    namespace fs = std::filesystem;

    gguf_context_ptr gguf { gguf_init_empty() };

    gguf_set_val_str(gguf.get(), KEY_TYPE, TYPE);
    gguf_set_val_str(gguf.get(), "general.architecture", model.arch_name().c_str());
    gguf_set_val_u32(gguf.get(), KEY_VERSION, VERSION);
    gguf_set_val_str(gguf.get(), KEY_FINGERPRINT, fingerprint_text(llama_kv_fingerprint(model)).c_str());
    gguf_set_val_str(gguf.get(), KEY_MODEL, model_text(model).c_str());
    gguf_set_val_u32(gguf.get(), KEY_N_TOKENS, n_tokens);

    std::vector<uint32_t> ils;
    std::vector<float>    error_without;
    std::vector<float>    error_with;

    ggml_context_ptr ctx { ggml_init({ /*.mem_size =*/ layers.size()*ggml_tensor_overhead(), /*.mem_buffer =*/ nullptr, /*.no_alloc =*/ true }) };
    for (const auto & [il, layer] : layers) {
        ils.push_back(il);
        error_without.push_back(layer.error_without);
        error_with   .push_back(layer.error_with);

        const int64_t n_head_kv = model.hparams.n_head_kv(il);
        ggml_tensor * t = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, layer.scale.size()/n_head_kv, n_head_kv);
        ggml_set_name(t, tensor_name(il).c_str());
        gguf_add_tensor(gguf.get(), t);
        gguf_set_tensor_data(gguf.get(), t->name, layer.scale.data());
    }
    gguf_set_arr_data(gguf.get(), KEY_LAYERS,        GGUF_TYPE_UINT32,  ils.data(),           ils.size());
    gguf_set_arr_data(gguf.get(), KEY_ERROR_WITHOUT, GGUF_TYPE_FLOAT32, error_without.data(), error_without.size());
    gguf_set_arr_data(gguf.get(), KEY_ERROR_WITH,    GGUF_TYPE_FLOAT32, error_with.data(),    error_with.size());

    // whole, or not at all: others may be reading, or writing the same
    const int64_t id_last = gguf_get_n_tensors(gguf.get()) - 1;
    const size_t  size    = gguf_get_meta_size(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id_last)
        + GGML_PAD(gguf_get_tensor_size(gguf.get(), id_last), gguf_get_alignment(gguf.get()));

    const std::string part = path + format(".%08x.part", (unsigned) std::random_device()());
    std::error_code ec;
    if (!gguf_write_to_file(gguf.get(), part.c_str(), /*only_meta =*/ false) || fs::file_size(fs::u8path(part), ec) != size) {
        fs::remove(fs::u8path(part), ec);
        throw std::runtime_error("cannot write '" + path + "': is its folder there and writable, and the disk not full?");
    }
    sync_file(part);
    fs::rename(fs::u8path(part), fs::u8path(path), ec);
    if (ec) {
        const std::string why = ec.message();
        fs::remove(fs::u8path(part), ec);
        throw std::runtime_error("cannot write '" + path + "': " + why);
    }
}
