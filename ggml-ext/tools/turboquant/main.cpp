// The entries of llama.cpp's tools, for Rust mains: C linkage, and no exception gets out.

#include "log.h"

#include <csignal>
#include <cstdio>
#include <exception>

int llama_bench     (int argc, char ** argv);
int llama_completion(int argc, char ** argv);
int llama_perplexity(int argc, char ** argv);

#ifdef TURBOQUANT_SERVER
int llama_cli       (int argc, char ** argv);
int llama_server    (int argc, char ** argv);
#else
static int has_no_server(const char * name) {
    fprintf(stderr, "error: there is no %s in this build: its llama.cpp came without tools/server. "
            "build without TQ_LLAMA_SRC, or with TQ_LLAMA_SRC=<a whole checkout>\n", name);
    return 1;
}
static int llama_cli   (int, char **) { return has_no_server("llama-cli"); }
static int llama_server(int, char **) { return has_no_server("llama-server"); }
#endif

static int run(int (*tool)(int, char **), int argc, char ** argv) {
#ifdef SIGPIPE
    // Rust's runtime ignores SIGPIPE; the tools expect to end when nobody reads what they print
    signal(SIGPIPE, SIG_DFL);
#endif
    int res = 1;
    try {
        res = tool(argc, argv);
    } catch (const std::exception & e) {
        fprintf(stderr, "error: %s\n", e.what());
    } catch (...) {
        fprintf(stderr, "error: unknown exception\n");
    }
    // a thread of its own writes the log, and upstream does not wait for it: the reason for a failure would get lost
    common_log_flush(common_log_main());
    return res;
}

extern "C" {

int tq_main_llama_bench     (int argc, char ** argv);
int tq_main_llama_cli       (int argc, char ** argv);
int tq_main_llama_completion(int argc, char ** argv);
int tq_main_llama_perplexity(int argc, char ** argv);
int tq_main_llama_server    (int argc, char ** argv);

int tq_main_llama_bench     (int argc, char ** argv) { return run(llama_bench,      argc, argv); }
int tq_main_llama_cli       (int argc, char ** argv) { return run(llama_cli,        argc, argv); }
int tq_main_llama_completion(int argc, char ** argv) { return run(llama_completion, argc, argv); }
int tq_main_llama_perplexity(int argc, char ** argv) { return run(llama_perplexity, argc, argv); }
int tq_main_llama_server    (int argc, char ** argv) { return run(llama_server,     argc, argv); }

}
