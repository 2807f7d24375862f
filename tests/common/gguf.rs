//! Writes tiny models: random weights, a layer or two, any head_dim. Their text is noise, their
//! shapes are real.

use std::path::Path;

use super::gguf_file::{Gguf, Tensor, string};

const N_HEAD: u64 = 2;
const N_FF: u64 = 64;
pub const N_VOCAB: u64 = 3 + 256; // <unk>, <s>, </s>, the space, and the bytes but 0, which no text has

/// What a tiny model is like.
#[derive(Clone, Copy, Debug)]
pub struct Tiny {
    pub head_dim: u64,
    /// Size of the biases of the keys; 0: none.
    pub key_bias: f32,
    /// Factor of the weights of queries and keys: how far logits of attention lie apart.
    pub sharpness: f32,
    /// Largest logit of attention. 0: no limit, and the architecture is llama's. Else it is that of
    /// gemma2: a layer that sees [`Tiny::WINDOW`] cells, and one that sees all.
    pub softcap: f32,
}

impl Tiny {
    /// Cells that a layer with a sliding window sees.
    pub const WINDOW: u64 = 96;

    pub fn new(head_dim: u64) -> Self {
        Self { head_dim, key_bias: 0.0, sharpness: 1.0, softcap: 0.0 }
    }

    fn n_layer(self) -> u64 {
        if self.softcap == 0.0 { 1 } else { 2 }
    }
}

/// Some tokens that a tiny model has.
pub fn tokens(n: usize) -> Vec<i32> {
    (0..n as i32).map(|i| 3 + i * 29 % 250).collect()
}

/// Writes a model to `path`.
pub fn write_tiny_model(path: &Path, tiny: Tiny) {
    let n_embd = N_HEAD * tiny.head_dim;
    let vector = |n: &'static str, size| (n, vec![n_embd], size);
    let matrix = |n: &'static str, size| (n, vec![n_embd, n_embd], size);
    let mut layer = vec![
        vector("attn_norm.weight", 0.1),
        matrix("attn_q.weight", 0.1 * tiny.sharpness),
        matrix("attn_k.weight", 0.1 * tiny.sharpness),
        matrix("attn_v.weight", 0.1),
        matrix("attn_output.weight", 0.1),
        vector("ffn_norm.weight", 0.1),
        ("ffn_gate.weight", vec![n_embd, N_FF], 0.1),
        ("ffn_up.weight", vec![n_embd, N_FF], 0.1),
        ("ffn_down.weight", vec![N_FF, n_embd], 0.1),
    ];
    if tiny.softcap != 0.0 {
        layer.extend([
            vector("post_attention_norm.weight", 1.0),
            vector("post_ffw_norm.weight", 0.1),
        ]);
    }
    if tiny.key_bias != 0.0 {
        layer.extend([
            vector("attn_q.bias", 0.1),
            vector("attn_k.bias", tiny.key_bias),
            vector("attn_v.bias", 0.1),
        ]);
    }
    let ends = [
        ("token_embd.weight".to_string(), vec![n_embd, N_VOCAB], 0.1),
        ("output_norm.weight".to_string(), vec![n_embd], 10.0), // logits of several units
    ];
    let layers = (0..tiny.n_layer()).flat_map(|il| {
        layer
            .iter()
            .map(move |(name, shape, size)| (format!("blk.{il}.{name}"), shape.clone(), *size))
    });
    write_random(path, arch(tiny), own_keys(tiny, n_embd), ends.into_iter().chain(layers));
}

