#include "llama-kv-fit.h"

#include "llama-context.h"
#include "llama-cpp.h"
#include "llama-impl.h"
#include "llama-kv-calibrate.h"
#include "llama-kv-scales.h"
#include "llama-model.h"
#include "llama-turbo-compat.h"
#include "llama-turbo.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cinttypes>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <stdexcept>

namespace fs = std::filesystem;

using fit_ptr = std::shared_ptr<const llama_kv_fit>;

static const char * const LOG_NAME = "llama_kv_fit";

// of the quick fit: one that is kept under another number is not read
static constexpr unsigned QUICK_VERSION = 1;

//
// the folder
//

static fs::path env(const char * name) {
#if defined(_WIN32)
    const wchar_t * value = _wgetenv(std::wstring(name, name + strlen(name)).c_str());
#else
    const char * value = getenv(name);
#endif
    return value && *value ? fs::path(value) : fs::path();
}

// the folder for fits. empty: the system names none
static fs::path calib_folder() {
    fs::path res = env("TQ_KV_CALIB_DIR");
    if (!res.empty()) {
        return res;
    }
    res = env("LLAMA_CACHE");
    if (!res.empty()) {
        return res / "kv-calib";
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
    return res.empty() ? res : res / "llama.cpp" / "kv-calib";
}

// files of a model in the folder
struct kept_files {
    fs::path thorough;
    fs::path quick;

    kept_files(const fs::path & folder, uint64_t fingerprint) {
        const std::string name = format("%016" PRIx64 "-v%u", fingerprint, llama_kv_calib_file::VERSION);

        thorough = folder / (name + ".gguf");
        quick    = folder / (name + format("-quick%u.gguf", QUICK_VERSION));
    }
};

// whether a file in the folder is one of ours that was not written to its end. the folder may have others: a user names it
static bool is_part(const fs::path & path) {
    const std::string name = path.filename().u8string();
    return path.extension() == ".part" && name.size() > 18 && name.compare(16, 2, "-v") == 0 &&
        std::all_of(name.begin(), name.begin() + 16, [](unsigned char c) { return std::isxdigit(c); });
}

// What a process that was killed while it wrote has left. Nobody takes an hour to write a small file.
static void sweep(const fs::path & folder) {
    std::error_code ec;
    for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
        std::error_code ignored;
        const auto age = fs::file_time_type::clock::now() - fs::last_write_time(it->path(), ignored);
        if (!ignored && is_part(it->path()) && age > std::chrono::hours(1)) {
            fs::remove(it->path(), ignored);
        }
    }
}

// throws std::runtime_error with the reason
static void keep(const llama_kv_calib_file & data, const llama_model & model, const fs::path & path) {
    const fs::path folder = path.parent_path();

    std::error_code ec;
    fs::create_directories(folder, ec);
    if (ec) {
        throw std::runtime_error("cannot make the folder '" + folder.u8string() + "': " + ec.message());
    }
    sweep(folder);
    data.write(model, path.u8string());
}

//
// fits
//

static fit_ptr new_fit(llama_kv_fit_type type, const std::string & source, llama_kv_calib_file data) {
    auto res = std::make_shared<llama_kv_fit>();
    res->type   = type;
    res->source = source;
    res->data   = std::move(data);
    res->id     = res->data.id();
    return res;
}

// null: there is no such file, or it is of no use, which the log says
static fit_ptr read_kept(const llama_model & model, uint64_t fingerprint, const fs::path & path, llama_kv_fit_type type) {
    std::error_code ec;
    if (!fs::exists(path, ec)) {
        return nullptr;
    }
    try {
        return new_fit(type, path.u8string(), llama_kv_calib_file::read(model, fingerprint, path.u8string()));
    } catch (const std::exception & err) {
        LLAMA_LOG_WARN("%s: a file in the cache is ignored: %s\n", LOG_NAME, err.what());
    }
    return nullptr;
}

