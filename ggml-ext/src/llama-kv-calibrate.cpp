#include "llama-kv-calibrate.h"

#include "llama-cpp.h"
#include "llama-impl.h"
#include "llama-kv-calib-file.h"
#include "llama-kv-capture.h"
#include "llama-kv-scales.h"
#include "llama-model.h"
#include "llama-turbo-compat.h"
#include "llama-turbo.h"
#include "turbo-calibrate.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

static constexpr uint32_t N_BATCH = 512;
// fewer say little of a model
static constexpr uint32_t N_TOKENS_MIN = 256;
// of a quick fit, which has the time that a user does not notice. shorter contexts are run whole, down to the least
static constexpr uint32_t N_TOKENS_QUICK     = 256;
static constexpr uint32_t N_TOKENS_QUICK_MIN = 128;
// more take gigabytes: keys and values of all layers are kept until the end
static constexpr uint32_t N_TOKENS_MAX = 16384;
// queries that are looked at
static constexpr uint32_t N_QUERIES = 256;
// running the text takes about as long as fitting
static constexpr float PROGRESS_RUN = 0.5f;

// at least so many of the tokens of the text that comes with the library are different ones: where the vocabulary is not made for
// texts (DNA, notes, sounds), it is a row of unknown tokens, of which nothing is to be learnt
static constexpr size_t N_DISTINCT_MIN = 16;

namespace {

// what a fit is asked for
struct job_t {
    llama_kv_calibrate_params params;

    ggml_abort_callback abort_callback      = nullptr;
    void *              abort_callback_data = nullptr;

    // throws llama_kv_calibrate_stopped
    void report(float progress) const {
        const bool aborted = abort_callback && abort_callback(abort_callback_data);
        if (aborted || (params.progress_callback && !params.progress_callback(progress, params.progress_callback_user_data))) {
            throw llama_kv_calibrate_stopped();
        }
    }
};

}

// why the model cannot be run for a fit; empty: it can
static std::string why_not_run(const llama_model & model) {
    const std::string why = llama_kv_scales_why_not(model);
    if (!why.empty()) {
        return why;
    }
    if (model.arch == LLM_ARCH_GROK) {
        return "flash attention, which is watched, cannot be had for Grok";
    }
    if (llama_model_has_encoder(&model)) {
        return "the model has an encoder, which a text alone does not run";
    }
    if (llama_vocab_type(llama_model_get_vocab(&model)) == LLAMA_VOCAB_TYPE_NONE) {
        return "the model has no vocabulary to cut a text into tokens with";
    }
    return "";
}

std::string llama_kv_calibrate_why_not(const llama_model & model) {
    const std::string why = why_not_run(model);
    if (why.empty() && model.hparams.n_ctx_train < N_TOKENS_QUICK_MIN) {
        return format("the model's context has %u tokens, and %u are needed", model.hparams.n_ctx_train, N_TOKENS_QUICK_MIN);
    }
    return why;
}

static void check(const llama_model & model) {
    if (llama_turbo_compat::no_alloc(model) || model.hparams.vocab_only) {
        throw std::runtime_error("the model was loaded without its weights");
    }
    const std::string why = why_not_run(model);
    if (!why.empty()) {
        throw std::runtime_error(why);
    }
}

// whether the vocabulary has the tokens that it wants to be added. where it lacks them, llama_tokenize aborts
static bool has_added(const llama_vocab * vocab) {
    const bool wpm = llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_WPM;
    const auto has = [](llama_token token) { return token != LLAMA_TOKEN_NULL; };
    return (has(llama_vocab_bos(vocab)) || !(llama_vocab_get_add_bos(vocab) || wpm)) &&
           (has(llama_vocab_eos(vocab)) || !llama_vocab_get_add_eos(vocab)) &&
           (has(llama_vocab_sep(vocab)) || !wpm);
}

static std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text) {
    const bool add_special = has_added(vocab);
    const auto tokenize = [&](std::vector<llama_token> & tokens) {
        return llama_tokenize(vocab, text.data(), text.size(), tokens.data(), tokens.size(), add_special, false);
    };
    std::vector<llama_token> res;
    int32_t n;
    try {
        res.resize(std::max(0, -tokenize(res)));
        n = tokenize(res);
    } catch (const std::out_of_range &) {
        throw std::runtime_error("the model's vocabulary has no tokens for some of the text's characters, nor for their bytes");
    }
    if (n < 0) {
        throw std::runtime_error("the text cannot be cut into tokens");
    }
    res.resize(n);
    return res;
}

