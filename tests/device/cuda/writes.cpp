// What turbo-writes.h finds in graphs like llama_kv_cache's, for tests/device_cuda_writes.rs: for each graph its name, the
// nodes of the keys' write, whether it has anchors, and the nodes of the values' write after it.

#include "ggml.h"
#include "ggml-backend.h"
#include "turbo-writes.h"

#include <cstdio>
#include <cstdlib>

// the Rust core, for ggml's type traits: nothing is computed here
#define NOT_HERE(K)                                                                       \
    void tq_quantize_row_turbo##K  (const float *, void  *, int64_t) { abort(); }         \
    void tq_dequantize_row_turbo##K(const void  *, float *, int64_t) { abort(); }
NOT_HERE(2)
NOT_HERE(3)
NOT_HERE(4)

struct options {
    const char * name;
    ggml_type    type        = GGML_TYPE_TURBO4;
    bool         has_anchors = true;
    bool         used_twice  = false; // the keys without their anchors are read elsewhere, too
    bool         in_between  = false; // something is computed between keys and values
    bool         has_streams = false; // the cache is of several sequences, and is seen as one
    int          n_heads     = 3;     // of the cache: 3, or other rows than the keys'
};

static void show(const options & o) {
    const int D = 64, N_HEADS = 3, N_TOKENS = 2, N_CELLS = 256;

    ggml_context * ctx = ggml_init({ 1 << 20, nullptr, true });
    ggml_cgraph  * gf  = ggml_new_graph(ctx);

    ggml_tensor * k_cache = ggml_new_tensor_2d(ctx, o.type, D*N_HEADS, N_CELLS);
    ggml_tensor * v_cache = ggml_new_tensor_2d(ctx, o.type, D*N_HEADS, N_CELLS);
    ggml_tensor * table   = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, D*N_HEADS, N_CELLS/64);
    ggml_tensor * rows    = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, N_TOKENS);
    ggml_tensor * idxs    = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, N_TOKENS*N_HEADS/o.n_heads);
    ggml_tensor * k_proj  = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, D*N_HEADS, N_TOKENS);
    ggml_tensor * v_proj  = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, D*N_HEADS, N_TOKENS);

    ggml_tensor * v = ggml_neg(ctx, v_proj);
    ggml_tensor * k = ggml_neg(ctx, k_proj);
    ggml_build_forward_expand(gf, v);
    ggml_build_forward_expand(gf, k);
    if (o.has_anchors) {
        k = ggml_sub(ctx, k, ggml_get_rows(ctx, table, rows));
    }
    ggml_tensor * sub = k;
    k = ggml_reshape_3d(ctx, k, D, N_HEADS, N_TOKENS);
    k = ggml_view_2d(ctx, k, D*o.n_heads, N_TOKENS*N_HEADS/o.n_heads, k->nb[1]*o.n_heads, 0);
    if (o.has_streams) {
        k_cache = ggml_reshape_2d(ctx, ggml_new_tensor_3d(ctx, o.type, D*N_HEADS, N_CELLS, 2), D*N_HEADS, 2*N_CELLS);
    }
    if (o.n_heads != N_HEADS) {
        k_cache = ggml_reshape_2d(ctx, k_cache, D*o.n_heads, N_CELLS*N_HEADS/o.n_heads);
    }
    ggml_build_forward_expand(gf, ggml_set_rows(ctx, k_cache, k, idxs));
    if (o.in_between) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, v_proj));
    }
    v = ggml_view_2d(ctx, ggml_reshape_3d(ctx, v, D, N_HEADS, N_TOKENS), D*N_HEADS, N_TOKENS, v->nb[1], 0);
    ggml_build_forward_expand(gf, ggml_set_rows(ctx, v_cache, v, o.n_heads == N_HEADS ? idxs : ggml_new_tensor_1d(ctx, GGML_TYPE_I64, N_TOKENS)));
    if (o.used_twice) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, sub));
    }

    int first = 0;
    while (ggml_graph_node(gf, first)->op == GGML_OP_UNARY || ggml_op_is_empty(ggml_graph_node(gf, first)->op)) {
        ++first;
    }
    ggml_turbo_write keys   = {};
    ggml_turbo_write values = {};
    const int n      = ggml_turbo_match_write(gf, first, keys);
    const int n_next = n ? ggml_turbo_match_next_write(gf, first + n, values) : 0;
    printf("%s %d %s %d\n", o.name, n, keys.anchors ? "anchors" : "none", n_next);

    const bool as_built = (!keys.anchors || (keys.anchors == table && keys.anchor_ids == rows && keys.rows == sub->src[0])) &&
        (n == 0 || keys.set_rows->view_src != nullptr) && (n_next == 0 || values.set_rows->src[1]->ne[0] == N_TOKENS);
    if (!as_built) {
        printf("%s: other tensors than the graph's\n", o.name);
    }
    ggml_free(ctx);
}

int main() {
    options o = { "keys-and-values" };
    show(o);
    o = { "without-anchors" };
    o.has_anchors = false;
    show(o);
    o = { "streams" };
    o.has_streams = true;
    show(o);
    o = { "something-between" };
    o.in_between = true;
    show(o);
    o = { "read-elsewhere" };
    o.used_twice = true;
    show(o);
    o = { "other-rows" };
    o.n_heads = 1;
    show(o);
    o = { "f16" };
    o.type = GGML_TYPE_F16;
    show(o);
}
