#version 450

// K or V as f16 for upstream's flash attention, without gaps: prefill. Keys get their anchors back here, so that no attention
// has to know of them. A thread for four values; those of a cell's heads lie next to each other, as in a cache.

#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : require

#include "turbo_codec.glsl"

layout (local_size_x = 256, local_size_y = 1, local_size_z = 1) in;

layout (constant_id = 0) const uint K       = 4; // index bits of a turbo type, or one of these
layout (constant_id = 1) const uint ANCHORS = 0; // whether there are any

const uint KIND_F16  = 0;
const uint KIND_Q8_0 = 8;

// strides and offsets in words of 16 bits, of the anchors' numbers in numbers
layout (push_constant) uniform parameter {
    uint n_threads;
    uint per_row; // threads of a row
    uint n_head;
    uint n_kv;
    uint kv_nb1; uint kv_nb2; uint kv_nb3; uint kv_at;
    uint anchors_nb1; uint anchors_nb2; uint anchors_nb3; uint anchors_at;
    uint ids_nb1; uint ids_at;
} p;

layout (binding = 0) readonly  buffer KV      { uint16_t  kv[]; };
layout (binding = 1) readonly  buffer Anchors { uint16_t  anchors[]; }; // [per_row*4, n_anchors, n_head, n_batch]
layout (binding = 2) readonly  buffer Ids     { int       ids[]; };     // [n_kv, n_batch], negative: none
layout (binding = 3) writeonly buffer Dst     { float16_t dst[]; };     // [per_row*4, n_kv, n_head, n_batch]

shared float levels[32];

// values 4 c to 4 c + 3 of the row at a word
vec4 read_f16(uint row, uint c) {
    vec4 x;
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        x[i] = turbo_float_of_half(uint(kv[row + 4*c + i]));
    }
    return x;
}

vec4 read_q8_0(uint row, uint c) {
    const uint  block = row + c/8*17;
    const float d     = turbo_float_of_half(uint(kv[block]));
    const uint  low   = uint(kv[block + 1 + c%8*2]);
    const uint  high  = uint(kv[block + 2 + c%8*2]);
    const ivec4 x     = ivec4(low << 24, low << 16, high << 24, high << 16) >> 24; // signed
    return d*vec4(x);
}

vec4 read_turbo(uint row, uint c) {
    const uint  block  = row + c/16*TURBO_WORDS(K);
    const float scale  = turbo_float_of_half(uint(kv[block]));
    const uvec4 number = TURBO_NUMBERS(K, kv, block, c%16*4);
    return scale*vec4(levels[number.x], levels[number.y], levels[number.z], levels[number.w]);
}

vec4 read(uint row, uint c) {
    return K == KIND_F16 ? read_f16(row, c) : K == KIND_Q8_0 ? read_q8_0(row, c) : read_turbo(row, c);
}

void main() {
    if (gl_LocalInvocationIndex < 32) {
        levels[gl_LocalInvocationIndex] = float(turbo_level_of(K, gl_LocalInvocationIndex));
    }
    barrier();

    const uint thread = (gl_WorkGroupID.y*gl_NumWorkGroups.x + gl_WorkGroupID.x)*gl_WorkGroupSize.x + gl_LocalInvocationIndex;
    if (thread >= p.n_threads) {
        return;
    }
    const uint c     = thread%p.per_row;
    const uint head  = thread/p.per_row%p.n_head;
    const uint cell  = thread/p.per_row/p.n_head%p.n_kv;
    const uint batch = thread/p.per_row/p.n_head/p.n_kv;

    vec4 x = read(p.kv_at + cell*p.kv_nb1 + head*p.kv_nb2 + batch*p.kv_nb3, c);

    if (ANCHORS != 0) {
        const int id = ids[p.ids_at + cell + batch*p.ids_nb1];
        if (id >= 0) {
            const uint m = p.anchors_at + uint(id)*p.anchors_nb1 + head*p.anchors_nb2 + batch*p.anchors_nb3 + 4*c;
            [[unroll]] for (uint i = 0; i < 4; ++i) {
                x[i] += turbo_float_of_half(uint(anchors[m + i]));
            }
        }
    }
    const uint y = ((batch*p.n_head + head)*p.n_kv + cell)*p.per_row*4 + 4*c;
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        dst[y + i] = float16_t(x[i]);
    }
}
