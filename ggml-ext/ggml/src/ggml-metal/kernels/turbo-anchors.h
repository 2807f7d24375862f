#pragma once

// The key-anchor term of flash attention (ggml-anchors.h) in the kernel for a few queries. Follows common.h.

// q.m of each of Q queries for this thread's cell, 0 without an anchor. The threads of a simdgroup come here together,
// each with a cell of its own; cells in a row mostly share an anchor, whose products are taken once, by all threads.
template<short Q, short DK4, short PK4, typename q4_t>
static inline void turbo_anchor_terms(
        constant ggml_metal_kargs_turbo_anchors & args,
        device const char * anchors,
        device const char * ids,
        int cell,
        short ikv2,
        short ikv3,
        threadgroup const q4_t * sq4,
        ushort tiisg,
        thread float * qm) {
    const int id = cell < args.n_kv ? ((device const int *) (ids + ikv3*args.nb_ids))[cell] : -1;

    for (short qq = 0; qq < Q; ++qq) {
        qm[qq] = 0.0f;
    }
    for (int i = simd_max(id); i >= 0; i = simd_max(id < i ? id : -1)) {
        device const half4 * m4 = (device const half4 *) (anchors + i*args.nb1 + ikv2*args.nb2 + ikv3*args.nb3);

        for (short qq = 0; qq < Q; ++qq) {
            float sum = 0.0f;
            for (short j = tiisg; j < DK4; j += N_SIMDWIDTH) {
                sum += dot((float4) m4[j], (float4) sq4[qq*PK4 + j]);
            }
            sum = simd_sum(sum);
            qm[qq] = id == i ? sum : qm[qq];
        }
    }
}
