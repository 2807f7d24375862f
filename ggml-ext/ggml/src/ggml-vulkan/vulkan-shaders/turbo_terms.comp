#version 450

// What anchors add to logits: q.m of every query and anchor, behind a copy of the cells' numbers of anchors, for
// turbo_attention.glsl. A thread for a product; small beside attention.

#extension GL_EXT_shader_16bit_storage : require

#include "turbo_codec.glsl"

layout (local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

// strides and offsets in values
layout (push_constant) uniform parameter {
    uint n_ids;   // of all cells
    uint n_terms;
    uint n_kv;
    uint n_anchors;
    uint dk;
    uint n_token;
    uint n_head;
    uint n_batch;
    uint heads_per_kv;
    uint batches_per_kv;
    uint q_nb1; uint q_nb2; uint q_nb3; uint q_at;
    uint anchors_nb1; uint anchors_nb2; uint anchors_nb3; uint anchors_at;
    uint ids_nb1; uint ids_at;
} p;

layout (binding = 0) readonly  buffer Q       { float    q[]; };       // [dk, n_token, n_head, n_batch]
layout (binding = 1) readonly  buffer Anchors { uint16_t anchors[]; }; // [dk, n_anchors, n_head of K, n_batch of K]
layout (binding = 2) readonly  buffer Ids     { int      ids[]; };     // [n_kv, n_batch of K]
layout (binding = 3) writeonly buffer DstIds  { int      dst_ids[]; };
layout (binding = 3) writeonly buffer Dst     { float    dst[]; };

void main() {
    const uint thread = (gl_WorkGroupID.y*gl_NumWorkGroups.x + gl_WorkGroupID.x)*gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (thread < p.n_ids) {
        dst_ids[thread] = ids[p.ids_at + thread%p.n_kv + thread/p.n_kv*p.ids_nb1];
    }
    if (thread >= p.n_terms) {
        return;
    }
    const uint id  = thread%p.n_anchors;
    const uint row = thread/p.n_anchors; // token, head, batch
    const uint token = row%p.n_token;
    const uint head  = row/p.n_token%p.n_head;
    const uint batch = row/p.n_token/p.n_head;

    const uint x = p.q_at + token*p.q_nb1 + head*p.q_nb2 + batch*p.q_nb3;
    const uint m = p.anchors_at + id*p.anchors_nb1 + head/p.heads_per_kv*p.anchors_nb2 + batch/p.batches_per_kv*p.anchors_nb3;
    float sum = 0.0;
    for (uint e = 0; e < p.dk; ++e) {
        sum += q[x + e]*turbo_float_of_half(uint(anchors[m + e]));
    }
    dst[p.n_ids + id*(p.n_terms/p.n_anchors) + row] = sum;
}
