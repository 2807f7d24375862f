// Which rows an operator reads and writes: SET_ROWS, GET_ROWS and copies. Strides and offsets are in values, of turbo types
// in words of 16 bits.

#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : require

#include "turbo_codec.glsl"

layout (constant_id = 0) const uint K   = 4;
layout (constant_id = 1) const uint F16 = 0; // whether the values are f16, not f32
layout (constant_id = 2) const uint IDS = 0; // words of 32 bits of an index, 0: a copy

layout (push_constant) uniform parameter {
    uint n_blocks;
    uint src_ne0; uint src_ne1; uint src_ne2; uint src_nb1; uint src_nb2; uint src_nb3; uint src_at; // ne0 in blocks
    uint dst_ne0; uint dst_ne1; uint dst_ne2; uint dst_nb1; uint dst_nb2; uint dst_nb3; uint dst_at;
    uint ids_ne0; uint ids_ne1; uint ids_ne2; uint ids_nb0; uint ids_nb1; uint ids_nb2; uint ids_at;
} p;

layout (binding = 1) readonly buffer Ids { uint ids[]; };

// the number of this group, of as many as there are
uint group_number() {
    return gl_WorkGroupID.y*gl_NumWorkGroups.x + gl_WorkGroupID.x;
}

// rows are numbered through dimensions 1 to 3
uint src_row(uint r) {
    return p.src_at + r%p.src_ne1*p.src_nb1 + r/p.src_ne1%p.src_ne2*p.src_nb2 + r/p.src_ne1/p.src_ne2*p.src_nb3;
}
uint dst_row(uint r) {
    return p.dst_at + r%p.dst_ne1*p.dst_nb1 + r/p.dst_ne1%p.dst_ne2*p.dst_nb2 + r/p.dst_ne1/p.dst_ne2*p.dst_nb3;
}

// the index at i of the tensor of indices; of those of 64 bits the lower word
uint id_at(uvec3 i) {
    return ids[p.ids_at + i.x*p.ids_nb0 + i.y*p.ids_nb1 + i.z*p.ids_nb2];
}
