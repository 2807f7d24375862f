// The turbo types and key anchors in the CUDA back end: what ggml-cuda.cu asks and calls.

#pragma once

#include "common.cuh"
#include "ggml-anchors.h"

// whether the operator is one of turbo.cu's: it reads or writes a turbo type, or attends with anchors
bool ggml_cuda_turbo_is_ours(const ggml_tensor * op);

// of ours
bool ggml_cuda_turbo_supports_op(int device, const ggml_tensor * op);
void ggml_cuda_turbo_compute    (ggml_backend_cuda_context & ctx, ggml_tensor * op);

// Orders the nodes so that what can be run as one is next to each other; before memory is given to them.
void ggml_cuda_turbo_order(ggml_cgraph * graph);

// Runs node i of the graph and some behind it in one kernel. Returns how many behind it; 0: none, nor has node i run
int ggml_cuda_turbo_try_fuse(ggml_backend_cuda_context & ctx, const ggml_cgraph * graph, int i);

// bytes that flash attention's result takes with what lies behind it, of any flash attention
size_t ggml_cuda_turbo_flash_attn_alloc_size(int device, const ggml_tensor * op);
