// What a graph writes to a cache of turbo types, found in its nodes: one kernel scales new keys, rotates them, takes their anchors
// off and encodes them, and rotates and encodes the values of the same layer beside. In decoding each kernel takes longer to
// start than to run.

#pragma once

#include "ggml-impl.h"
#include "turbo.h"

#include <algorithm>

// Rows of floats to rows of a cache, after what is done to them on the way.
struct ggml_turbo_write {
    const ggml_tensor * rows;       // contiguous, or [d, 1, n_heads, n_tokens] if scaled
    const ggml_tensor * scale;      // [d, 1, n_heads]; null: none
    int                 n_rotated;  // values that a Hadamard matrix multiplies, those after each other; 0: none
    const ggml_tensor * anchors;    // row i is measured from row anchor_ids[i] of these; null: none
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

// Whether nobody but node `last` reads what node i computes, by itself or through views.
static bool ggml_turbo_is_alone(const ggml_cgraph * graph, int i, int last) {
    const ggml_tensor * node = graph->nodes[i];
    if (!ggml_node_has_n_uses(graph, i, 1) || !ggml_is_contiguous(node)) {
        return false;
    }
    for (int j = i + 1; j < last; ++j) {
        const ggml_tensor * other = graph->nodes[j];
        if (other->view_src == node && (ggml_node_get_use_count(graph, j) != 1 || (other->flags & GGML_TENSOR_FLAG_OUTPUT))) {
            return false;
        }
    }
    return true;
}

// And whether t, which `last` reads, is that, perhaps in another shape.
static bool ggml_turbo_passes(const ggml_cgraph * graph, int i, int last, const ggml_tensor * t) {
    const ggml_tensor * node = graph->nodes[i];
    return ggml_turbo_is_alone(graph, i, last) && (t == node || (t->view_src == node && t->view_offs == 0 && t->type == node->type &&
        ggml_is_contiguous(t) && ggml_nelements(t) == ggml_nelements(node)));
}

static bool ggml_turbo_is(const ggml_cgraph * graph, int i, ggml_op op) {
    return i < graph->n_nodes && graph->nodes[i]->op == op && (graph->nodes[i]->flags & GGML_TENSOR_FLAG_COMPUTE);
}

// Keys or queries by head and token, times one number for each value of a KV head, as llama_kv_scales_mul builds it.
static bool ggml_turbo_is_scale(const ggml_cgraph * graph, int i) {
    if (!ggml_turbo_is(graph, i, GGML_OP_MUL)) {
        return false;
    }
    const ggml_tensor * keys  = graph->nodes[i]->src[0];
    const ggml_tensor * scale = graph->nodes[i]->src[1];
    return keys->type == GGML_TYPE_F32 && scale->type == GGML_TYPE_F32 && graph->nodes[i]->type == GGML_TYPE_F32 &&
        keys->nb[0] == sizeof(float) && ggml_is_contiguous(scale) &&
        scale->ne[0] == keys->ne[0] && scale->ne[1] == 1 && scale->ne[2] == keys->ne[2] && scale->ne[3] == 1;
}

// llama_mul_mat_hadamard, of as many values as fwht.cu takes
static bool ggml_turbo_is_rotation(const ggml_cgraph * graph, int i) {
    if (!ggml_turbo_is(graph, i, GGML_OP_MUL_MAT) || ggml_get_op_params_i32(graph->nodes[i], 1) != GGML_HINT_SRC0_IS_HADAMARD) {
        return false;
    }
    const ggml_tensor * node = graph->nodes[i];
    const int64_t n = node->ne[0];
    return (n == 64 || n == 128 || n == 256 || n == 512) && node->type == GGML_TYPE_F32 &&
        node->src[0]->type == GGML_TYPE_F32 && node->src[0]->ne[0] == n && node->src[1]->type == GGML_TYPE_F32 &&
        ggml_is_contiguous(node->src[1]) && ggml_are_same_shape(node, node->src[1]);
}

// get_rows of anchors and sub, as llm_graph_input_k_anchors builds them
static bool ggml_turbo_is_anchoring(const ggml_cgraph * graph, int i) {
    if (!ggml_turbo_is(graph, i, GGML_OP_GET_ROWS) || !ggml_turbo_is(graph, i + 1, GGML_OP_SUB)) {
        return false;
    }
    const ggml_tensor * anchors = graph->nodes[i];
    const ggml_tensor * keys    = graph->nodes[i + 1]->src[0];
    const ggml_tensor * table   = anchors->src[0];
    return graph->nodes[i + 1]->src[1] == anchors && keys != anchors && ggml_node_has_n_uses(graph, i, 1) &&
        ggml_is_matrix(anchors) && ggml_are_same_shape(keys, anchors) &&
        keys ->type == GGML_TYPE_F32 && keys ->nb[0] == sizeof(float) &&
        table->type == GGML_TYPE_F16 && table->nb[0] == sizeof(ggml_fp16_t);
}

// The write that begins at node i, and how many nodes it is, those between that compute nothing among them; 0: there is none.
static int ggml_turbo_match_write(const ggml_cgraph * graph, int i, ggml_turbo_write & write) {
    write = {};
    int at   = i;
    int from = -1; // the node whose result goes on

    if (ggml_turbo_is_scale(graph, at)) {
        write.rows  = graph->nodes[at]->src[0];
        write.scale = graph->nodes[at]->src[1];
        from = at;
        at   = ggml_turbo_next_node(graph, at + 1);
    }
    if (ggml_turbo_is_rotation(graph, at)) {
        const ggml_tensor * rows = graph->nodes[at]->src[1];
        write.n_rotated = (int) rows->ne[0];
        if (from < 0) {
            write.rows = rows;
        } else if (!ggml_turbo_passes(graph, from, at, rows) || write.rows->ne[0]%write.n_rotated != 0) {
            return 0;
        }
        from = at;
        at   = ggml_turbo_next_node(graph, at + 1);
    } else if (from >= 0) {
        return 0;
    }
    if (ggml_turbo_is_anchoring(graph, at)) {
        const ggml_tensor * keys = graph->nodes[at + 1]->src[0];
        if (from < 0) {
            write.rows = keys;
        } else if (!ggml_turbo_passes(graph, from, at + 1, keys)) {
            return 0;
        }
        write.anchors    = graph->nodes[at]->src[0];
        write.anchor_ids = graph->nodes[at]->src[1];
        from = at + 1;
        at   = ggml_turbo_next_node(graph, at + 2);
    }
    if (!ggml_turbo_is_write(graph, at)) {
        return 0;
    }
    write.set_rows = graph->nodes[at];
    const ggml_tensor * last = write.set_rows->src[0];
    if (from < 0) {
        write.rows = last;
    } else if (!ggml_turbo_passes(graph, from, at, last)) {
        return 0;
    }
    // each row of the keys that have anchors is a row of the cache, and each rotation within one
    if (write.anchors && !ggml_are_same_shape(last, graph->nodes[from])) {
        return 0;
    }
    if (write.n_rotated && (!ggml_is_matrix(last) || last->ne[0]%write.n_rotated != 0 || ggml_nelements(last) > INT32_MAX)) {
        return 0;
    }
    if (write.scale && (write.rows->ne[1] != 1 || write.rows->ne[0]*write.rows->ne[2] != last->ne[0] || write.rows->ne[3] != last->ne[1])) {
        return 0;
    }
    return at + 1 - i;
}

// Likewise, behind nodes that compute nothing.
static int ggml_turbo_match_next_write(const ggml_cgraph * graph, int i, ggml_turbo_write & write) {
    const int first = ggml_turbo_next_node(graph, i);
    const int n     = ggml_turbo_match_write(graph, first, write);
    return n == 0 ? 0 : first - i + n;
}

//
// the order of nodes, before memory is given to them
//

// the node before `last` that is t; -1: none
static int ggml_turbo_find_node(const ggml_cgraph * graph, int last, const ggml_tensor * t) {
    int i = last - 1;
    while (i >= 0 && graph->nodes[i] != t) {
        --i;
    }
    return i;
}

// Moves nodes a and b, which may be null, and their views from node `first` on to before node `last`. Not if a node between works in place
// on what they read, src.
static void ggml_turbo_move(ggml_cgraph * graph, int first, const ggml_tensor * src, int last, const ggml_tensor * a, const ggml_tensor * b) {
    const ggml_tensor * root = src->view_src ? src->view_src : src;
    const auto moves = [a, b](const ggml_tensor * node) {
        return node == a || node->view_src == a || (b && (node == b || node->view_src == b));
    };
    for (int j = first; j < last; ++j) {
        const ggml_tensor * node = graph->nodes[j];
        if (!ggml_op_is_empty(node->op) && node->view_src == root) {
            return;
        }
    }
    // the others keep their order
    std::stable_partition(graph->nodes + first, graph->nodes + last, [moves](const ggml_tensor * node) { return !moves(node); });
}

// llama.cpp's graph rotates values before it computes keys. A rotation that a write alone reads is brought next to it, so that
// nothing comes between: then what it reads is there still when the write is done.
static void ggml_turbo_bring_rotations(ggml_cgraph * graph) {
    for (int last = 0; last < graph->n_nodes; ++last) {
        if (!ggml_turbo_is_write(graph, last)) {
            continue;
        }
        const ggml_tensor * rows = graph->nodes[last]->src[0];
        const int first = ggml_turbo_find_node(graph, last, rows->view_src ? rows->view_src : rows);
        if (first >= 0 && ggml_turbo_is_rotation(graph, first) && ggml_turbo_passes(graph, first, last, rows)) {
            ggml_turbo_move(graph, first, graph->nodes[first]->src[1], last, graph->nodes[first], nullptr);
        }
    }
}
