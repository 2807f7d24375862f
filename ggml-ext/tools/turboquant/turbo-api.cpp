#include "turbo-api.h"

#include "chat-auto-parser.h"
#include "chat.h"
#include "common.h"
#include "json-schema-to-grammar.h"
#include "log.h"
#include "turbo-chat-compat.h"
#include "turbo-limits.h"

#include "llama-context.h"
#include "llama-cpp.h"
#include "llama-kv-cache-dsa-iswa.h"
#include "llama-kv-cache-dsa.h"
#include "llama-kv-cache-dsv4.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache-msa.h"
#include "llama-kv-cache.h"
#include "llama-kv-fit.h"
#include "llama-memory-hybrid-idx.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"
#include "llama-turbo.h"

#include <cctype>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

// a buffer and not a string: to keep a message must not throw
static thread_local char error[1024] = "";

const char * tq_api_error(void) {
    return error;
}

template <typename F> static int32_t fence(F && call) {
    try {
        call();
        return 0;
    } catch (const std::exception & e) {
        snprintf(error, sizeof(error), "%s", e.what());
    } catch (...) {
        snprintf(error, sizeof(error), "unknown exception");
    }
    return -1;
}

//
// models and contexts
//

int32_t tq_model_load(const char * path, const llama_model_params * params, llama_model ** model) {
    return fence([&] { *model = llama_model_load_from_file(path, *params); });
}

int32_t tq_context_new(llama_model * model, const llama_context_params * params, llama_context ** ctx) {
    return fence([&] { *ctx = llama_init_from_model(model, *params); });
}

int32_t tq_lora_load(llama_model * model, const char * path, llama_adapter_lora ** lora) {
    return fence([&] { *lora = llama_adapter_lora_init(model, path); });
}

int32_t tq_lora_set(llama_context * ctx, llama_adapter_lora ** loras, size_t n, float * scales) {
    return fence([&] { llama_set_adapters_lora(ctx, loras, n, scales); });
}

int32_t tq_model_get_traits(const llama_model * model, tq_model_traits * traits) {
    return fence([&] {
        const auto & hparams = model->hparams;
        *traits = {
            /*.is_mla            =*/ hparams.is_mla(),
            /*.has_swa           =*/ hparams.swa_type != LLAMA_SWA_TYPE_NONE,
            /*.has_own_attention =*/ llama_turbo_has_own_attention(*model),
            /*.same_kv_types     =*/ hparams.is_mla() || model->arch == LLM_ARCH_DEEPSEEK4,
            /*.no_flash_attn     =*/ llama_turbo_no_flash_attention(*model) != nullptr,
            /*.n_pos_per_embd    =*/ hparams.n_pos_per_embd(),
            /*.n_pos             =*/ model->pos_embd ? (uint32_t) model->pos_embd->ne[1] : 0,
            /*.can_rank          =*/ model->cls != nullptr || model->cls_out != nullptr,
        };
    });
}

int32_t tq_model_get_kv_layers(const llama_model * model, tq_kv_layer * layers, size_t n_max, size_t * n) {
    return fence([&] {
        const auto & hparams = model->hparams;
        const auto   all     = llama_turbo_kv_layers(*model);
        for (size_t i = 0; i < all.size() && i < n_max; ++i) {
            const uint32_t il = all[i];
            layers[i] = { il, hparams.n_head_kv(il), hparams.n_embd_head_k(il), hparams.n_embd_head_v(il), hparams.is_swa(il) };
        }
        *n = all.size();
    });
}

static size_t total(const llama_memory_i & memory) {
    size_t res = 0;
    for (const auto & [_, size] : memory.memory_breakdown()) {
        res += size;
    }
    return res;
}

// a cache may be null
static void add_cache(tq_memory_use & use, const llama_kv_cache * cache) {
    if (cache) {
        use.k += cache->size_k_bytes();
        use.v += cache->size_v_bytes();
    }
}

static void add_cache(tq_memory_use & use, const llama_kv_cache_iswa & cache) {
    add_cache(use, cache.get_base());
    add_cache(use, cache.get_swa());
}

static void add_cache(tq_memory_use & use, const llama_kv_cache_dsa & cache) {
    add_cache(use, cache.get_mla());
    add_cache(use, cache.get_lid());
}

