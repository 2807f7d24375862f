// What turbo-writes.h finds in graphs like llama_kv_cache's, for tests/device_cuda_writes.rs: for each graph its name, the
// nodes of the keys' write and what it does, and those of the values' write after it.

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
    bool         is_rotated  = false; // keys and values, by the graph
    bool         is_scaled   = false; // keys
    bool         used_twice  = false; // the keys as they are written are read elsewhere, too
    bool         rotated_too = false; // and those that are rotated and no more
    bool         is_output   = false; // the caller wants to see the rotated keys
    bool         in_between  = false; // something is computed between keys and values
    bool         in_place    = false; // and works in place on what is rotated
    bool         has_streams = false; // the cache is of several sequences, and is seen as one
    bool         is_ordered  = false; // as before memory is given to nodes
    int          n_rotated   = 64;    // values of a key
    int          n_heads     = 3;     // of the cache: 3, or other rows than the keys'
};

static ggml_tensor * rotate(ggml_context * ctx, ggml_tensor * x, int n) {
    ggml_tensor * rot = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, n);
    ggml_tensor * res = ggml_mul_mat(ctx, rot, ggml_reshape_2d(ctx, x, n, ggml_nelements(x)/n));
    ggml_mul_mat_set_hint(res, GGML_HINT_SRC0_IS_HADAMARD);
    return ggml_reshape_3d(ctx, res, x->ne[0], x->ne[1], x->ne[2]);
}

static void show(const options & o) {
    const int D = 128, N_HEADS = 3, N_TOKENS = 2, N_CELLS = 256;

    ggml_context * ctx = ggml_init({ 1 << 20, nullptr, true });
    ggml_cgraph  * gf  = ggml_new_graph(ctx);

    ggml_tensor * k_cache = ggml_new_tensor_2d(ctx, o.type, D*N_HEADS, N_CELLS);
    ggml_tensor * v_cache = ggml_new_tensor_2d(ctx, o.type, D*N_HEADS, N_CELLS);
    ggml_tensor * table   = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, D*N_HEADS, N_CELLS/64);
    ggml_tensor * rows    = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, N_TOKENS);
    ggml_tensor * idxs    = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, N_TOKENS*N_HEADS/o.n_heads);
    ggml_tensor * k_proj  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, N_HEADS, N_TOKENS);
    ggml_tensor * v_proj  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, N_HEADS, N_TOKENS);
    ggml_tensor * scale   = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, 1, N_HEADS);

    // as llama_graph builds them: values are rotated before keys are computed
    ggml_tensor * v_cur = ggml_neg(ctx, v_proj);
    ggml_tensor * v     = o.is_rotated ? rotate(ctx, v_cur, 64) : v_cur;
    ggml_build_forward_expand(gf, v);
    ggml_tensor * k_cur = ggml_neg(ctx, k_proj);
    ggml_tensor * k     = k_cur;
    ggml_build_forward_expand(gf, k);
    if (o.is_scaled) {
        k = ggml_view_4d(ctx, k, D, 1, N_HEADS, N_TOKENS, k->nb[1], k->nb[1], k->nb[2], 0);
        k = ggml_reshape_3d(ctx, ggml_mul(ctx, k, scale), D, N_HEADS, N_TOKENS);
    }
    if (o.is_rotated) {
        k = rotate(ctx, k, o.n_rotated);
    }
    ggml_build_forward_expand(gf, k);
    ggml_tensor * rotated = k;
    ggml_set_output(o.is_output ? rotated->view_src : v_proj);
    if (o.in_place) {
        ggml_build_forward_expand(gf, ggml_neg_inplace(ctx, v_cur));
    }

    k = ggml_view_2d(ctx, k, D*N_HEADS, N_TOKENS, k->nb[2], 0);
    if (o.has_anchors) {
        k = ggml_sub(ctx, k, ggml_get_rows(ctx, table, rows));
    }
    ggml_tensor * written = k;
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
    v = ggml_view_2d(ctx, ggml_reshape_3d(ctx, v, D, N_HEADS, N_TOKENS), D*N_HEADS, N_TOKENS, v->nb[2], 0);
    ggml_build_forward_expand(gf, ggml_set_rows(ctx, v_cache, v, o.n_heads == N_HEADS ? idxs : ggml_new_tensor_1d(ctx, GGML_TYPE_I64, N_TOKENS)));
    if (o.used_twice) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, written));
    }
    if (o.rotated_too) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, rotated));
    }

    if (o.is_ordered) {
        ggml_turbo_bring_rotations(gf);
    }
    // behind the keys as they come
    int first = 0;
    while (ggml_graph_node(gf, first) != k_cur) {
        ++first;
    }
    do {
        ++first;
    } while (ggml_op_is_empty(ggml_graph_node(gf, first)->op));

    // nodes that are run by themselves, then those that are run as one
    ggml_turbo_write keys   = {};
    ggml_turbo_write values = {};
    int n_alone = 0;
    int n       = 0;
    for (; first < ggml_graph_n_nodes(gf) && (n = ggml_turbo_match_write(gf, first, keys)) == 0; ++first) {
        n_alone += !ggml_op_is_empty(ggml_graph_node(gf, first)->op);
    }
    const int n_next = n ? ggml_turbo_match_next_write(gf, first + n, values) : 0;
    printf("%s: %d alone, %d nodes%s%s%s", o.name, n_alone, n, n && keys.scale ? ", scaled" : "", n && keys.n_rotated ? ", rotated" : "",
        n && keys.anchors ? ", anchored" : "");
    printf("; %d nodes%s\n", n_next, n_next && values.n_rotated ? ", rotated" : "");

    const auto root = [](const ggml_tensor * t) { return t->view_src ? t->view_src : t; };
    const ggml_tensor * before = keys.n_rotated || !(o.is_rotated || o.is_scaled) ? k_cur : root(rotated); // what is read
    const bool as_built = n == 0 || (
        root(keys.rows) == (keys.anchors || !o.has_anchors ? before : written) &&
        (!keys.anchors || (keys.anchors == table && keys.anchor_ids == rows)) &&
        (!keys.scale || keys.scale == scale) && (!keys.n_rotated || keys.n_rotated == o.n_rotated) &&
        keys.set_rows->src[1] == idxs && (n_next == 0 || values.set_rows->view_src == v_cache) &&
        (!values.n_rotated || (root(values.rows) == v_cur && values.n_rotated == 64)));
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

    options r = { "rotated" };
    r.is_rotated = r.is_ordered = true;
    show(r);
    o = r;
    o.name      = "scaled";
    o.is_scaled = true;
    o.n_rotated = 128;
    show(o);
    o.name        = "scaled-without-anchors";
    o.has_anchors = false;
    show(o);
    o = r;
    o.name       = "in-llama's-order";
    o.is_ordered = false;
    show(o);
    o = r;
    o.name       = "values-change-in-place";
    o.in_place   = true;
    show(o);
    o = r;
    o.name      = "scaled-alone";
    o.is_scaled = true;
    o.is_rotated = false;
    show(o);
    o = r;
    o.name        = "rotated-keys-read-elsewhere";
    o.rotated_too = true;
    show(o);
    o = r;
    o.name      = "rotated-keys-are-output";
    o.is_output = true;
    show(o);
    o = r;
    o.name      = "another-matrix";
    o.n_rotated = 32;
    show(o);
    o = r;
    o.name       = "rotated-read-elsewhere";
    o.used_twice = true;
    show(o);
}
