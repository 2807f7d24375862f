//! Outlines of large models: GGUF files with all metadata and all tensors' shapes, of which the data is a hole. They take
//! some KiB of disk, and what a model would take of memory can be asked for.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::gguf::{float, text, uint};
use super::gguf_file::{ALIGNMENT, Info, head};

const F32: u32 = 0;
const Q4_K: u32 = 12;

/// A model's shape.
pub struct Outline {
    pub arch: &'static str,
    pub n_layer: u64,
    /// Keys of the architecture, without its name in front.
    pub keys: Vec<(&'static str, Vec<u8>)>,
    /// Tensors outside of the layers, and those of each layer.
    pub ends: Vec<(&'static str, Vec<u64>)>,
    pub layer: Vec<(&'static str, Vec<u64>)>,
}

impl Outline {
    /// Llama 3.1 8B: 32 query and 8 KV heads of 128 values.
    pub fn llama_8b() -> Self {
        let (n_embd, n_ff, n_kv, n_vocab) = (4096, 14336, 1024, 128_256);
        let keys = vec![
            ("context_length", uint(131_072)),
            ("embedding_length", uint(n_embd)),
            ("feed_forward_length", uint(n_ff)),
            ("attention.head_count", uint(32)),
            ("attention.head_count_kv", uint(8)),
            ("attention.layer_norm_rms_epsilon", float(1e-5)),
            ("rope.dimension_count", uint(128)),
            ("rope.freq_base", float(500_000.0)),
            ("vocab_size", uint(n_vocab)),
        ];
        let ends = vec![
            ("token_embd", vec![n_embd, n_vocab]),
            ("output_norm", vec![n_embd]),
            ("output", vec![n_embd, n_vocab]),
        ];
        let layer = vec![
            ("attn_norm", vec![n_embd]),
            ("attn_q", vec![n_embd, n_embd]),
            ("attn_k", vec![n_embd, n_kv]),
            ("attn_v", vec![n_embd, n_kv]),
            ("attn_output", vec![n_embd, n_embd]),
            ("ffn_norm", vec![n_embd]),
            ("ffn_gate", vec![n_embd, n_ff]),
            ("ffn_up", vec![n_embd, n_ff]),
            ("ffn_down", vec![n_ff, n_embd]),
        ];
        Self { arch: "llama", n_layer: 32, keys, ends, layer }
    }

    /// Gemma 3 4B: 5 of 6 layers see a window of 1024 tokens; 8 query and 4 KV heads of 256 values.
    pub fn gemma3_4b() -> Self {
        let (n_embd, n_ff, n_q, n_kv, n_vocab) = (2560, 10240, 2048, 1024, 262_208);
        let keys = vec![
            ("context_length", uint(131_072)),
            ("embedding_length", uint(n_embd)),
            ("feed_forward_length", uint(n_ff)),
            ("attention.head_count", uint(8)),
            ("attention.head_count_kv", uint(4)),
            ("attention.key_length", uint(256)),
            ("attention.value_length", uint(256)),
            ("attention.sliding_window", uint(1024)),
            ("attention.layer_norm_rms_epsilon", float(1e-6)),
            ("rope.freq_base", float(1e6)),
            ("vocab_size", uint(n_vocab)),
        ];
        let ends = vec![("token_embd", vec![n_embd, n_vocab]), ("output_norm", vec![n_embd])];
        let layer = vec![
            ("attn_norm", vec![n_embd]),
            ("attn_q", vec![n_embd, n_q]),
            ("attn_k", vec![n_embd, n_kv]),
            ("attn_v", vec![n_embd, n_kv]),
            ("attn_output", vec![n_q, n_embd]),
            ("attn_q_norm", vec![256]),
            ("attn_k_norm", vec![256]),
            ("post_attention_norm", vec![n_embd]),
            ("ffn_norm", vec![n_embd]),
            ("ffn_gate", vec![n_embd, n_ff]),
            ("ffn_up", vec![n_embd, n_ff]),
            ("ffn_down", vec![n_ff, n_embd]),
            ("post_ffw_norm", vec![n_embd]),
        ];
        Self { arch: "gemma3", n_layer: 34, keys, ends, layer }
    }

    /// The attention of DeepSeek V3: 512 latent values and 64 turned by RoPE, for all of 128 heads. Its feed-forward
    /// part is dense here.
    pub fn deepseek_mla() -> Self {
        let (n_embd, n_ff, n_head, n_vocab) = (7168, 18432, 128, 129_280);
        let (n_lora_q, n_lora_kv, n_rope, n_nope, n_value) = (1536, 512, 64, 128, 128);
        let keys = vec![
            ("context_length", uint(163_840)),
            ("embedding_length", uint(n_embd)),
            ("leading_dense_block_count", uint(61)),
            ("feed_forward_length", uint(n_ff)),
            ("expert_feed_forward_length", uint(2048)),
            ("expert_shared_count", uint(0)),
            ("attention.head_count", uint(n_head)),
            ("attention.head_count_kv", uint(1)),
            ("attention.layer_norm_rms_epsilon", float(1e-6)),
            ("attention.q_lora_rank", uint(n_lora_q)),
            ("attention.kv_lora_rank", uint(n_lora_kv)),
            ("attention.key_length", uint(n_lora_kv + n_rope)),
            ("attention.value_length", uint(n_lora_kv)),
            ("attention.key_length_mla", uint(n_nope + n_rope)),
            ("attention.value_length_mla", uint(n_value)),
            ("rope.dimension_count", uint(n_rope)),
            ("vocab_size", uint(n_vocab)),
        ];
        let ends = vec![
            ("token_embd", vec![n_embd, n_vocab]),
            ("output_norm", vec![n_embd]),
            ("output", vec![n_embd, n_vocab]),
        ];
        let layer = vec![
            ("attn_norm", vec![n_embd]),
            ("attn_q_a", vec![n_embd, n_lora_q]),
            ("attn_q_a_norm", vec![n_lora_q]),
            ("attn_q_b", vec![n_lora_q, n_head * (n_nope + n_rope)]),
            ("attn_kv_a_mqa", vec![n_embd, n_lora_kv + n_rope]),
            ("attn_kv_a_norm", vec![n_lora_kv]),
            ("attn_k_b", vec![n_nope, n_lora_kv, n_head]),
            ("attn_v_b", vec![n_lora_kv, n_value, n_head]),
            ("attn_output", vec![n_head * n_value, n_embd]),
            ("ffn_norm", vec![n_embd]),
            ("ffn_gate", vec![n_embd, n_ff]),
            ("ffn_up", vec![n_embd, n_ff]),
            ("ffn_down", vec![n_ff, n_embd]),
        ];
        Self { arch: "deepseek2", n_layer: 61, keys, ends, layer }
    }

    /// All tensors: name, shape, type, bytes.
    fn tensors(&self) -> Vec<(String, Vec<u64>, u32, u64)> {
        let ends = self.ends.iter().map(|(name, shape)| (format!("{name}.weight"), shape));
        let layers = (0..self.n_layer).flat_map(|il| {
            self.layer.iter().map(move |(name, shape)| (format!("blk.{il}.{name}.weight"), shape))
        });
        let sized = |(name, shape): (String, &Vec<u64>)| {
            let n: u64 = shape.iter().product();
            // As quantizers do it: vectors, and rows that are no whole blocks, stay f32.
            match shape.len() > 1 && shape[0] % 256 == 0 {
                true => (name, shape.clone(), Q4_K, n / 256 * 144),
                false => (name, shape.clone(), F32, 4 * n),
            }
        };
        ends.chain(layers).map(sized).collect()
    }

    /// Bytes of all tensors.
    pub fn n_bytes(&self) -> u64 {
        self.tensors().iter().map(|(.., size)| size).sum()
    }

    pub fn write(&self, path: &Path) {
        let own =
            self.keys.iter().map(|(key, value)| (format!("{}.{key}", self.arch), value.clone()));
        let metadata: Vec<_> = own
            .chain([
                (format!("{}.block_count", self.arch), uint(self.n_layer)),
                ("general.architecture".into(), text(self.arch)),
                ("tokenizer.ggml.model".into(), text("none")),
            ])
            .collect();
        let tensors = self.tensors();
        let infos = tensors.iter().map(|(name, shape, type_id, size)| Info {
            name,
            shape,
            type_id: *type_id,
            size: *size,
        });
        let head = head(&metadata, infos);
        let align = |n: u64| n.next_multiple_of(ALIGNMENT as u64);
        let data: u64 = tensors.iter().map(|(.., size)| align(*size)).sum();
        let mut file = File::create(path).expect("a file");
        file.write_all(&head).expect("room for it");
        file.set_len(align(head.len() as u64) + data).expect("a file system that knows holes");
    }
}