static void add_memory(tq_memory_use & use, const llama_memory_i & memory) {
    if (const auto * kv = dynamic_cast<const llama_kv_cache *>(&memory)) {
        add_cache(use, kv);
    } else if (const auto * iswa = dynamic_cast<const llama_kv_cache_iswa *>(&memory)) {
        add_cache(use, *iswa);
    } else if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid *>(&memory)) {
        add_cache(use, hybrid->get_mem_attn());
        if (const auto * idx = dynamic_cast<const llama_memory_hybrid_idx *>(&memory)) {
            add_cache(use, idx->get_mem_idx());
        }
        use.state += total(*hybrid->get_mem_recr());
    } else if (const auto * hybrid_iswa = dynamic_cast<const llama_memory_hybrid_iswa *>(&memory)) {
        add_cache(use, *hybrid_iswa->get_mem_attn());
        use.state += total(*hybrid_iswa->get_mem_recr());
    } else if (const auto * dsa = dynamic_cast<const llama_kv_cache_dsa *>(&memory)) {
        add_cache(use, *dsa);
    } else if (const auto * dsa_iswa = dynamic_cast<const llama_kv_cache_dsa_iswa *>(&memory)) {
        add_cache(use, *dsa_iswa->get_dsa());
        add_cache(use, dsa_iswa->get_swa());
    } else if (const auto * msa = dynamic_cast<const llama_kv_cache_msa *>(&memory)) {
        add_cache(use, msa->get_base());
        add_cache(use, msa->get_idx());
    } else if (const auto * dsv4 = dynamic_cast<const llama_kv_cache_dsv4 *>(&memory)) {
        add_cache(use, *dsv4->get_raw());
        add_cache(use, dsv4->get_csa());
        add_cache(use, dsv4->get_hca());
        add_cache(use, dsv4->get_lid());
        const size_t all = total(memory);
        use.state += all > use.k + use.v ? all - use.k - use.v : 0;
    } else {
        use.state += total(memory);
    }
}

int32_t tq_context_get_memory(const llama_context * ctx, tq_memory_use * sizes) {
    return fence([&] {
        *sizes = {};
        for (const auto & [_, size] : ctx->memory_breakdown()) {
            sizes->model   += size.model;
            sizes->compute += size.compute;
        }
        if (const auto * memory = ctx->get_memory()) {
            add_memory(*sizes, *memory);
        }
    });
}

int32_t tq_kv_calibrate(llama_model * model, const char * path, const llama_kv_calibrate_params * params, bool * done) {
    return fence([&] { *done = llama_kv_calibrate(model, path, *params); });
}

//
// text
//

int32_t tq_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t n_max, bool add_special, bool parse_special, int32_t * n) {
    return fence([&] { *n = llama_tokenize(vocab, text, text_len, tokens, n_max, add_special, parse_special); });
}

int32_t tq_token_to_piece(const llama_vocab * vocab, llama_token token, char * buf, int32_t length, bool special, int32_t * n) {
    return fence([&] { *n = llama_token_to_piece(vocab, token, buf, length, 0, special); });
}

int32_t tq_detokenize(const llama_vocab * vocab, const llama_token * tokens, int32_t n_tokens, char * text, int32_t n_max, bool remove_special, bool unparse_special, int32_t * n) {
    return fence([&] { *n = llama_detokenize(vocab, tokens, n_tokens, text, n_max, remove_special, unparse_special); });
}

struct tq_chat_template {
    common_chat_template      tmpl;
    common_chat_templates_ptr chats; // with tools
    const llama_vocab       * vocab;
    bool add_bos;
    bool add_eos;
};

static std::string special_piece(const llama_vocab * vocab, llama_token token) {
    return token == LLAMA_TOKEN_NULL ? "" : common_token_to_piece(vocab, token, true);
}

// upstream's chats log to stderr by themselves, not by llama.cpp's callback. its tools set the level anew
static void silence_chats() {
    static const bool once = [] {
        common_log_set_verbosity_thold(LOG_LEVEL_OUTPUT - 1);
        return true;
    }();
    GGML_UNUSED(once);
}

int32_t tq_chat_template_new(const llama_model * model, const char * source, bool own, tq_chat_template ** tmpl) {
    return fence([&] {
        silence_chats();
        const llama_vocab * vocab = llama_model_get_vocab(model);
        *tmpl = new tq_chat_template {
            common_chat_template(source, special_piece(vocab, llama_vocab_bos(vocab)), special_piece(vocab, llama_vocab_eos(vocab))),
            common_chat_templates_init(model, own ? "" : source),
            vocab,
            llama_vocab_get_add_bos(vocab),
            llama_vocab_get_add_eos(vocab),
        };
    });
}

void tq_chat_template_free(tq_chat_template * tmpl) {
    delete tmpl;
}

