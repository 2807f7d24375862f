//! Writes a tiny model with latent attention (MLA): deepseek2, a layer of random weights.

use std::path::Path;

use super::gguf::{N_VOCAB, float, uint, write_random};

const N_EMBD: u64 = 128;
const N_HEAD: u64 = 2;
const N_FF: u64 = 64;
const N_LORA: u64 = 64; // of queries, and of keys with values
const N_ROPE: u64 = 32; // of a key, besides those that are latent
const N_NOPE: u64 = 32;
const N_VALUE: u64 = 32;

pub fn write_latent_model(path: &Path) {
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
        ("attention.kv_lora_rank", uint(N_LORA)),
        ("attention.key_length", uint(N_LORA + N_ROPE)),
        ("attention.value_length", uint(N_LORA)),
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
        ("blk.0.attn_kv_a_mqa", &[N_EMBD, N_LORA + N_ROPE]),
        ("blk.0.attn_kv_a_norm", &[N_LORA]),
        ("blk.0.attn_k_b", &[N_NOPE, N_LORA, N_HEAD]),
        ("blk.0.attn_v_b", &[N_LORA, N_VALUE, N_HEAD]),
        ("blk.0.attn_output", &[N_HEAD * N_VALUE, N_EMBD]),
        ("blk.0.ffn_norm", &[N_EMBD]),
        ("blk.0.ffn_gate", &[N_EMBD, N_FF]),
        ("blk.0.ffn_up", &[N_EMBD, N_FF]),
        ("blk.0.ffn_down", &[N_FF, N_EMBD]),
        ("output", &[N_EMBD, N_VOCAB]),
    ];
    let tensor = |(name, shape): (&str, &[u64])| (format!("{name}.weight"), shape.to_vec(), 0.1);
    write_random(path, "deepseek2", keys, tensors.into_iter().map(tensor));
}
