//! Tiny models of every kind that llama.cpp's contexts treat differently.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use llama_turboquant::llama::Model;

use crate::common::gguf::{N_VOCAB, Tiny, boolean, float, uint, write_random, write_tiny_model};
use crate::common::hybrid::write_jamba;

const N_EMBD: u64 = 128;
const N_FF: u64 = 64;
/// Tokens that the models were "trained" with. Those with learned positions have no more.
pub const N_CTX: u64 = 512;

type Tensors = Vec<(String, Vec<u64>, f32)>;

/// A kind of model, and what may be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// llama: attention over a cache.
    Decoder,
    /// gpt2: the same with an embedding for each position.
    LearnedPositions,
    /// mamba: a recurrent state.
    Recurrent,
    /// jamba: a layer with such a state, and one that attends.
    Hybrid,
    /// bert: no cache.
    Encoder,
    /// gemma-embedding: no cache, RoPE and a window to both sides.
    Embedding,
    /// t5: the decoder sees what the encoder yields.
    EncoderDecoder,
    /// t5encoder: T5's first half alone.
    HalfOfT5,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Decoder,
        Self::LearnedPositions,
        Self::Recurrent,
        Self::Hybrid,
        Self::Encoder,
        Self::Embedding,
        Self::EncoderDecoder,
        Self::HalfOfT5,
    ];

    /// Whether a batch may go through [`Context::encode`](llama_turboquant::llama::Context::encode).
    pub fn encodes(self) -> bool {
        !matches!(self, Self::Decoder | Self::LearnedPositions | Self::Recurrent | Self::Hybrid)
    }

    /// Whether sequences stay in memory.
    pub fn remembers(self) -> bool {
        !matches!(self, Self::Encoder | Self::Embedding | Self::HalfOfT5)
    }

    pub fn load(self, dir: &Path) -> Arc<Model> {
        Model::load(self.write(dir)).unwrap_or_else(|e| panic!("{self:?}: {e}"))
    }

    fn write(self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{self:?}.gguf"));
        match self {
            Self::Decoder => write_tiny_model(&path, Tiny::new(N_EMBD / 2)),
            Self::LearnedPositions => write(&path, "gpt2", vec![norm_eps(false)], gpt2()),
            Self::Recurrent => write(&path, "mamba", ssm_keys(), mamba()),
            Self::Hybrid => write_jamba(&path),
            Self::Encoder => write(&path, "bert", bert_keys(), bert()),
            Self::Embedding => write(&path, "gemma-embedding", window_keys(), gemma_embedding()),
            Self::EncoderDecoder => write(&path, "t5", t5_keys(), t5(true)),
            Self::HalfOfT5 => write(&path, "t5encoder", t5_keys(), t5(false)),
        }
        path
    }
}

fn write(path: &Path, arch: &str, own: Vec<(&str, Vec<u8>)>, tensors: Tensors) {
    let shared = [
        ("context_length", uint(N_CTX)),
        ("embedding_length", uint(N_EMBD)),
        ("block_count", uint(1)),
        ("feed_forward_length", uint(N_FF)),
        ("attention.head_count", uint(if arch == "mamba" { 0 } else { 2 })),
    ];
    let embedding = tensor("token_embd.weight", &[N_EMBD, N_VOCAB]);
    let tensors = [embedding].into_iter().chain(tensors);
    write_random(path, arch, shared.into_iter().chain(own).collect(), tensors);
}

fn tensor(name: &str, shape: &[u64]) -> (String, Vec<u64>, f32) {
    (name.into(), shape.into(), 0.1)
}

/// Names with their shapes, each with a weight, and with a bias of the last dimension where `biased`.
fn layers(names: &[(&str, &[u64])], biased: bool) -> Tensors {
    let pair = |&(name, shape): &(&str, &[u64])| {
        let bias = tensor(&format!("{name}.bias"), &shape[shape.len() - 1..]);
        let weight = tensor(&format!("{name}.weight"), shape);
        [Some(weight), biased.then_some(bias)]
    };
    names.iter().flat_map(pair).flatten().collect()
}

fn norm_eps(rms: bool) -> (&'static str, Vec<u8>) {
    let key = if rms { "attention.layer_norm_rms_epsilon" } else { "attention.layer_norm_epsilon" };
    (key, float(1e-5))
}

fn gpt2() -> Tensors {
    let (n, ff) = (N_EMBD, N_FF);
    let biased = layers(
        &[
            ("output_norm", &[n]),
            ("blk.0.attn_norm", &[n]),
            ("blk.0.attn_qkv", &[n, 3 * n]),
            ("blk.0.attn_output", &[n, n]),
            ("blk.0.ffn_norm", &[n]),
            ("blk.0.ffn_up", &[n, ff]),
            ("blk.0.ffn_down", &[ff, n]),
        ],
        true,
    );
    biased.into_iter().chain([tensor("position_embd.weight", &[n, N_CTX])]).collect()
}

