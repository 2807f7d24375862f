//! Writes a tiny llama model: random weights, one layer, any head_dim. Its text is noise, its
//! shapes are real. Format: gguf.md of ggml, version 3.

use std::path::Path;

const N_HEAD: u64 = 2;
const N_FF: u64 = 64;
const N_VOCAB: u64 = 3 + 256; // <unk>, <s>, </s> and the bytes
const ALIGNMENT: usize = 32;

/// What a tiny model is like.
#[derive(Clone, Copy, Debug)]
pub struct Tiny {
    pub head_dim: u64,
    /// Size of the biases of the keys; 0: none, and the architecture is llama's instead of qwen2's.
    pub key_bias: f32,
    /// Factor of the weights of queries and keys: how far logits of attention lie apart.
    pub sharpness: f32,
}

impl Tiny {
    pub fn new(head_dim: u64) -> Self {
        Self { head_dim, key_bias: 0.0, sharpness: 1.0 }
    }
}

/// Writes a model to `path`.
pub fn write_tiny_model(path: &Path, tiny: Tiny) {
    let n_embd = N_HEAD * tiny.head_dim;
    let bias = |n: &'static str, size| (n, vec![n_embd], size);
    let matrix = |n: &'static str, size| (n, vec![n_embd, n_embd], size);
    let mut tensors = vec![
        ("token_embd.weight", vec![n_embd, N_VOCAB], 0.1),
        ("output_norm.weight", vec![n_embd], 0.1),
        ("blk.0.attn_norm.weight", vec![n_embd], 0.1),
        matrix("blk.0.attn_q.weight", 0.1 * tiny.sharpness),
        matrix("blk.0.attn_k.weight", 0.1 * tiny.sharpness),
        matrix("blk.0.attn_v.weight", 0.1),
        matrix("blk.0.attn_output.weight", 0.1),
        ("blk.0.ffn_norm.weight", vec![n_embd], 0.1),
        ("blk.0.ffn_gate.weight", vec![n_embd, N_FF], 0.1),
        ("blk.0.ffn_up.weight", vec![n_embd, N_FF], 0.1),
        ("blk.0.ffn_down.weight", vec![N_FF, n_embd], 0.1),
    ];
    let arch = if tiny.key_bias == 0.0 { "llama" } else { "qwen2" };
    if tiny.key_bias != 0.0 {
        tensors.extend([
            bias("blk.0.attn_q.bias", 0.1),
            bias("blk.0.attn_k.bias", tiny.key_bias),
            bias("blk.0.attn_v.bias", 0.1),
        ]);
    }
    let metadata = metadata(arch, n_embd, tiny.head_dim);

    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        file.extend(string(&key));
        file.extend(value);
    }
    let mut offset = 0u64;
    for (name, shape, _) in &tensors {
        file.extend(string(name));
        file.extend((shape.len() as u32).to_le_bytes());
        file.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
        file.extend(0u32.to_le_bytes()); // f32
        file.extend(offset.to_le_bytes());
        let bytes = 4 * shape.iter().product::<u64>();
        offset += bytes.next_multiple_of(ALIGNMENT as u64);
    }
    let mut seed = 1u64;
    for (_, shape, size) in &tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        for _ in 0..shape.iter().product() {
            file.extend((size * uniform(&mut seed)).to_le_bytes());
        }
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    std::fs::write(path, file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Keys, and their values behind the type's id.
fn metadata(arch: &str, n_embd: u64, head_dim: u64) -> Vec<(String, Vec<u8>)> {
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<_> =
        ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes).collect();
    let types = [2, 3, 3].into_iter().chain([6; 256]); // unknown, control, byte
    let own = [
        ("context_length", uint(512)),
        ("embedding_length", uint(n_embd)),
        ("block_count", uint(1)),
        ("feed_forward_length", uint(N_FF)),
        ("attention.head_count", uint(N_HEAD)),
        ("attention.layer_norm_rms_epsilon", value(6, 1e-5f32.to_le_bytes())),
        ("rope.dimension_count", uint(head_dim)),
    ];
    let general = [
        ("general.architecture", text(arch)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", array(8, tokens.iter().map(|t| string(t)))),
        ("tokenizer.ggml.scores", array(6, (0..N_VOCAB).map(|_| vec![0; 4]))),
        ("tokenizer.ggml.token_type", array(5, types.map(|t: i32| t.to_le_bytes().to_vec()))),
        ("tokenizer.ggml.bos_token_id", uint(1)),
        ("tokenizer.ggml.eos_token_id", uint(2)),
    ];
    let own = own.into_iter().map(|(key, value)| (format!("{arch}.{key}"), value));
    own.chain(general.into_iter().map(|(key, value)| (key.to_string(), value))).collect()
}

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

fn value(type_id: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&type_id.to_le_bytes(), bytes.as_ref()].concat()
}

fn text(s: &str) -> Vec<u8> {
    value(8, string(s))
}

fn uint(n: u64) -> Vec<u8> {
    value(4, u32::try_from(n).expect("a small number").to_le_bytes())
}

fn array(type_id: u32, items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<_> = items.collect();
    let head = [&type_id.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
    value(9, [head, items.concat()].concat())
}

/// Uniform in [-1, 1), from a xorshift.
fn uniform(seed: &mut u64) -> f32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
}