// the tokens to run
static std::vector<llama_token> tokens_of(const llama_model & model, const llama_kv_calibrate_params & params, uint32_t n_min) {
    size_t n_text;
    const std::string text = params.text ? params.text : tq_calibration_text(&n_text);

    auto res = tokenize(llama_model_get_vocab(&model), text);

    const size_t n      = res.size();
    const size_t n_want = params.n_tokens > 0 ? params.n_tokens : llama_kv_calibrate_default_params().n_tokens;
    if (n_want > N_TOKENS_MAX) {
        throw std::runtime_error(format("%zu tokens are too many: at most %u", n_want, N_TOKENS_MAX));
    }
    res.resize(std::min<size_t>({ n, n_want, model.hparams.n_ctx_train }));
    if (res.size() < n_min) {
        throw std::runtime_error(format("%zu tokens are too few, %u are needed: the text has %zu, %zu were asked for, and the model's context has %u",
                res.size(), n_min, n, n_want, model.hparams.n_ctx_train));
    }
    const size_t n_distinct = std::set<llama_token>(res.begin(), res.end()).size();
    if (!params.text && n_distinct < N_DISTINCT_MIN) {
        throw std::runtime_error(format("the model's vocabulary is not made for texts: %zu tokens of one are only %zu different ones. "
                "calibrate with what the model is made for (turboquant calibrate -f)", res.size(), n_distinct));
    }
    return res;
}

static void run(llama_model & model, std::vector<llama_token> & tokens, llama_kv_capture & capture, int32_t n_threads) {
    auto cparams = llama_context_default_params();
    cparams.n_ctx           = tokens.size();
    cparams.n_batch         = N_BATCH;
    cparams.n_ubatch        = N_BATCH;
    cparams.n_seq_max       = 1;
    cparams.n_threads       = n_threads;
    cparams.n_threads_batch = n_threads;
    cparams.type_k          = GGML_TYPE_F16;
    cparams.type_v          = GGML_TYPE_F16;
    cparams.kv_anchors      = LLAMA_KV_ANCHORS_OFF;
    cparams.kv_calib        = "off";
    cparams.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    cparams.swa_full        = true; // cell i has token i
    cparams.cb_eval           = llama_kv_capture::callback;
    cparams.cb_eval_user_data = &capture;

    llama_context_ptr ctx { llama_init_from_model(&model, cparams) };
    if (!ctx) {
        throw std::runtime_error("no context with an f16 cache can be made");
    }
    if (!llama_get_memory(ctx.get())) {
        throw llama_kv_no_cache(model.arch_name());
    }

    for (uint32_t pos = 0; pos < tokens.size(); pos += N_BATCH) {
        const uint32_t n = std::min<uint32_t>(N_BATCH, tokens.size() - pos);
        capture.begin(pos, n);

        const int32_t ret = llama_decode(ctx.get(), llama_batch_get_one(tokens.data() + pos, n));
        capture.check();
        if (ret != 0) {
            throw std::runtime_error(format("the model failed on tokens %u to %u", pos, pos + n - 1));
        }
    }
}

static std::vector<float> to_f32(const std::vector<ggml_fp16_t> & x) {
    std::vector<float> res(x.size());
    ggml_fp16_to_fp32_row(x.data(), res.data(), x.size());
    return res;
}

// the scales of a layer's keys. heads: of every KV head
static std::vector<float> fit(const llama_model & model, uint32_t il, const llama_kv_capture::layer_t & layer, uint32_t n_tokens, uint32_t n_threads, std::vector<tq_fit_head> & heads) {
    const auto k = to_f32(layer.k);
    const auto v = to_f32(layer.v);

    std::vector<tq_fit_queries> queries;
    for (const auto & set : layer.queries) {
        tq_fit_queries cur = {};
        cur.q        = set.q.data();
        cur.mask     = set.mask.data();
        cur.sinks    = set.sinks.empty() ? nullptr : set.sinks.data();
        cur.n_q      = set.n_q();
        cur.n_head   = set.n_head;
        cur.scale    = set.scale;
        cur.softcap  = set.softcap;
        cur.max_bias = set.max_bias;
        queries.push_back(cur);
    }

    tq_fit_layer args = {};
    args.k          = k.data();
    args.v          = v.data();
    args.n_kv       = n_tokens;
    args.n_head_kv  = layer.n_head_kv;
    args.head_dim   = layer.n_embd_head_k;
    args.head_dim_v = layer.n_embd_head_v;
    args.rope       = llama_kv_scales::rope_of(model);
    args.n_rot      = args.rope == TQ_ROPE_NONE ? 0 : model.hparams.n_rot(il);
    args.queries    = queries.data();
    args.n_queries  = queries.size();

    std::vector<float> res(args.n_head_kv*args.head_dim);
    heads.resize(args.n_head_kv);

    char why[512];
    if (!tq_fit_key_scales(&args, n_threads, res.data(), heads.data(), why, sizeof(why))) {
        throw std::runtime_error(format("layer %u: %s", il, why));
    }
    return res;
}

