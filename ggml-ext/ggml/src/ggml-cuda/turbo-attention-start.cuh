// How the kernels of turbo-attention.cuh are found and started.

#pragma once

#include "common.cuh"
#include "turbo-attention.cuh"

namespace turbo {

typedef void (*start_attention_t)(const attention_args & args, dim3 blocks, cudaStream_t stream);
typedef void (*start_combine_t)  (const attention_args & args, const float * sinks, const view & dst, dim3 blocks, cudaStream_t stream);

// The kernels of a head_dim: what starts them, and the numbers of cells and rows that a block is made for.
struct attention_kernels {
    start_attention_t attention; // null: there is none for this pair
    start_combine_t   combine;
    int               n_cells;   // of the tiles of all warps
};

// K, V: at least one of them turbo, the other turbo, f16 or q8_0
attention_kernels find_attention_64 (ggml_type k, ggml_type v);
attention_kernels find_attention_128(ggml_type k, ggml_type v);
attention_kernels find_attention_256(ggml_type k, ggml_type v);

template <int D, typename TK, typename TV> static void
start_attention(const attention_args & args, dim3 blocks, cudaStream_t stream) {
    attention_kernel<D, TK, TV><<<blocks, dim3(LANES, n_warps_of<D>), 0, stream>>>(args);
}

template <int D> static void
start_combine(const attention_args & args, const float * sinks, const view & dst, dim3 blocks, cudaStream_t stream) {
    combine_kernel<D><<<blocks, D, 0, stream>>>(args, sinks, dst);
}

template <int D, typename TK> static start_attention_t find_turbo_v(ggml_type v) {
    switch (v) {
        case GGML_TYPE_TURBO2: return start_attention<D, TK, kv_turbo<2>>;
        case GGML_TYPE_TURBO3: return start_attention<D, TK, kv_turbo<3>>;
        case GGML_TYPE_TURBO4: return start_attention<D, TK, kv_turbo<4>>;
        default:               return nullptr;
    }
}

template <int D, typename TK> static start_attention_t find_v(ggml_type v) {
    switch (v) {
        case GGML_TYPE_F16:  return start_attention<D, TK, kv_f16>;
        case GGML_TYPE_Q8_0: return start_attention<D, TK, kv_q8_0>;
        default:             return find_turbo_v<D, TK>(v);
    }
}

template <int D> static attention_kernels find_attention(ggml_type k, ggml_type v) {
    start_attention_t start = nullptr;
    switch (k) {
        case GGML_TYPE_TURBO2: start = find_v<D, kv_turbo<2>>(v);       break;
        case GGML_TYPE_TURBO3: start = find_v<D, kv_turbo<3>>(v);       break;
        case GGML_TYPE_TURBO4: start = find_v<D, kv_turbo<4>>(v);       break;
        case GGML_TYPE_F16:    start = find_turbo_v<D, kv_f16 >(v);     break;
        case GGML_TYPE_Q8_0:   start = find_turbo_v<D, kv_q8_0>(v);     break;
        default:                                                        break;
    }
    return { start, start_combine<D>, tile_cells<D>*n_warps_of<D> };
}

} // namespace turbo