// a template that has no place for a system message gets it in front of the first other one
static std::vector<common_chat_msg> to_messages(const char ** roles, const char ** contents, size_t n, bool has_system) {
    std::vector<common_chat_msg> res;
    std::string system;
    for (size_t i = 0; i < n; ++i) {
        common_chat_msg msg;
        msg.role    = roles[i];
        msg.content = contents[i];
        if (!has_system && msg.role == "system") {
            system += msg.content + "\n";
            continue;
        }
        msg.content = system + msg.content;
        system.clear();
        res.push_back(std::move(msg));
    }
    return res;
}

int32_t tq_chat_template_apply(
        const tq_chat_template * tmpl,
        const char ** roles,
        const char ** contents,
        size_t        n,
        bool          add_assistant,
        tq_write      write,
        void        * user_data) {
    return fence([&] {
        autoparser::generation_params params;
        params.messages = json::array();
        for (const auto & msg : to_messages(roles, contents, n, tmpl->tmpl.original_caps().supports_system_role)) {
            params.messages.push_back(msg.to_json_oaicompat());
        }
        params.add_generation_prompt = add_assistant;
        params.add_bos = tmpl->add_bos;
        params.add_eos = tmpl->add_eos;
        const std::string prompt = turbo_chat_compat::text(common_chat_template_direct_apply(tmpl->tmpl, params));
        write(user_data, prompt.data(), prompt.size());
    });
}

struct tq_chat_prompt {
    common_chat_params        params;
    common_chat_parser_params parser;
};

static common_chat_templates_inputs to_inputs(const tq_chat_template & tmpl, const json & request) {
    const json & parallel = request.at("parallel_tool_calls");

    common_chat_templates_inputs res;
    res.messages              = common_chat_msgs_parse_oaicompat(request.at("messages"));
    res.tools                 = common_chat_tools_parse_oaicompat(request.at("tools"));
    res.tool_choice           = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice").get<std::string>());
    res.parallel_tool_calls   = parallel.is_null() ? turbo_chat_compat::has_cap(tmpl.chats.get(), "supports_parallel_tool_calls") : parallel.get<bool>();
    res.enable_thinking       = request.at("enable_thinking").get<bool>();
    res.add_generation_prompt = request.at("add_generation_prompt").get<bool>();
    res.reasoning_format      = COMMON_REASONING_FORMAT_AUTO;
    return res;
}

// as upstream's server has them: a word that is one token triggers by it
static json to_json(const common_grammar_trigger & trigger, const llama_vocab * vocab) {
    switch (trigger.type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:
            return {{"token", trigger.token}};
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:
            {
                const auto tokens = common_tokenize(vocab, trigger.value, false, true);
                if (tokens.size() == 1) {
                    return {{"token", tokens[0]}};
                }
                return {{"word", trigger.value}};
            }
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:
            return {{"pattern", trigger.value}};
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL:
            return {{"pattern", "^(?:" + trigger.value + ")$"}};
    }
    throw std::logic_error("unknown kind of trigger");
}

// without a grammar that a required call would have, the parser knows no syntax of calls
static bool reads_calls(const tq_chat_template & tmpl, common_chat_templates_inputs inputs, const common_chat_params & params) {
    if (!params.grammar.empty()) {
        return true;
    }
    inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    return !common_chat_templates_apply(tmpl.chats.get(), inputs).grammar.empty();
}

// whether the grammar lets an answer begin with this
static bool allows(const llama_vocab * vocab, const std::string & grammar, const std::string & begin) {
    llama_sampler_ptr smpl(llama_sampler_init_grammar(vocab, grammar.c_str(), "root"));
    if (!smpl) {
        return false;
    }
    bool first = true;
    for (const llama_token token : common_tokenize(vocab, begin, false, true)) {
        const std::string piece = common_token_to_piece(vocab, token, true);
        // some vocabularies put a space in front of a text
        const bool added = first && !piece.empty() && std::isspace((unsigned char) piece[0]) && !std::isspace((unsigned char) begin[0]);
        first = false;
        if (added) {
            continue;
        }
        llama_token_data       data       = { token, 1.0f, 0.0f };
        llama_token_data_array candidates = { &data, 1, -1, false };
        llama_sampler_apply(smpl.get(), &candidates);
        if (data.logit == -INFINITY) {
            return false;
        }
        llama_sampler_accept(smpl.get(), token);
    }
    return true;
}