// n_min: tokens that are enough
static llama_kv_calib_file fit_model(llama_model & model, const job_t & job, uint32_t n_min) {
    const auto & params = job.params;

    // more threads than cores gain nothing, and there may not be as many as somebody asked for
    const int32_t n_cores   = std::max(1u, std::thread::hardware_concurrency());
    const int32_t n_threads = params.n_threads > 0 ? std::min(params.n_threads, n_cores) : n_cores;

    check(model);
    auto tokens = tokens_of(model, params, n_min);

    const auto kv_layers = llama_turbo_kv_layers(model);

    llama_kv_capture capture(tokens.size(), std::max<uint32_t>(1, tokens.size()/N_QUERIES), [&](uint32_t pos, uint32_t n_batch, uint32_t n_layers) {
        // more layers than have keys of their own: some share them
        const float share = std::min(1.0f, (float) n_layers/kv_layers.size());
        job.report(PROGRESS_RUN*(pos + n_batch*share)/tokens.size());
    });
    run(model, tokens, capture, n_threads);

    llama_kv_calib_file file;
    file.n_tokens = tokens.size();

    for (size_t i = 0; i < kv_layers.size(); ++i) {
        const uint32_t il = kv_layers[i];

        const auto it = capture.layers().find(il);
        if (it == capture.layers().end() || it->second.k.empty()) {
            throw std::runtime_error(format("no attention to the keys of layer %u was seen: the model's graph (%s) does not read them as others do", il, model.arch_name().c_str()));
        }

        std::vector<tq_fit_head> heads;
        auto & layer = file.layers[il];
        layer.scale = fit(model, il, it->second, tokens.size(), n_threads, heads);

        llama_kv_calibrate_layer cur = {};
        cur.il        = il;
        cur.n_head_kv = heads.size();
        for (const auto & head : heads) {
            cur.n_scaled      += head.power != 0.0f;
            cur.error_without += head.error_without/heads.size();
            cur.error_with    += head.error_with   /heads.size();
        }
        layer.error_without = cur.error_without;
        layer.error_with    = cur.error_with;
        if (params.layer_callback) {
            params.layer_callback(&cur, params.layer_callback_user_data);
        }
        job.report(PROGRESS_RUN + (1.0f - PROGRESS_RUN)*(i + 1)/kv_layers.size());
    }

    return file;
}

void llama_kv_calibrate_to(llama_model & model, const std::string & path, const llama_kv_calibrate_params & params) {
    fit_model(model, { params }, N_TOKENS_MIN).write(model, path);
}

//
// quick
//

namespace {

// who is told how far quick fits are
struct {
    std::mutex mutex;

    llama_progress_callback callback  = nullptr;
    void *                  user_data = nullptr;
} quick_progress;

}

void llama_kv_fit_set_progress(llama_progress_callback callback, void * user_data) {
    std::lock_guard<std::mutex> lock(quick_progress.mutex);
    quick_progress.callback  = callback;
    quick_progress.user_data = user_data;
}

llama_kv_calib_file llama_kv_calibrate_quick(llama_model & model, const llama_context_params & cparams) {
    job_t job = { llama_kv_calibrate_default_params(), cparams.abort_callback, cparams.abort_callback_data };
    job.params.n_tokens  = N_TOKENS_QUICK;
    job.params.n_threads = cparams.n_threads_batch;
    {
        std::lock_guard<std::mutex> lock(quick_progress.mutex);
        job.params.progress_callback           = quick_progress.callback;
        job.params.progress_callback_user_data = quick_progress.user_data;
    }
    // the context that runs the text is nobody's concern
    const llama_turbo_mute mute;
    job.report(0.0f);
    return fit_model(model, job, N_TOKENS_QUICK_MIN);
}

//
// C API
//

llama_kv_calibrate_params llama_kv_calibrate_default_params() {
    llama_kv_calibrate_params res = {};
    res.n_tokens = 2048;
    return res;
}

bool llama_kv_calibrate(llama_model * model, const char * path_out, llama_kv_calibrate_params params) {
    try {
        if (!model || !path_out) {
            throw std::runtime_error(!model ? "model is NULL" : "path_out is NULL");
        }
        llama_kv_calibrate_to(*model, path_out, params);
        return true;
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: cannot calibrate: %s\n", __func__, err.what());
    }
    return false;
}

uint64_t llama_model_kv_fingerprint(const llama_model * model) {
    try {
        if (!model) {
            throw std::runtime_error("model is NULL");
        }
        return llama_kv_fingerprint(*model);
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err.what());
    }
    return 0;
}