/// Writes a model of an architecture with its keys (and those of the tokenizer), and tensors of random values: name,
/// shape, size.
pub fn write_random(
    path: &Path,
    arch: &str,
    own: Vec<(&str, Vec<u8>)>,
    tensors: impl Iterator<Item = (String, Vec<u64>, f32)>,
) {
    let mut seed = 1u64;
    let tensor = |(name, shape, size): (String, Vec<u64>, f32)| {
        let n = shape.iter().product();
        let values: Vec<_> = (0..n).map(|_: u64| size * uniform(&mut seed)).collect();
        Tensor::f32(name, shape, values.into_iter())
    };
    let tensors = tensors.map(tensor).collect();
    let full = |key: &str| match key.starts_with("tokenizer.") {
        true => key.to_string(),
        false => format!("{arch}.{key}"),
    };
    let own = own.into_iter().map(|(key, value)| (full(key), value));
    Gguf { metadata: own.chain(general_keys(arch)).collect(), tensors }.write(path);
}

fn arch(tiny: Tiny) -> &'static str {
    if tiny.softcap == 0.0 { "llama" } else { "gemma2" }
}

/// Keys of the architecture, and their values behind the type's id.
fn own_keys(tiny: Tiny, n_embd: u64) -> Vec<(&'static str, Vec<u8>)> {
    let mut own = vec![
        ("context_length", uint(512)),
        ("embedding_length", uint(n_embd)),
        ("block_count", uint(tiny.n_layer())),
        ("feed_forward_length", uint(N_FF)),
        ("attention.head_count", uint(N_HEAD)),
        ("attention.layer_norm_rms_epsilon", float(1e-5)),
        ("rope.dimension_count", uint(tiny.head_dim)),
    ];
    if tiny.softcap != 0.0 {
        own.extend([
            ("attn_logit_softcapping", float(tiny.softcap)),
            ("final_logit_softcapping", float(100.0)),
            ("attention.sliding_window", uint(Tiny::WINDOW)),
        ]);
    }
    own
}

/// The architecture's name, and a vocabulary.
fn general_keys(arch: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let first = ["<unk>", "<s>", "</s>", "▁"].map(String::from);
    let bytes = (1..=255u8).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<_> = first.into_iter().chain(bytes).collect();
    let types = [2, 3, 3, 1].into_iter().chain([6; 255]); // unknown, control, normal, byte
    let keys = [
        ("general.architecture", text(arch)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", texts(tokens)),
        ("tokenizer.ggml.scores", floats((0..N_VOCAB).map(|_| 0.0))),
        ("tokenizer.ggml.token_type", ints(types)),
        ("tokenizer.ggml.bos_token_id", uint(1)),
        ("tokenizer.ggml.eos_token_id", uint(2)),
    ];
    keys.into_iter().map(|(key, value)| (key.to_string(), value))
}

fn value(type_id: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&type_id.to_le_bytes(), bytes.as_ref()].concat()
}

pub fn text(s: &str) -> Vec<u8> {
    value(8, string(s))
}

pub fn uint(n: u64) -> Vec<u8> {
    value(4, u32::try_from(n).expect("a small number").to_le_bytes())
}

pub fn float(x: f32) -> Vec<u8> {
    value(6, x.to_le_bytes())
}

pub fn boolean(yes: bool) -> Vec<u8> {
    value(7, [u8::from(yes)])
}

/// 16 bits.
pub fn short(n: u16) -> Vec<u8> {
    value(2, n.to_le_bytes())
}

pub fn texts(items: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
    array(8, items.into_iter().map(|item| string(item.as_ref())))
}

pub fn uints(items: impl IntoIterator<Item = u32>) -> Vec<u8> {
    array(4, items.into_iter().map(|n| n.to_le_bytes().to_vec()))
}

pub fn ints(items: impl IntoIterator<Item = i32>) -> Vec<u8> {
    array(5, items.into_iter().map(|n| n.to_le_bytes().to_vec()))
}

pub fn floats(items: impl IntoIterator<Item = f32>) -> Vec<u8> {
    array(6, items.into_iter().map(|x| x.to_le_bytes().to_vec()))
}

fn array(type_id: u32, items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<_> = items.collect();
    let head = [&type_id.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
    value(9, [head, items.concat()].concat())
}

/// Uniform in [-1, 1), from a xorshift.
pub fn uniform(seed: &mut u64) -> f32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
}