// what a required call begins with. upstream lets any text come before it, with which small models go on for ever.
// empty: it may not be known, or the model is to think first
static std::string call_mark(const tq_chat_template & tmpl, common_chat_templates_inputs inputs, const common_chat_params & params) {
    const bool thinks = params.supports_thinking && inputs.enable_thinking;
    if (inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_REQUIRED || params.grammar.empty() || thinks || !inputs.add_generation_prompt) {
        return "";
    }
    inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
    for (const auto & trigger : common_chat_templates_apply(tmpl.chats.get(), inputs).grammar_triggers) {
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD && allows(tmpl.vocab, params.grammar, params.generation_prompt + trigger.value)) {
            return trigger.value;
        }
    }
    return "";
}

static json describe(const tq_chat_template & tmpl, const common_chat_templates_inputs & inputs, const common_chat_params & params) {
    json triggers = json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back(to_json(trigger, tmpl.vocab));
    }
    const bool has_tools = !inputs.tools.empty();
    return {
        {"prompt",            turbo_chat_compat::text(params.prompt)},
        {"generation_prompt", params.generation_prompt},
        {"grammar",           params.grammar},
        {"grammar_lazy",      params.grammar_lazy},
        {"triggers",          triggers},
        {"preserved_tokens",  params.preserved_tokens},
        {"stops",             params.additional_stops},
        {"thinking_start",    params.thinking_start_tag},
        {"thinking_ends",     params.thinking_end_tags},
        {"describes_tools",   has_tools && turbo_chat_compat::has_cap(tmpl.chats.get(), "supports_tools")},
        {"reads_calls",       has_tools && reads_calls(tmpl, inputs, params)},
    };
}

static void write_json(const json & value, tq_write write, void * user_data) {
    const std::string text = value.dump();
    write(user_data, text.data(), text.size());
}

int32_t tq_chat_prompt_new(const tq_chat_template * tmpl, const char * request, tq_chat_prompt ** prompt, tq_write about, void * user_data) {
    return fence([&] {
        const auto inputs = to_inputs(*tmpl, json::parse(request));
        auto res = std::make_unique<tq_chat_prompt>();
        res->params = common_chat_templates_apply(tmpl->chats.get(), inputs);
        const auto mark = call_mark(*tmpl, inputs, res->params);
        res->params.prompt.append(mark);
        res->params.generation_prompt.append(mark);
        res->parser = turbo_chat_compat::parser(res->params, inputs.reasoning_format);
        write_json(describe(*tmpl, inputs, res->params), about, user_data);
        *prompt = res.release();
    });
}

void tq_chat_prompt_free(tq_chat_prompt * prompt) {
    delete prompt;
}

int32_t tq_chat_prompt_parse(const tq_chat_prompt * prompt, const char * answer, size_t len, bool partial, tq_write write, void * user_data) {
    return fence([&] {
        const auto message = turbo_chat_compat::parse(std::string(answer, len), partial, prompt->parser);
        write_json(message.to_json_oaicompat(), write, user_data);
    });
}

int32_t tq_json_schema_to_grammar(const char * schema, tq_write write, void * user_data) {
    return fence([&] {
        const std::string grammar = json_schema_to_grammar(json::parse(schema));
        write(user_data, grammar.data(), grammar.size());
    });
}

//
// key scales
//

int32_t tq_model_expect_kv_fit(llama_model * model, const char * path, tq_kv_fit_outlook * outlook, tq_write write, void * user_data) {
    return fence([&] {
        const auto expected = llama_kv_fit_expect(*model, path);
        *outlook = { expected.type, expected.fit != nullptr, expected.fit ? expected.fit->id : 0 };
        const std::string & text = expected.fit ? expected.fit->source : expected.why;
        write(user_data, text.data(), text.size());
    });
}

//
// decoding
//

int32_t tq_decode(llama_context * ctx, const llama_batch * batch, int32_t * status) {
    return fence([&] { *status = llama_decode(ctx, *batch); });
}

int32_t tq_encode(llama_context * ctx, const llama_batch * batch, int32_t * status) {
    return fence([&] { *status = llama_encode(ctx, *batch); });
}

int32_t tq_synchronize(llama_context * ctx) {
    return fence([&] { llama_synchronize(ctx); });
}

int32_t tq_logits(llama_context * ctx, int32_t i, float ** logits) {
    return fence([&] { *logits = llama_get_logits_ith(ctx, i); });
}

int32_t tq_embeddings(llama_context * ctx, int32_t i, float ** embeddings) {
    return fence([&] { *embeddings = llama_get_embeddings_ith(ctx, i); });
}

int32_t tq_embeddings_seq(llama_context * ctx, llama_seq_id seq_id, float ** embeddings) {
    return fence([&] { *embeddings = llama_get_embeddings_seq(ctx, seq_id); });
}

