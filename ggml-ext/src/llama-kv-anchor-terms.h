// What attention adds to the logits of a layer whose keys are stored relative to anchors (llama-kv-anchors.h).

#pragma once

struct ggml_context;
struct ggml_tensor;

struct llama_kv_anchor_terms {
    ggml_tensor * table = nullptr; // F16 [n_embd_k_gqa, n_anchors, n_stream]; null: keys are stored as they are
    ggml_tensor * ids   = nullptr; // I32 [n_kv, n_stream], the anchor of each cell

    // flash attention over K, told to add q.m(cell)
    void attach(ggml_context * ctx, ggml_tensor * flash_attn) const;

    // kq + q.m(cell), for attention by matrix products
    //   kq: [n_kv, n_tokens, n_head, n_stream], q: [n_embd_head, n_tokens, n_head, n_stream]
    ggml_tensor * add(ggml_context * ctx, ggml_tensor * kq, ggml_tensor * q) const;
};
