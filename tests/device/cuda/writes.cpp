// What turbo-writes.h and turbo-reads.h find in graphs like llama_kv_cache's, for tests/device_cuda_writes.rs: for each graph its name, the
// nodes of the keys' write and what it does, and those of the values' write after it; or those of attention.

#include "ggml.h"
#include "ggml-backend.h"
#include "turbo-reads.h"

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

struct read_options {
    const char * name;
    ggml_type    type       = GGML_TYPE_TURBO4;
    bool         is_scaled  = true;
    bool         is_rotated = true;
    bool         rotates    = true;  // the result
    bool         is_ordered = true;
    bool         used_twice = false; // the rotated queries are read elsewhere, too
    bool         seen_twice = false; // the result
    bool         in_place   = false; // something between works in place on the queries
    int          n_rotated  = 128;
    int          n_streams  = 1;
};

static void show(const read_options & o) {
    const int D = 128, N_HEADS = 6, N_HEADS_KV = 3, N_TOKENS = 4, N_CELLS = 256;

    ggml_context * ctx = ggml_init({ 1 << 20, nullptr, true });
    ggml_cgraph  * gf  = ggml_new_graph(ctx);

    ggml_tensor * scale  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, 1, N_HEADS_KV);
    ggml_tensor * other  = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, D);
    ggml_tensor * k      = ggml_new_tensor_4d(ctx, o.type, D, N_CELLS, N_HEADS_KV, o.n_streams);
    ggml_tensor * v      = ggml_new_tensor_4d(ctx, o.type, D, N_CELLS, N_HEADS_KV, o.n_streams);
    ggml_tensor * q_proj = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, N_HEADS, N_TOKENS);

    ggml_tensor * q_cur = ggml_neg(ctx, q_proj);
    ggml_tensor * q     = q_cur;
    ggml_build_forward_expand(gf, q);
    if (o.is_scaled) {
        q = ggml_view_4d(ctx, q, D, N_HEADS/N_HEADS_KV, N_HEADS_KV, N_TOKENS, q->nb[1], N_HEADS/N_HEADS_KV*q->nb[1], q->nb[2], 0);
        q = ggml_reshape_3d(ctx, ggml_mul(ctx, q, scale), D, N_HEADS, N_TOKENS);
    }
    if (o.is_rotated) {
        q = rotate(ctx, q, o.n_rotated);
    }
    ggml_build_forward_expand(gf, q);
    // keys and values are written here
    ggml_build_forward_expand(gf, o.in_place ? ggml_neg_inplace(ctx, q_cur) : ggml_neg(ctx, other));
    ggml_tensor * rotated = q;

    q = ggml_view_4d(ctx, q, D, N_HEADS, N_TOKENS/o.n_streams, o.n_streams, q->nb[1], q->nb[2], q->nb[2]*(N_TOKENS/o.n_streams), 0);
    q = ggml_permute(ctx, q, 0, 2, 1, 3);
    ggml_tensor * attention = ggml_flash_attn_ext(ctx, q, k, v, nullptr, 1.0f, 0.0f, 0.0f);
    ggml_tensor * cur = ggml_reshape_2d(ctx, attention, D*N_HEADS, N_TOKENS);
    if (o.rotates) {
        cur = rotate(ctx, cur, 64);
    }
    ggml_build_forward_expand(gf, ggml_neg(ctx, cur));
    if (o.used_twice) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, rotated));
    }
    if (o.seen_twice) {
        ggml_build_forward_expand(gf, ggml_neg(ctx, attention));
    }

    if (o.is_ordered) {
        ggml_turbo_bring_queries(gf);
    }
    ggml_turbo_read read = {};
    int n_alone = 0;
    int n       = 0;
    for (int i = 0; i < ggml_graph_n_nodes(gf) && (n = ggml_turbo_match_read(gf, i, read)) == 0; ++i) {
        n_alone += !ggml_op_is_empty(ggml_graph_node(gf, i)->op);
    }
    printf("%s: %d alone, %d nodes%s%s%s\n", o.name, n_alone, n, n && read.scale ? ", scaled" : "", n && read.n_rotated ? ", rotated" : "",
        n && read.rotated ? ", rotated back" : "");

    const bool as_built = n == 0 || (
        read.attention == attention && (!read.scale || read.scale == scale) && (!read.rotated || read.rotated == cur->view_src) &&
        (!read.n_rotated || read.queries->view_src == (o.is_scaled && !read.scale ? rotated->view_src->src[1]->view_src : q_cur)));
    if (!as_built) {
        printf("%s: other tensors than the graph's\n", o.name);
    }
    ggml_free(ctx);
}

static void show_reads() {
    read_options o = { "queries" };
    show(o);
    o = { "streams" };
    o.n_streams = 2;
    show(o);
    o = { "queries-unscaled" };
    o.is_scaled = false;
    o.n_rotated = 64;
    show(o);
    o = { "queries-in-llama's-order" };
    o.is_ordered = false;
    show(o);
    o = { "result-alone" };
    o.is_scaled = o.is_rotated = false;
    show(o);
    o = { "queries-alone" };
    o.rotates = false;
    show(o);
    o = { "nothing" };
    o.is_scaled = o.is_rotated = o.rotates = false;
    show(o);
    o = { "queries-read-elsewhere" };
    o.used_twice = true;
    show(o);
    o = { "result-read-elsewhere" };
    o.seen_twice = true;
    show(o);
    o = { "queries-change-in-place" };
    o.in_place = true;
    show(o);
    o = { "queries-by-another-matrix" };
    o.n_rotated = 32;
    show(o);
    o = { "f16-cache" };
    o.type = GGML_TYPE_F16;
    show(o);
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

    show_reads();
}
