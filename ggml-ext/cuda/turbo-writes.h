// What a graph writes to a cache of turbo types, found in its nodes: one kernel takes the anchors off new keys and
// encodes them, and does the values of the same layer beside. In decoding each kernel takes longer to start than to run.

#pragma once

#include "ggml-impl.h"
#include "turbo.h"

// Rows of floats to rows of a cache. Keys are measured from anchors: row i from row anchor_ids[i] of a table.
struct ggml_turbo_write {
    const ggml_tensor * rows;
    const ggml_tensor * anchors;    // null: none
    const ggml_tensor * anchor_ids;
    ggml_tensor       * set_rows;
};

// The next node from i on that computes something.
static int ggml_turbo_next_node(const ggml_cgraph * graph, int i) {
    while (i < graph->n_nodes && ggml_op_is_empty(graph->nodes[i]->op)) {
        ++i;
    }
    return i;
}

static bool ggml_turbo_is_write(const ggml_cgraph * graph, int i) {
    return i < graph->n_nodes && graph->nodes[i]->op == GGML_OP_SET_ROWS && ggml_is_turbo(graph->nodes[i]->type) &&
        (graph->nodes[i]->flags & GGML_TENSOR_FLAG_COMPUTE);
}

// get_rows of anchors, sub, and set_rows of a view of that, as llama_kv_cache puts new keys
static int ggml_turbo_match_anchored_write(const ggml_cgraph * graph, int i, ggml_turbo_write & write) {
    const ggml_op ops[] = { GGML_OP_GET_ROWS, GGML_OP_SUB };
    const int     last  = ggml_turbo_next_node(graph, i + 2);
    if (!ggml_can_fuse(graph, i, ops, 2) || !ggml_node_has_n_uses(graph, i + 1, 1) || !ggml_turbo_is_write(graph, last)) {
        return 0;
    }
    const ggml_tensor * anchors = graph->nodes[i];
    const ggml_tensor * sub     = graph->nodes[i + 1];
    ggml_tensor       * set     = graph->nodes[last];
    const ggml_tensor * view    = set->src[0];
    const ggml_tensor * keys    = sub->src[0];
    const ggml_tensor * table   = anchors->src[0];

    // nothing else reads what is not computed then
    for (int j = i + 2; j < last; ++j) {
        const ggml_tensor * t = graph->nodes[j];
        if (t->view_src == sub && (ggml_node_get_use_count(graph, j) != 1 || (t->flags & GGML_TENSOR_FLAG_OUTPUT))) {
            return 0;
        }
    }
    const bool fits =
        sub->src[1] == anchors && keys != anchors && view->view_src == sub &&
        // each row of the keys is a row of the cache
        view->view_offs == 0 && ggml_is_contiguous(sub) && ggml_is_contiguous(view) && ggml_are_same_shape(keys, view) &&
        ggml_is_matrix(anchors) && ggml_are_same_shape(keys, anchors) &&
        keys ->type == GGML_TYPE_F32 && keys ->nb[0] == sizeof(float) &&
        table->type == GGML_TYPE_F16 && table->nb[0] == sizeof(ggml_fp16_t);
    if (!fits) {
        return 0;
    }
    write = { keys, table, anchors->src[1], set };
    return last + 1 - i;
}

// The write that begins at node i, and how many nodes it is; 0: there is none.
static int ggml_turbo_match_write(const ggml_cgraph * graph, int i, ggml_turbo_write & write) {
    if (ggml_turbo_is_write(graph, i)) {
        write = { graph->nodes[i]->src[0], nullptr, nullptr, graph->nodes[i] };
        return 1;
    }
    return ggml_turbo_match_anchored_write(graph, i, write);
}

// Likewise, behind nodes that compute nothing.
static int ggml_turbo_match_next_write(const ggml_cgraph * graph, int i, ggml_turbo_write & write) {
    const int first = ggml_turbo_next_node(graph, i);
    const int n     = ggml_turbo_match_write(graph, first, write);
    return n == 0 ? 0 : first - i + n;
}
