//! Writes a tiny model with latent attention (MLA): deepseek2, a layer of random weights.

use std::path::Path;

use super::gguf::{N_VOCAB, float, uint, write_random};

const N_EMBD: u64 = 128;
const N_HEAD: u64 = 2;
const N_FF: u64 = 64;
const N_LORA: u64 = 64; // of queries
const N_ROPE: u64 = 64; // of a key, besides those that are latent
const N_NOPE: u64 = 32;
const N_VALUE: u64 = 32;

/// Keys of 64 latent values, which are the values, too, and of 64 that RoPE turns.
pub fn write_latent_model(path: &Path) {
    write_latent(path, 64);
}

/// With so many latent values.
pub fn write_latent(path: &Path, n_latent: u64) {
    let keys = vec![
        ("context_length", uint(512)),
        ("embedding_length", uint(N_EMBD)),
        ("block_count", uint(1)),
        ("leading_dense_block_count", uint(1)),
        ("feed_forward_length", uint(N_FF)),
        ("expert_feed_forward_length", uint(N_FF)),
        ("expert_shared_count", uint(0)),
        ("attention.head_count", uint(N_HEAD)),
        ("attention.head_count_kv", uint(1)),
        ("attention.layer_norm_rms_epsilon", float(1e-5)),
        ("attention.q_lora_rank", uint(N_LORA)),
        ("attention.kv_lora_rank", uint(n_latent)),
        ("attention.key_length", uint(n_latent + N_ROPE)),
        ("attention.value_length", uint(n_latent)),
        ("attention.key_length_mla", uint(N_NOPE + N_ROPE)),
        ("attention.value_length_mla", uint(N_VALUE)),
        ("rope.dimension_count", uint(N_ROPE)),
    ];
    let tensors: [(&str, &[u64]); 16] = [
        ("token_embd", &[N_EMBD, N_VOCAB]),
        ("output_norm", &[N_EMBD]),
        ("blk.0.attn_norm", &[N_EMBD]),
        ("blk.0.attn_q_a", &[N_EMBD, N_LORA]),
        ("blk.0.attn_q_a_norm", &[N_LORA]),
        ("blk.0.attn_q_b", &[N_LORA, N_HEAD * (N_NOPE + N_ROPE)]),
        ("blk.0.attn_kv_a_mqa", &[N_EMBD, n_latent + N_ROPE]),
        ("blk.0.attn_kv_a_norm", &[n_latent]),
        ("blk.0.attn_k_b", &[N_NOPE, n_latent, N_HEAD]),
        ("blk.0.attn_v_b", &[n_latent, N_VALUE, N_HEAD]),
        ("blk.0.attn_output", &[N_HEAD * N_VALUE, N_EMBD]),
        ("blk.0.ffn_norm", &[N_EMBD]),
        ("blk.0.ffn_gate", &[N_EMBD, N_FF]),
        ("blk.0.ffn_up", &[N_EMBD, N_FF]),
        ("blk.0.ffn_down", &[N_FF, N_EMBD]),
        ("output", &[N_EMBD, N_VOCAB]),
    ];
    // So that logits are of several units, and attention moves them.
    let size = |name: &str| match name {
        "output_norm" => 10.0,
        _ if name.ends_with("_norm") => 1.0,
        _ if name.contains("attn_") => 0.5,
        _ => 0.1,
    };
    let tensor =
        |(name, shape): (&str, &[u64])| (format!("{name}.weight"), shape.to_vec(), size(name));
    write_random(path, "deepseek2", keys, tensors.into_iter().map(tensor));
}
