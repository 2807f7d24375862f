// What anchors add to logits: a matrix product of a few queries with a table, small beside attention.

#pragma once

#include "turbo-attention.cuh"

namespace turbo {

// q.m of every row and anchor. Blocks: anchors, KV heads, batches; threads: a warp.
template <int D> static __global__ void
terms_kernel(const attention_args args, const view table, float * terms) {
    const int id       = (int) blockIdx.x;
    const int head_kv  = (int) blockIdx.y;
    const int batch    = (int) blockIdx.z;
    const int batch_kv = args.batch_kv(batch);
    const int n_rows   = args.n_rows();

    const uint16_t * m = (const uint16_t *) (table.data + id*table.nb[1] + head_kv*table.nb[2] + batch_kv*table.nb[3]);
    __shared__ float own[D];
    for (int row = 0; row < n_rows; ++row) {
        const float * q = queries_of<D>(args, head_kv, row, batch, own);
        float sum = 0.0f;
        for (int i = (int) threadIdx.x; i < D; i += LANES) {
            sum += q[i]*float_of_half(m[i]);
        }
        sum = lanes_sum(sum);
        if (threadIdx.x == 0) {
            terms[(((int64_t) batch*args.k.ne[2] + head_kv)*args.n_anchors + id)*n_rows + row] = sum;
        }
    }
}

} // namespace turbo