// Makes a quick fit, and keeps it if that can be. A fit that cannot be kept serves this process.
static fit_ptr make(llama_model & model, const llama_context_params & params, const fs::path & path) {
    LLAMA_LOG_INFO("%s: calibrating key scales, once for this model (a quick fit; --kv-calib off leaves them out)\n", LOG_NAME);

    const int64_t t_begin = ggml_time_us();
    llama_kv_calib_file data;
    try {
        data = llama_kv_calibrate_quick(model, params);
    } catch (const llama_kv_no_cache &) {
        throw;
    } catch (const llama_kv_calibrate_stopped &) {
        throw;
    } catch (const std::exception & err) {
        // what cannot be run can still have norms
        if (llama_kv_calib_of_norms(model, data)) {
            LLAMA_LOG_INFO("%s: key scales are those of the weights of q and k norms: %s\n", LOG_NAME, err.what());
            return new_fit(LLAMA_KV_FIT_NORMS, "", std::move(data));
        }
        throw;
    }
    LLAMA_LOG_INFO("%s: calibrated in %.1f s\n", LOG_NAME, 1e-6*(ggml_time_us() - t_begin));

    std::string why = "no cache folder is known";
    if (!path.empty()) {
        try {
            keep(data, model, path);
            return new_fit(LLAMA_KV_FIT_QUICK, path.u8string(), std::move(data));
        } catch (const std::exception & err) {
            why = err.what();
        }
    }
    LLAMA_LOG_WARN("%s: the key scales are not kept, and the next start fits them again: %s. set LLAMA_CACHE to a folder that is writable\n",
            LOG_NAME, why.c_str());
    return new_fit(LLAMA_KV_FIT_QUICK, "", std::move(data));
}

// Fits that this process has made, by file or, without a folder, by fingerprint: a file may be gone, or never was. Or why
// one cannot be made. Neither: the model has no cache.
struct made_t {
    fit_ptr     fit;
    std::string why_not;
};

// null: the model has no cache. throws std::runtime_error
static fit_ptr find_kept(llama_model & model, const llama_context_params & params) {
    // Contexts of other threads wait for the fit instead of making it, too.
    static std::mutex mutex;
    static std::map<std::string, made_t> made;

    // A callback that is told of a fit may create contexts, too. They cannot wait for what they are a part of.
    static thread_local bool is_fitting = false;
    if (is_fitting) {
        throw std::runtime_error("the context is created by a callback of a fit, which has to end first");
    }

    const fs::path   folder      = calib_folder();
    const uint64_t   fingerprint = llama_kv_fingerprint(model);
    const kept_files files(folder, fingerprint);

    std::lock_guard<std::mutex> lock(mutex);

    if (!folder.empty()) {
        if (auto fit = read_kept(model, fingerprint, files.thorough, LLAMA_KV_FIT_THOROUGH)) {
            return fit;
        }
    }
    const std::string key = files.quick.u8string();
    if (const auto it = made.find(key); it != made.end()) {
        if (!it->second.why_not.empty()) {
            throw std::runtime_error(it->second.why_not);
        }
        return it->second.fit;
    }
    if (!folder.empty()) {
        if (auto fit = read_kept(model, fingerprint, files.quick, LLAMA_KV_FIT_QUICK)) {
            return fit;
        }
    }
    struct fitting_t {
        fitting_t()  { is_fitting = true; }
        ~fitting_t() { is_fitting = false; }
    } fitting;
    try {
        return made[key].fit = make(model, params, folder.empty() ? fs::path() : files.quick);
    } catch (const llama_kv_no_cache &) {
        return made[key].fit;
    } catch (const llama_kv_calibrate_stopped &) {
        throw;
    } catch (const std::exception & err) {
        made[key].why_not = err.what();
        throw;
    }
}

// Why no text is run for a context that drafts; empty: it can be. A draft model of its own is a model like any, though its context
// may know the target's (ctx_other).
static std::string why_not_draft(const llama_model & model, const llama_context_params & params) {
    if (params.ctx_type != LLAMA_CONTEXT_TYPE_DEFAULT) {
        return "the context drafts by layers of its own (MTP), which a text alone does not run";
    }
    switch (model.arch) {
        case LLM_ARCH_DFLASH:
        case LLM_ARCH_EAGLE3:
        case LLM_ARCH_GEMMA4_ASSISTANT:
            return "the model (" + model.arch_name() + ") drafts from what its target computes, and cannot be run by itself";
        default:
            return "";
    }
}

fit_ptr llama_kv_fit_find(llama_model & model, const llama_context_params & params) {
    const std::string wanted = params.kv_calib ? params.kv_calib : "";

    // a model without data is there to measure memory, of which scales take next to nothing
    if (wanted == "off" || llama_turbo_compat::no_alloc(model) || model.hparams.vocab_only) {
        return nullptr;
    }
    if (wanted.empty() && !llama_turbo_any_turbo_k(model, params)) {
        return nullptr;
    }
    const bool by_default = wanted.empty() || wanted == "try";
    // recurrent models have nothing that scales could be for
    if (by_default && llama_turbo_kv_layers(model).empty()) {
        return nullptr;
    }

    std::string why = llama_kv_scales_why_not(model);
    if (why.empty()) {
        why = llama_turbo_why_not_rotated(model, params);
    }
    if (by_default && why.empty()) {
        why = why_not_draft(model, params);
    }
    if (!why.empty()) {
        if (!by_default) {
            throw std::runtime_error("key scales (kv_calib, --kv-calib) cannot be: " + why + ". leave them out");
        }
        LLAMA_LOG_INFO("%s: key scales are off: %s\n", LOG_NAME, why.c_str());
        return nullptr;
    }

    if (!by_default && wanted != "auto") {
        return new_fit(LLAMA_KV_FIT_FILE, wanted, llama_kv_calib_file::read(model, wanted));
    }

    try {
        auto res = find_kept(model, params);
        if (!res && !by_default) {
            throw llama_kv_no_cache(model.arch_name());
        }
        return res;
    } catch (const std::exception & err) {
        if (!by_default) {
            throw std::runtime_error(std::string("key scales: cannot calibrate: ") + err.what());
        }
        LLAMA_LOG_WARN("%s: key scales are off: cannot calibrate: %s. quantized keys are less precise without them\n", LOG_NAME, err.what());
    }
    return nullptr;
}

