// Attention of a few queries at head_dim 128; a file for each head_dim, so that they compile side by side.

#include "turbo-attention-start.cuh"

turbo::attention_kernels turbo::find_attention_128(ggml_type k, ggml_type v) {
#if defined(GGML_USE_HIP) || defined(GGML_USE_MUSA)
    GGML_UNUSED(k);
    GGML_UNUSED(v);
    return {};
#else
    return find_attention<128>(k, v);
#endif
}