fn ssm_keys() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("ssm.conv_kernel", uint(4)),
        ("ssm.inner_size", uint(2 * N_EMBD)),
        ("ssm.state_size", uint(16)),
        ("ssm.time_step_rank", uint(8)),
        norm_eps(true),
    ]
}

fn mamba() -> Tensors {
    let (n, inner, state, rank) = (N_EMBD, 2 * N_EMBD, 16, 8);
    vec![
        tensor("output_norm.weight", &[n]),
        tensor("blk.0.attn_norm.weight", &[n]),
        tensor("blk.0.ssm_in.weight", &[n, 2 * inner]),
        tensor("blk.0.ssm_conv1d.weight", &[4, inner]),
        tensor("blk.0.ssm_conv1d.bias", &[inner]),
        tensor("blk.0.ssm_x.weight", &[inner, rank + 2 * state]),
        tensor("blk.0.ssm_dt.weight", &[rank, inner]),
        tensor("blk.0.ssm_dt.bias", &[inner]),
        tensor("blk.0.ssm_a", &[state, inner]),
        tensor("blk.0.ssm_d", &[inner]),
        tensor("blk.0.ssm_out.weight", &[inner, n]),
    ]
}

fn bert_keys() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        norm_eps(false),
        ("attention.causal", boolean(false)),
        ("pooling_type", uint(1)), // mean
        ("tokenizer.ggml.token_type_count", uint(2)),
    ]
}

fn bert() -> Tensors {
    let (n, ff) = (N_EMBD, N_FF);
    let biased = layers(
        &[
            ("token_embd_norm", &[n]),
            ("blk.0.attn_q", &[n, n]),
            ("blk.0.attn_k", &[n, n]),
            ("blk.0.attn_v", &[n, n]),
            ("blk.0.attn_output", &[n, n]),
            ("blk.0.attn_output_norm", &[n]),
            ("blk.0.ffn_up", &[n, ff]),
            ("blk.0.ffn_down", &[ff, n]),
            ("blk.0.layer_output_norm", &[n]),
        ],
        true,
    );
    let own = [tensor("token_types.weight", &[n, 2]), tensor("position_embd.weight", &[n, N_CTX])];
    biased.into_iter().chain(own).collect()
}

fn window_keys() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        norm_eps(true),
        ("attention.sliding_window", uint(64)),
        ("attention.key_length", uint(N_EMBD / 2)),
        ("attention.value_length", uint(N_EMBD / 2)),
        ("rope.dimension_count", uint(N_EMBD / 2)),
        ("pooling_type", uint(1)), // mean
    ]
}

fn gemma_embedding() -> Tensors {
    let (n, ff) = (N_EMBD, N_FF);
    layers(
        &[
            ("output_norm", &[n]),
            ("blk.0.attn_norm", &[n]),
            ("blk.0.attn_q", &[n, n]),
            ("blk.0.attn_k", &[n, n]),
            ("blk.0.attn_v", &[n, n]),
            ("blk.0.attn_output", &[n, n]),
            ("blk.0.post_attention_norm", &[n]),
            ("blk.0.attn_q_norm", &[n / 2]),
            ("blk.0.attn_k_norm", &[n / 2]),
            ("blk.0.ffn_norm", &[n]),
            ("blk.0.ffn_gate", &[n, ff]),
            ("blk.0.ffn_up", &[n, ff]),
            ("blk.0.ffn_down", &[ff, n]),
            ("blk.0.post_ffw_norm", &[n]),
        ],
        false,
    )
}

fn t5_keys() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        norm_eps(true),
        ("attention.relative_buckets_count", uint(8)),
        ("attention.key_length", uint(N_EMBD / 2)),
        ("attention.value_length", uint(N_EMBD / 2)),
        ("decoder_start_token_id", uint(0)),
    ]
}

fn t5(with_decoder: bool) -> Tensors {
    let (n, ff) = (N_EMBD, N_FF);
    let mut tensors = layers(
        &[
            ("enc.output_norm", &[n]),
            ("enc.blk.0.attn_norm", &[n]),
            ("enc.blk.0.attn_rel_b", &[2, 8]),
            ("enc.blk.0.attn_q", &[n, n]),
            ("enc.blk.0.attn_k", &[n, n]),
            ("enc.blk.0.attn_v", &[n, n]),
            ("enc.blk.0.attn_o", &[n, n]),
            ("enc.blk.0.ffn_norm", &[n]),
            ("enc.blk.0.ffn_up", &[n, ff]),
            ("enc.blk.0.ffn_down", &[ff, n]),
        ],
        false,
    );
    if with_decoder {
        let cross = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_o"];
        let names = cross.iter().map(|name| {
            let shape: &[u64] = if name.ends_with("norm") { &[n] } else { &[n, n] };
            tensor(&format!("dec.blk.0.cross_{name}.weight"), shape)
        });
        let decoder: Vec<_> = tensors
            .iter()
            .map(|(name, shape, size)| (name.replacen("enc.", "dec.", 1), shape.clone(), *size))
            .collect();
        tensors.extend(names.collect::<Vec<_>>());
        tensors.extend(decoder);
    }
    tensors
}