std::string llama_kv_fit_kept_as(const llama_model & model, uint64_t id) {
    const fs::path folder = calib_folder();
    if (folder.empty()) {
        return "";
    }
    try {
        const uint64_t   fingerprint = llama_kv_fingerprint(model);
        const kept_files files(folder, fingerprint);
        std::error_code  ec;
        for (const auto & path : { files.thorough, files.quick }) {
            if (fs::exists(path, ec) && llama_kv_calib_file::read(model, fingerprint, path.u8string()).id() == id) {
                return path.u8string();
            }
        }
    } catch (const std::exception &) {
        // a damaged file is nobody's
    }
    return "";
}

static bool has_cache(llama_model & model) {
    // what is refused here is not what is asked about
    const llama_turbo_mute mute;
    auto cparams = llama_context_default_params();
    cparams.n_ctx    = 256;
    cparams.kv_calib = "off";
    const llama_context_ptr ctx { llama_init_from_model(&model, cparams) };
    return !ctx || llama_get_memory(ctx.get());
}

llama_kv_fit_outlook llama_kv_fit_expect(llama_model & model, const std::string & path) {
    llama_kv_fit_outlook res;

    if (llama_turbo_kv_layers(model).empty()) {
        res.why = "the model has no keys";
        return res;
    }
    res.why = llama_kv_scales_why_not(model);
    if (res.why.empty()) {
        res.why = why_not_draft(model, llama_context_default_params());
    }
    if (!res.why.empty()) {
        return res;
    }
    if (!has_cache(model)) {
        res.why = "the model has no KV cache";
        return res;
    }

    const fs::path folder = calib_folder();
    if (!folder.empty()) {
        const uint64_t   fingerprint = llama_kv_fingerprint(model, path);
        const kept_files files(folder, fingerprint);
        res.fit = read_kept(model, fingerprint, files.thorough, LLAMA_KV_FIT_THOROUGH);
        if (!res.fit) {
            res.fit = read_kept(model, fingerprint, files.quick, LLAMA_KV_FIT_QUICK);
        }
        if (res.fit) {
            res.type = res.fit->type;
            return res;
        }
    }

    res.why = llama_kv_calibrate_why_not(model);
    if (res.why.empty()) {
        res.type = LLAMA_KV_FIT_QUICK;
    } else if (llama_kv_calib_has_norms(model)) {
        res.type = LLAMA_KV_FIT_NORMS;
    }
    return res;
}

//
// scope
//

static thread_local fit_ptr scope_fit;

llama_kv_fit_scope::llama_kv_fit_scope(fit_ptr fit) : outer(std::move(scope_fit)) {
    scope_fit = std::move(fit);
}

llama_kv_fit_scope::~llama_kv_fit_scope() {
    scope_fit = std::move(outer);
}

fit_ptr llama_kv_fit_scope::current() {
    return scope_fit;
}

//
// C API
//

bool llama_kv_calib_keep(const llama_model * model, const char * path) {
    try {
        if (!model || !path) {
            throw std::runtime_error(!model ? "model is NULL" : "path is NULL");
        }
        const fs::path folder = calib_folder();
        if (folder.empty()) {
            throw std::runtime_error("no cache folder is known. set LLAMA_CACHE to one");
        }
        keep(llama_kv_calib_file::read(*model, path), *model, kept_files(folder, llama_kv_fingerprint(*model)).thorough);
        return true;
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: the calibration is not kept in the cache: %s\n", LOG_NAME, err.what());
    }
    return false;
}

llama_kv_fit_info llama_get_kv_fit(const llama_context * ctx) {
    llama_kv_fit_info res = { LLAMA_KV_FIT_NONE, 0, "" };
    if (ctx && ctx->kv_fit) {
        res.type   = ctx->kv_fit->type;
        res.id     = ctx->kv_fit->id;
        res.source = ctx->kv_fit->source.c_str();
    }
    return res;
}
