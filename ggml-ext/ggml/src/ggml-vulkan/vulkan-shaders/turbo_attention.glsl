// Turbo types and key anchors in upstream's scalar flash attention, which has both halves of the work: flash_attn_dequant.glsl
// decodes by these macros, flash_attn.comp adds the term to its logits.

#if !defined(TURBO_ATTENTION_GLSL)
#define TURBO_ATTENTION_GLSL

#include "turbo_codec.glsl"

//
// decoding
//

layout (binding = 1) readonly buffer K_TURBO   { uint16_t  data[]; } k_turbo;
layout (binding = 2) readonly buffer V_TURBO   { uint16_t  data[]; } v_turbo;
layout (binding = 1) readonly buffer K_TURBO_D { float16_t data[]; } k_turbo_d;
layout (binding = 2) readonly buffer V_TURBO_D { float16_t data[]; } v_turbo_d;

// index bits of a turbo type, else 0
#define TURBO_BITS(TYPE) ((TYPE) == GGML_TYPE_TURBO2 ? 2u : (TYPE) == GGML_TYPE_TURBO3 ? 3u : (TYPE) == GGML_TYPE_TURBO4 ? 4u : 0u)

shared FLOAT_TYPE turbo_levels_k[32];
shared FLOAT_TYPE turbo_levels_v[32];

// to be followed by a barrier
void turbo_init_levels() {
    if (gl_LocalInvocationIndex < 32) {
        if (TURBO_BITS(FaTypeK) != 0) {
            turbo_levels_k[gl_LocalInvocationIndex] = FLOAT_TYPE(turbo_level_of(TURBO_BITS(FaTypeK), gl_LocalInvocationIndex));
        }
        if (TURBO_BITS(FaTypeV) != 0) {
            turbo_levels_v[gl_LocalInvocationIndex] = FLOAT_TYPE(turbo_level_of(TURBO_BITS(FaTypeV), gl_LocalInvocationIndex));
        }
    }
}

#define FA_DEQUANT4_TURBO(K, BUF, LEVELS) {                                                       \
    const uint  block  = (a_offset + ib)*TURBO_WORDS(K);                                          \
    const uvec4 number = TURBO_NUMBERS(K, BUF.data, block, iqs);                                  \
    return FLOAT_TYPE(BUF##_d.data[block])*                                                       \
        FLOAT_TYPEV4(LEVELS[number.x], LEVELS[number.y], LEVELS[number.z], LEVELS[number.w]);     \
}

//
// key anchors: turbo_terms.comp's buffer takes the place of the sparse indices, which these operators have not
//

const bool KEY_ANCHORS = (Flags & 32) != 0;

layout (binding = 7) readonly buffer ANCHOR_IDS   { int   data_anchor_ids[]; };   // [KV, nek3]
layout (binding = 7) readonly buffer ANCHOR_TERMS { float data_anchor_terms[]; }; // behind them [N tokens, neq2, neq3, n_anchors]

// the number of a cell's anchor, negative: none
int turbo_anchor_of(uint cell) {
    return data_anchor_ids[ik3*KV + cell];
}

// q.m of a row of this group, scaled as its logits are
float turbo_anchor_term(int id, uint row) {
    const bool grouped = p.gqa_ratio > 1;
    if (id < 0 || (grouped ? row : i*Br + row) >= N) {
        return 0.0;
    }
    const uint head  = grouped ? iq2 + row : iq2;
    const uint token = grouped ? gqa_iq1 : i*Br + row;
    return p.scale*data_anchor_terms[KV*p.nek3 + ((uint(id)*p.neq3 + iq3)*p.neq2 + head)*p.ne2 + token];
}

#endif
