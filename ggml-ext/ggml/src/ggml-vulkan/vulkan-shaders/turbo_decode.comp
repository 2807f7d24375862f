#version 450

// Rows of turbo blocks to floats: GET_ROWS, and copies to f32 and f16. A thread for four values.

#include "turbo_rows.glsl"

layout (local_size_x = 256, local_size_y = 1, local_size_z = 1) in;

layout (binding = 0) readonly  buffer Src   { uint16_t src[]; };
layout (binding = 2) writeonly buffer Dst   { float    dst[]; };
layout (binding = 2) writeonly buffer Dst16 { uint16_t dst16[]; };

const uint THREADS_PER_BLOCK = QK_TURBO/4;

shared float levels[32];

void main() {
    if (gl_LocalInvocationIndex < 32) {
        levels[gl_LocalInvocationIndex] = float(turbo_level_of(K, gl_LocalInvocationIndex));
    }
    barrier();

    const uint b = group_number()*(gl_WorkGroupSize.x/THREADS_PER_BLOCK) + gl_LocalInvocationIndex/THREADS_PER_BLOCK;
    const uint e = gl_LocalInvocationIndex%THREADS_PER_BLOCK*4;
    if (b >= p.n_blocks) {
        return;
    }

    uint x;
    uint y;
    if (IDS != 0) {
        const uint r = b/p.src_ne0;
        const uvec3 i = uvec3(r%p.ids_ne0, r/p.ids_ne0%p.ids_ne1, r/p.ids_ne0/p.ids_ne1);
        x = p.src_at + id_at(i)*p.src_nb1 + i.y*p.src_nb2 + i.z*p.src_nb3;
        y = p.dst_at + i.x*p.dst_nb1 + i.y*p.dst_nb2 + i.z*p.dst_nb3;
    } else {
        x = src_row(b/p.src_ne0);
        y = dst_row(b/p.dst_ne0);
    }
    x += b%p.src_ne0*TURBO_WORDS(K);
    y += b%p.dst_ne0*QK_TURBO + e;

    const float scale  = turbo_float_of_half(uint(src[x]));
    const uvec4 number = TURBO_NUMBERS(K, src, x, e);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        const float value = scale*levels[number[i]];
        if (F16 != 0) {
            dst16[y + i] = uint16_t(turbo_half_of(value));
        } else {
            dst[y + i] = value;
        }
    }
}
