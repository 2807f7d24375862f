//! Writes tiny hybrids: a recurrent layer, and one that attends, of random weights.

use std::path::Path;

use super::gguf::{N_VOCAB, float, uint, uints, write_random};

const N_EMBD: u64 = 128;
const N_HEAD: u64 = 2; // of 64
const HEAD_DIM: u64 = N_EMBD / N_HEAD;
const N_FF: u64 = 64;
/// The layer that attends.
pub const ATTENDS: u32 = 1;

type Shapes = Vec<(&'static str, Vec<u64>)>;

/// jamba: Mamba, and attention without RoPE.
pub fn write_jamba(path: &Path) {
    let (inner, state, rank, conv) = (2 * N_EMBD, 16, 8, 4);
    let keys = [
        ("attention.head_count_kv", uints([0, N_HEAD as u32])),
        ("ssm.conv_kernel", uint(conv)),
        ("ssm.inner_size", uint(inner)),
        ("ssm.state_size", uint(state)),
        ("ssm.time_step_rank", uint(rank)),
    ];
    let recurrent = vec![
        ("attn_norm.weight", vec![N_EMBD]),
        ("ssm_in.weight", vec![N_EMBD, 2 * inner]),
        ("ssm_conv1d.weight", vec![conv, inner]),
        ("ssm_conv1d.bias", vec![inner]),
        ("ssm_x.weight", vec![inner, rank + 2 * state]),
        ("ssm_dt_norm.weight", vec![rank]),
        ("ssm_dt.weight", vec![rank, inner]),
        ("ssm_dt.bias", vec![inner]),
        ("ssm_b_norm.weight", vec![state]),
        ("ssm_c_norm.weight", vec![state]),
        ("ssm_a", vec![state, inner]),
        ("ssm_d", vec![inner]),
        ("ssm_out.weight", vec![inner, N_EMBD]),
        ("ffn_norm.weight", vec![N_EMBD]),
    ];
    let attends = vec![
        ("attn_norm.weight", vec![N_EMBD]),
        ("attn_q.weight", vec![N_EMBD, N_EMBD]),
        ("attn_k.weight", vec![N_EMBD, N_EMBD]),
        ("attn_v.weight", vec![N_EMBD, N_EMBD]),
        ("attn_output.weight", vec![N_EMBD, N_EMBD]),
        ("ffn_norm.weight", vec![N_EMBD]),
    ];
    write(path, "jamba", keys.into(), vec![recurrent, attends]);
}

/// qwen35: a gated delta net, attention with norms of queries and keys and a RoPE in sections, and a layer that drafts (MTP).
pub fn write_qwen35(path: &Path) {
    let (state, heads, conv) = (64, 2, 4);
    let inner = state * heads;
    let keys = [
        ("nextn_predict_layers", uint(1)),
        ("full_attention_interval", uint(2)),
        ("attention.head_count_kv", uint(N_HEAD)),
        ("attention.key_length", uint(HEAD_DIM)),
        ("attention.value_length", uint(HEAD_DIM)),
        ("rope.dimension_count", uint(HEAD_DIM)),
        ("rope.dimension_sections", uints([12, 12, 8, 0])),
        ("ssm.conv_kernel", uint(conv)),
        ("ssm.inner_size", uint(inner)),
        ("ssm.state_size", uint(state)),
        ("ssm.time_step_rank", uint(heads)),
        ("ssm.group_count", uint(heads)),
    ];
    let recurrent = vec![
        ("attn_norm.weight", vec![N_EMBD]),
        ("post_attention_norm.weight", vec![N_EMBD]),
        ("attn_qkv.weight", vec![N_EMBD, 3 * inner]),
        ("attn_gate.weight", vec![N_EMBD, inner]),
        ("ssm_conv1d.weight", vec![conv, 3 * inner]),
        ("ssm_dt.bias", vec![heads]),
        ("ssm_a", vec![heads]),
        ("ssm_beta.weight", vec![N_EMBD, heads]),
        ("ssm_alpha.weight", vec![N_EMBD, heads]),
        ("ssm_norm.weight", vec![state]),
        ("ssm_out.weight", vec![inner, N_EMBD]),
    ];
    let attends = vec![
        ("attn_norm.weight", vec![N_EMBD]),
        ("post_attention_norm.weight", vec![N_EMBD]),
        ("attn_q.weight", vec![N_EMBD, 2 * N_EMBD]), // and a gate
        ("attn_k.weight", vec![N_EMBD, N_EMBD]),
        ("attn_v.weight", vec![N_EMBD, N_EMBD]),
        ("attn_q_norm.weight", vec![HEAD_DIM]),
        ("attn_k_norm.weight", vec![HEAD_DIM]),
        ("attn_output.weight", vec![N_EMBD, N_EMBD]),
    ];
    let drafts = vec![
        ("nextn.eh_proj.weight", vec![2 * N_EMBD, N_EMBD]),
        ("nextn.enorm.weight", vec![N_EMBD]),
        ("nextn.hnorm.weight", vec![N_EMBD]),
    ];
    let drafts = [attends.clone(), drafts].concat();
    write(path, "qwen35", keys.into(), vec![recurrent, attends, drafts]);
}

fn write(path: &Path, arch: &str, own: Vec<(&str, Vec<u8>)>, layers: Vec<Shapes>) {
    let shared = [
        ("context_length", uint(512)),
        ("embedding_length", uint(N_EMBD)),
        ("block_count", uint(layers.len() as u64)),
        ("feed_forward_length", uint(N_FF)),
        ("attention.head_count", uint(N_HEAD)),
        ("attention.layer_norm_rms_epsilon", float(1e-5)),
    ];
    let ffn = [
        ("ffn_gate.weight", vec![N_EMBD, N_FF]),
        ("ffn_up.weight", vec![N_EMBD, N_FF]),
        ("ffn_down.weight", vec![N_FF, N_EMBD]),
    ];
    let of_layers = layers.into_iter().enumerate().flat_map(|(il, shapes)| {
        let all = shapes.into_iter().chain(ffn.clone());
        all.map(move |(name, shape)| (format!("blk.{il}.{name}"), shape, size(name)))
    });
    let ends = [
        ("token_embd.weight".to_string(), vec![N_EMBD, N_VOCAB], 0.1),
        ("output_norm.weight".to_string(), vec![N_EMBD], 10.0), // logits of several units
    ];
    let keys = shared.into_iter().chain(own).collect();
    write_random(path, arch, keys, ends.into_iter().chain(of_layers));
}

/// Logits of attention go up to some units.
fn size(name: &str) -> f32 {
    match name {
        "attn_q_norm.weight" | "attn_k_norm.weight" => 2.0,
        "attn_norm.weight" | "attn_q.weight" | "attn_k.weight" => 0.5,
        _ => 0.1,
    }
}
