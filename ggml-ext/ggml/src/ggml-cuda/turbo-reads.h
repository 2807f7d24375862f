// What a graph does around flash attention, found in its nodes: queries are scaled and rotated as they are loaded, and the result is
// rotated back as it is put together. In decoding each kernel takes longer to start than to run.

#pragma once

#include "turbo-writes.h"

struct ggml_turbo_read {
    const ggml_tensor * queries;   // contiguous, or [d, n_group, n_heads, n_tokens] if scaled; null: those of attention
    const ggml_tensor * scale;     // [d, 1, n_heads]; null: none
    int                 n_rotated; // values that a Hadamard matrix multiplies; 0: none
    ggml_tensor       * attention;
    ggml_tensor       * rotated;   // the result times such a matrix; null: as it is
};

// The queries of attention are all of `node`, [d, n_head, n_tokens], by token and head.
static bool ggml_turbo_are_queries(const ggml_tensor * q, const ggml_tensor * node) {
    return q->view_src == node && q->view_offs == 0 && q->type == GGML_TYPE_F32 && ggml_nelements(q) == ggml_nelements(node) &&
        q->nb[0] == sizeof(float) && q->nb[2] == (size_t) q->ne[0]*sizeof(float) && q->nb[1] == (size_t) q->ne[2]*q->nb[2] &&
        (q->ne[3] == 1 || q->nb[3] == (size_t) q->ne[1]*q->nb[1]);
}

// Nodes that end in attention `last`: whether its queries are those of rotation `at` and nobody else's.
static bool ggml_turbo_rotates_queries(const ggml_cgraph * graph, int at, int last) {
    const ggml_tensor * q    = graph->nodes[last]->src[0];
    const ggml_tensor * node = graph->nodes[at];
    return ggml_turbo_is_rotation(graph, at) && ggml_turbo_are_queries(q, node) && q->ne[0]%node->ne[0] == 0 &&
        ggml_turbo_is_alone(graph, at, last);
}

// The attention at node i or after what is done to its queries there, and how many nodes it is with what is done to its result;
// 0: there is none, or nothing is done to either.
static int ggml_turbo_match_read(const ggml_cgraph * graph, int i, ggml_turbo_read & read) {
    read = {};
    int at    = i;
    int scale = -1;
    if (ggml_turbo_is_scale(graph, at)) {
        const ggml_tensor * q = graph->nodes[at]->src[0];
        if (q->nb[2] != (size_t) q->ne[1]*q->nb[1] || !ggml_is_contiguous(graph->nodes[at])) {
            return 0;
        }
        read.queries = q;
        read.scale   = graph->nodes[at]->src[1];
        scale = at;
        at    = ggml_turbo_next_node(graph, at + 1);
    }
    int rotation = -1;
    if (ggml_turbo_is_rotation(graph, at)) {
        const ggml_tensor * q = graph->nodes[at]->src[1];
        if (scale >= 0 && !ggml_turbo_passes(graph, scale, at, q)) {
            return 0;
        }
        read.queries   = scale >= 0 ? read.queries : q;
        read.n_rotated = (int) q->ne[0];
        rotation = at;
        at       = ggml_turbo_next_node(graph, at + 1);
    } else if (scale >= 0) {
        return 0;
    }
    if (!ggml_turbo_is(graph, at, GGML_OP_FLASH_ATTN_EXT)) {
        return 0;
    }
    read.attention = graph->nodes[at];
    const ggml_tensor * k = read.attention->src[1];
    if (!ggml_is_turbo(k->type) && !ggml_is_turbo(read.attention->src[2]->type)) {
        return 0;
    }
    const int64_t d = read.attention->src[0]->ne[0];
    if (rotation >= 0 && !ggml_turbo_rotates_queries(graph, rotation, at)) {
        return 0;
    }
    if (read.scale && (read.scale->ne[0] != d || read.scale->ne[2] != k->ne[2] ||
            read.queries->ne[1]*read.queries->ne[2] != read.attention->src[0]->ne[2])) {
        return 0;
    }
    const int next = ggml_turbo_next_node(graph, at + 1);
    if (ggml_turbo_is_rotation(graph, next) && read.attention->ne[0]%graph->nodes[next]->ne[0] == 0 &&
            ggml_turbo_passes(graph, at, next, graph->nodes[next]->src[1])) {
        read.rotated = graph->nodes[next];
        return next + 1 - i;
    }
    return read.n_rotated ? at + 1 - i : 0;
}

// Brings the scaling and the rotation of queries next to attention, before memory is given to nodes.
static void ggml_turbo_bring_queries(ggml_cgraph * graph) {
    for (int last = 0; last < graph->n_nodes; ++last) {
        const ggml_tensor * attention = graph->nodes[last];
        if (!ggml_turbo_is(graph, last, GGML_OP_FLASH_ATTN_EXT) ||
                (!ggml_is_turbo(attention->src[1]->type) && !ggml_is_turbo(attention->src[2]->type))) {
            continue;
        }
        const int rotation = ggml_turbo_find_node(graph, last, attention->src[0]->view_src);
        if (rotation < 0 || !ggml_turbo_rotates_queries(graph, rotation, last)) {
            continue;
        }
        const ggml_tensor * queries = graph->nodes[rotation]->src[1];
        int scale = ggml_turbo_find_node(graph, rotation, queries->view_src ? queries->view_src : queries);
        if (scale >= 0 && (!ggml_turbo_is_scale(graph, scale) || !ggml_turbo_passes(graph, scale, rotation, queries))) {
            scale = -1;
        }
        ggml_turbo_move(graph, scale >= 0 ? scale : rotation, scale >= 0 ? graph->nodes[scale]->src[0] : queries, last,
            graph->nodes[rotation], scale >= 0 ? graph->nodes[scale] : nullptr);
    }
}
