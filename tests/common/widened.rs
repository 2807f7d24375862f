//! A real model whose heads are no multiple of 64: SmolLM2 with zeros after each head. Its logits are those of SmolLM2.

use std::path::Path;

use super::gguf_file::{Gguf, Tensor};

/// Channels of a head of SmolLM2.
const NARROW: usize = 64;
/// The type of its weights, and values and bytes of a block.
const Q4_1: u32 = 3;
const BLOCK: usize = 32;
const BYTES: usize = 20;
const ROPE_BASE: f64 = 100_000.0;

/// Writes the copy of SmolLM2 in `from` that has heads of `head_dim` values, a multiple of 32.
pub fn write(from: &Path, head_dim: usize, to: &Path) {
    assert!(head_dim > NARROW && head_dim.is_multiple_of(BLOCK));
    let mut file = Gguf::read(from);
    for name in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
        let value = [4u32.to_le_bytes(), (head_dim as u32).to_le_bytes()].concat();
        file.set(&format!("llama.{name}"), value);
    }
    for tensor in &mut file.tensors {
        let Some((_, name)) = tensor.name.split_once(".attn_") else { continue };
        match name {
            // Logits are divided by the root of head_dim.
            "q.weight" => widen_rows(tensor, head_dim, (head_dim as f32 / NARROW as f32).sqrt()),
            "k.weight" | "v.weight" => widen_rows(tensor, head_dim, 1.0),
            "output.weight" => widen_columns(tensor, head_dim),
            _ => {}
        }
    }
    // RoPE turns pair i by base^(-2i / head_dim) over this: as it did when heads had 64 channels.
    let exponent = |i: usize| 2.0 * i as f64 * (1.0 / NARROW as f64 - 1.0 / head_dim as f64);
    let factors = (0..head_dim / 2).map(|i| ROPE_BASE.powf(exponent(i)) as f32);
    let shape = vec![head_dim as u64 / 2];
    file.tensors.push(Tensor::f32("rope_freqs.weight".into(), shape, factors));
    file.write(to);
}

/// Rows of zeros after those of each head, and the others multiplied.
fn widen_rows(tensor: &mut Tensor, head_dim: usize, factor: f32) {
    let [n_in, n_out] = sizes(tensor);
    let row = n_in / BLOCK * BYTES;
    let mut data = Vec::new();
    for head in tensor.data[..n_out * row].chunks_exact(NARROW * row) {
        for block in head.chunks_exact(BYTES) {
            for factor_of in block[..4].chunks_exact(2) {
                let value = half::f16::from_le_bytes([factor_of[0], factor_of[1]]).to_f32();
                data.extend(half::f16::from_f32(factor * value).to_le_bytes());
            }
            data.extend(&block[4..]);
        }
        data.resize(data.len() + (head_dim - NARROW) * row, 0);
    }
    tensor.data = data;
    tensor.shape[1] = (n_out / NARROW * head_dim) as u64;
}

/// Columns of zeros after those of each head.
fn widen_columns(tensor: &mut Tensor, head_dim: usize) {
    let [n_in, n_out] = sizes(tensor);
    let blocks = n_in * n_out / BLOCK * BYTES;
    let mut data = Vec::new();
    for head in tensor.data[..blocks].chunks_exact(NARROW / BLOCK * BYTES) {
        data.extend(head);
        data.resize(data.len() + (head_dim - NARROW) / BLOCK * BYTES, 0);
    }
    tensor.data = data;
    tensor.shape[0] = (n_in / NARROW * head_dim) as u64;
}

fn sizes(tensor: &Tensor) -> [usize; 2] {
    assert_eq!((tensor.type_id, tensor.shape.len()), (Q4_1, 2), "{}", tensor.name);
    [tensor.shape[0] as usize, tensor.shape[1] as usize]
}
