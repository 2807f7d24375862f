// Operators of the Vulkan back end on its first device, for tests/device_vulkan.rs; linked with ggml (script/test vulkan).
//
//     vulkan rows set|copy|get|cast|half 2|3|4 N < in > out
//     vulkan attention < in > out
//
// rows: in and out are N blocks of 64 values, floats to blocks with set and copy, blocks to floats with the others, in rows of
// two; set and get have the rows backwards, and half goes through f16. attention: problems until the input ends, each the types
// of K and V as i64 and then what tests/device/attention.rs writes; out: f32 [D, n_head, n_tokens, n_batch] of each.

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-anchors.h"
#include "ggml-backend.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static void fail(const std::string & what) {
    fprintf(stderr, "error: %s\n", what.c_str());
    exit(1);
}

template <typename T> static bool try_get(T * x, size_t n) {
    const size_t got = fread(x, sizeof(T), n, stdin);
    if (got != 0 && got != n) {
        fail("the input ends early");
    }
    return got == n;
}

template <typename T> static void get(T * x, size_t n) {
    if (n != 0 && !try_get(x, n)) {
        fail("the input ends early");
    }
}

// A graph of one operator: its tensors, what they hold, and the device.
struct graph {
    ggml_backend_t backend;
    ggml_context * ctx;
    std::vector<std::pair<ggml_tensor *, std::vector<char>>> inputs;

    explicit graph(ggml_backend_t backend) : backend(backend), ctx(ggml_init({ 1 << 20, nullptr, true })) {}
    ~graph() { ggml_free(ctx); }

    ggml_tensor * input(ggml_type type, const int64_t * ne, std::vector<char> bytes) {
        ggml_tensor * t = ggml_new_tensor(ctx, type, 4, ne);
        inputs.emplace_back(t, std::move(bytes));
        return t;
    }

    void compute_to_stdout(ggml_tensor * op) {
        if (!ggml_backend_supports_op(backend, op)) {
            fail(std::string("not supported: ") + ggml_op_desc(op));
        }
        ggml_cgraph * gf = ggml_new_graph(ctx);
        ggml_build_forward_expand(gf, op);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);
        for (auto & [tensor, bytes] : inputs) {
            ggml_backend_tensor_set(tensor, bytes.data(), 0, bytes.size());
        }
        if (ggml_backend_graph_compute(backend, gf) != GGML_STATUS_SUCCESS) {
            fail("computing failed");
        }
        std::vector<char> out(ggml_nbytes(op));
        ggml_backend_tensor_get(op, out.data(), 0, out.size());
        fwrite(out.data(), 1, out.size(), stdout);
        ggml_backend_buffer_free(buffer);
    }
};

template <typename T> static std::vector<char> bytes_of(const std::vector<T> & x) {
    const char * p = (const char *) x.data();
    return std::vector<char>(p, p + x.size()*sizeof(T));
}

static std::vector<char> read_bytes(size_t n) {
    std::vector<char> res(n);
    get(res.data(), n);
    return res;
}

static void rows(ggml_backend_t backend, const std::string & what, const std::string & bits, int64_t n) {
    const ggml_type type    = (ggml_type) (GGML_TYPE_TURBO2 + atoi(bits.c_str()) - 2);
    const bool      encodes = what == "set" || what == "copy";
    const int64_t   ne[4]   = { 128, n/2, 1, 1 };

    graph g(backend);
    const ggml_type src_type = encodes ? GGML_TYPE_F32 : type;
    ggml_tensor * src = g.input(src_type, ne, read_bytes(ggml_row_size(src_type, 128)*(size_t) (n/2)));

    std::vector<int64_t> long_ids;
    std::vector<int32_t> ids;
    for (int64_t i = n/2 - 1; i >= 0; --i) {
        long_ids.push_back(i);
        ids.push_back((int32_t) i);
    }
    const int64_t ids_ne[4] = { n/2, 1, 1, 1 };
    if (what == "set") {
        // all of them are written
        ggml_tensor * dst = g.input(type, ne, std::vector<char>(ggml_row_size(type, 128)*(size_t) (n/2)));
        g.compute_to_stdout(ggml_set_rows(g.ctx, dst, src, g.input(GGML_TYPE_I64, ids_ne, bytes_of(long_ids))));
    } else if (what == "get") {
        g.compute_to_stdout(ggml_get_rows(g.ctx, src, g.input(GGML_TYPE_I32, ids_ne, bytes_of(ids))));
    } else if (what == "copy" || what == "cast" || what == "half") {
        g.compute_to_stdout(ggml_cast(g.ctx, src, what == "copy" ? type : what == "cast" ? GGML_TYPE_F32 : GGML_TYPE_F16));
    } else {
        fail(what);
    }
}

// null if it has no bytes
static ggml_tensor * read_tensor(graph & g, ggml_type type) {
    int64_t ne[4], nb[4], n;
    get(ne, 4);
    get(nb, 4);
    get(&n, 1);
    if (n == 0) {
        return nullptr;
    }
    ggml_tensor * t = g.input(type, ne, read_bytes((size_t) n));
    for (int i = 1; i < 4; ++i) {
        t->nb[i] = (size_t) (nb[i] ? nb[i] : n);
    }
    return t;
}

static void attention(ggml_backend_t backend) {
    int64_t types[2];
    while (try_get(types, 2)) {
        float options[3]; // scale, max_bias, softcap
        get(options, 3);

        graph g(backend);
        ggml_tensor * q     = read_tensor(g, GGML_TYPE_F32);
        ggml_tensor * k     = read_tensor(g, (ggml_type) types[0]);
        ggml_tensor * v     = read_tensor(g, (ggml_type) types[1]);
        ggml_tensor * mask  = read_tensor(g, GGML_TYPE_F16);
        ggml_tensor * sinks = read_tensor(g, GGML_TYPE_F32);
        ggml_tensor * table = read_tensor(g, GGML_TYPE_F16);
        ggml_tensor * ids   = read_tensor(g, GGML_TYPE_I32);

        ggml_tensor * op = ggml_flash_attn_ext(g.ctx, q, k, v, mask, options[0], options[1], options[2]);
        ggml_prec_set_acc(op, GGML_PREC_F32);
        if (sinks) {
            ggml_flash_attn_ext_add_sinks(op, sinks);
        }
        if (table) {
            ids->ne[0] = k->ne[1]; // there are more than cells
            ggml_flash_attn_ext_add_anchors(op, table, ids);
        }
        g.compute_to_stdout(op);
    }
}

int main(int argc, char ** argv) {
    ggml_backend_load_all();
    ggml_backend_t backend = ggml_backend_init_by_name("Vulkan0", nullptr);
    if (!backend) {
        fail("there is no device Vulkan0");
    }
    if (argc == 5 && strcmp(argv[1], "rows") == 0) {
        rows(backend, argv[2], argv[3], atoll(argv[4]));
    } else if (argc == 2 && strcmp(argv[1], "attention") == 0) {
        attention(backend);
    } else {
        fail("what?");
    }
    ggml_backend_free(backend);
    return 0;
}