//
// sequences
//

int32_t tq_memory_clear(llama_context * ctx, bool data) {
    return fence([&] { llama_memory_clear(llama_get_memory(ctx), data); });
}

int32_t tq_seq_rm(llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1, bool * removed) {
    return fence([&] { *removed = llama_memory_seq_rm(llama_get_memory(ctx), seq_id, p0, p1); });
}

int32_t tq_seq_cp(llama_context * ctx, llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    return fence([&] { llama_memory_seq_cp(llama_get_memory(ctx), seq_id_src, seq_id_dst, p0, p1); });
}

int32_t tq_seq_add(llama_context * ctx, llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos delta) {
    return fence([&] { llama_memory_seq_add(llama_get_memory(ctx), seq_id, p0, p1, delta); });
}

//
// states
//

static void finish_updates(llama_context * ctx) {
    ctx->sched_reserve();
    ctx->memory_update(false);
    ctx->synchronize();
}

int32_t tq_state_size(llama_context * ctx, llama_seq_id seq_id, size_t * n) {
    return fence([&] {
        finish_updates(ctx);
        *n = seq_id < 0 ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, seq_id);
    });
}

int32_t tq_state_get(llama_context * ctx, llama_seq_id seq_id, uint8_t * dst, size_t size, size_t * n) {
    return fence([&] {
        finish_updates(ctx);
        *n = seq_id < 0 ? llama_state_get_data(ctx, dst, size) : llama_state_seq_get_data(ctx, dst, size, seq_id);
    });
}

int32_t tq_state_set(llama_context * ctx, llama_seq_id seq_id, const uint8_t * src, size_t size, size_t * n) {
    return fence([&] {
        finish_updates(ctx);
        *n = seq_id < 0 ? llama_state_set_data(ctx, src, size) : llama_state_seq_set_data(ctx, src, size, seq_id);
    });
}

int32_t tq_state_save(llama_context * ctx, llama_seq_id seq_id, const char * path, const llama_token * tokens, size_t n_tokens, bool * saved) {
    return fence([&] {
        finish_updates(ctx);
        *saved = seq_id < 0 ? llama_state_save_file(ctx, path, tokens, n_tokens) : llama_state_seq_save_file(ctx, path, seq_id, tokens, n_tokens) > 0;
    });
}

int32_t tq_state_load(llama_context * ctx, llama_seq_id seq_id, const char * path, llama_token * tokens, size_t n_max, size_t * n_tokens, bool * loaded) {
    return fence([&] {
        finish_updates(ctx);
        *loaded = seq_id < 0 ? llama_state_load_file(ctx, path, tokens, n_max, n_tokens) : llama_state_seq_load_file(ctx, path, seq_id, tokens, n_max, n_tokens) > 0;
    });
}

//
// samplers
//

int32_t tq_sampler_grammar(const llama_vocab * vocab, const char * grammar, const char * root, llama_sampler ** smpl) {
    return fence([&] { *smpl = llama_sampler_init_grammar(vocab, grammar, root); });
}

int32_t tq_sampler_grammar_lazy(const llama_vocab * vocab, const char * grammar, const char * root, const char ** patterns, size_t n_patterns, const llama_token * tokens, size_t n_tokens, llama_sampler ** smpl) {
    return fence([&] { *smpl = llama_sampler_init_grammar_lazy_patterns(vocab, grammar, root, patterns, n_patterns, tokens, n_tokens); });
}

int32_t tq_sampler_dry(const llama_vocab * vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n, const char ** breakers, size_t n_breakers, llama_sampler ** smpl) {
    return fence([&] { *smpl = llama_sampler_init_dry(vocab, multiplier, base, allowed_length, last_n, breakers, n_breakers); });
}

int32_t tq_sampler_apply(llama_sampler * smpl, llama_token_data_array * candidates) {
    return fence([&] { llama_sampler_apply(smpl, candidates); });
}

int32_t tq_sampler_accept(llama_sampler * smpl, llama_token token) {
    return fence([&] { llama_sampler_accept(smpl, token); });
}

int32_t tq_sampler_reset(llama_sampler * smpl) {
    return fence([&] { llama_sampler_reset(smpl); });
}

int32_t tq_sampler_clone(const llama_sampler * smpl, llama_sampler ** clone) {
    return fence([&] { *clone = llama_sampler_clone(smpl); });
}

int32_t tq_trigger_check(const char * pattern) {
    return fence([&] {
        turbo_check_pattern(pattern);
        std::regex _(pattern);
    });
}
