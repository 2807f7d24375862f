// Goes on with a prompt, by llama.cpp with a KV cache of types of your choice, and says what the cache takes.
//
//     script/install --prefix DIR
//     export PKG_CONFIG_PATH=DIR/lib/pkgconfig
//     c++ -std=c++17 -O2 main.cpp $(pkg-config --cflags --libs llama-turboquant) -o generate
//     ./generate -m MODEL.gguf -p "The capital of France is" -ctk turbo4 -ctv turbo2
//
// or with CMake, see CMakeLists.txt.

#include "llama-cpp.h"

#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

// In a program of its own these are plain names: params.type_k = GGML_TYPE_TURBO4.
static const std::map<std::string, ggml_type> TYPES = {
    { "f16", GGML_TYPE_F16 },       { "q8_0", GGML_TYPE_Q8_0 },     { "q4_0", GGML_TYPE_Q4_0 },
    { "turbo2", GGML_TYPE_TURBO2 }, { "turbo3", GGML_TYPE_TURBO3 }, { "turbo4", GGML_TYPE_TURBO4 },
};

static ggml_type type_of(const std::string & name) {
    const auto found = TYPES.find(name);
    if (found == TYPES.end()) {
        throw std::runtime_error("no such cache type: " + name);
    }
    return found->second;
}

// What llama.cpp says: the reasons for failures, and the sizes of the caches.
struct Log {
    std::string errors;
    double      mib_k = 0, mib_v = 0;

    static void write(ggml_log_level level, const char * text, void * data) {
        auto & log = *static_cast<Log *>(data);
        if (level == GGML_LOG_LEVEL_ERROR) {
            log.errors += text;
        }
        // a model with a sliding window has two caches; those of other programs' contexts count, too
        double k, v;
        if (sscanf(text, "llama_kv_cache: size = %*f MiB (%*u cells, %*u layers, %*u/%*u seqs), K (%*[^)]): %lf MiB, V (%*[^)]): %lf MiB", &k, &v) == 2) {
            log.mib_k += k;
            log.mib_v += v;
        }
    }
};

static std::vector<llama_token> tokenize(const llama_vocab * vocab, const std::string & text) {
    std::vector<llama_token> tokens(text.size() + 2);
    const int32_t n = llama_tokenize(vocab, text.data(), (int32_t) text.size(), tokens.data(), (int32_t) tokens.size(), true, false);
    if (n <= 0) {
        throw std::runtime_error("the prompt has no tokens");
    }
    tokens.resize(n);
    return tokens;
}

static void run(const std::string & path, const std::string & prompt, int n_predict, ggml_type type_k, ggml_type type_v, Log & log) {
    const llama_model_ptr model(llama_model_load_from_file(path.c_str(), llama_model_default_params()));
    if (!model) {
        throw std::runtime_error("cannot load " + path);
    }
    const llama_vocab * vocab = llama_model_get_vocab(model.get());
    std::vector<llama_token> tokens = tokenize(vocab, prompt);

    llama_context_params params = llama_context_default_params();
    params.n_ctx   = (uint32_t) tokens.size() + n_predict;
    params.n_batch = params.n_ctx;
    params.type_k  = type_k;
    params.type_v  = type_v;
    const llama_context_ptr ctx(llama_init_from_model(model.get(), params));
    if (!ctx) {
        throw std::runtime_error("no context with these types");
    }
    const llama_sampler_ptr sampler(llama_sampler_init_greedy());

    for (int i = 0; i < n_predict; i++) {
        if (llama_decode(ctx.get(), llama_batch_get_one(tokens.data(), (int32_t) tokens.size())) != 0) {
            throw std::runtime_error("decoding failed");
        }
        const llama_token token = llama_sampler_sample(sampler.get(), ctx.get(), -1);
        if (llama_vocab_is_eog(vocab, token)) {
            break;
        }
        char piece[256];
        const int32_t n = llama_token_to_piece(vocab, token, piece, sizeof(piece), 0, false);
        if (n < 0) {
            throw std::runtime_error("a token without text");
        }
        fwrite(piece, 1, n, stdout);
        fflush(stdout);
        tokens = { token };
    }
    printf("\nKV cache of %u tokens: K (%s) %.2f MiB, V (%s) %.2f MiB\n", llama_n_ctx(ctx.get()), ggml_type_name(type_k),
           log.mib_k, ggml_type_name(type_v), log.mib_v);
}

int main(int argc, char ** argv) {
    std::map<std::string, std::string> args = { { "-m", "" }, { "-p", "The capital of France is" }, { "-n", "32" }, { "-ctk", "turbo4" }, { "-ctv", "turbo2" } };
    Log log;
    llama_log_set(Log::write, &log);
    try {
        for (int i = 1; i < argc; i += 2) {
            if (i + 1 == argc || args.count(argv[i]) == 0) {
                throw std::runtime_error("usage: generate -m MODEL.gguf [-p PROMPT] [-n TOKENS] [-ctk TYPE] [-ctv TYPE]");
            }
            args[argv[i]] = argv[i + 1];
        }
        run(args["-m"], args["-p"], std::stoi(args["-n"]), type_of(args["-ctk"]), type_of(args["-ctv"]), log);
    } catch (const std::exception & error) {
        fprintf(stderr, "error: %s\n%s", error.what(), log.errors.c_str());
        return 1;
    }
    return 0;
}
