//! Writes a tiny T5: an encoder and a decoder of a layer of random weights, whose self-attention has a bias for every
//! distance.

use std::path::Path;

use super::gguf::{N_VOCAB, float, uint, write_random};

const N_EMBD: u64 = 128;
const N_HEAD: u64 = 2; // of 64
const N_FF: u64 = 64;
const N_BUCKETS: u64 = 8;

pub fn write_t5(path: &Path) {
    let keys = vec![
        ("context_length", uint(512)),
        ("embedding_length", uint(N_EMBD)),
        ("block_count", uint(1)),
        ("feed_forward_length", uint(N_FF)),
        ("attention.head_count", uint(N_HEAD)),
        ("attention.key_length", uint(N_EMBD / N_HEAD)),
        ("attention.value_length", uint(N_EMBD / N_HEAD)),
        ("attention.layer_norm_epsilon", float(1e-5)),
        ("attention.layer_norm_rms_epsilon", float(1e-5)),
        ("attention.relative_buckets_count", uint(N_BUCKETS)),
        ("decoder_start_token_id", uint(1)),
    ];
    let mut tensors = vec![
        ("token_embd".to_string(), vec![N_EMBD, N_VOCAB]),
        ("enc.output_norm".to_string(), vec![N_EMBD]),
        ("dec.output_norm".to_string(), vec![N_EMBD]),
    ];
    for half in ["enc", "dec"] {
        let mut layer = |name: &str, shape: &[u64]| {
            tensors.push((format!("{half}.blk.0.{name}"), shape.to_vec()));
        };
        let attentions = if half == "enc" { &["attn"][..] } else { &["attn", "cross_attn"] };
        for attention in attentions {
            layer(&format!("{attention}_norm"), &[N_EMBD]);
            for part in ["q", "k", "v", "o"] {
                layer(&format!("{attention}_{part}"), &[N_EMBD, N_EMBD]);
            }
        }
        layer("attn_rel_b", &[N_HEAD, N_BUCKETS]);
        layer("ffn_norm", &[N_EMBD]);
        layer("ffn_up", &[N_EMBD, N_FF]);
        layer("ffn_down", &[N_FF, N_EMBD]);
    }
    let tensor = |(name, shape)| (format!("{name}.weight"), shape, 0.1);
    write_random(path, "t5", keys, tensors.into_iter().map(tensor));
}
