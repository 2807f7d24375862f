//! Key anchors with real models: an f16 cache gives the same logits with them and without.
//!
//! Weights of f32: quantized ones round the activations to 8 bits, and a difference in the last bit
//! becomes a divergence of 0.003.
#![cfg(feature = "llama")]

mod common;

use common::engine::{Context, Entry, Model, Options, context};
use common::models::{gemma_f32, smollm2_f32};
use common::state::{restore, restore_seq, save, save_seq, shift};
use common::stats::{kld, mean_max};
use common::{F16, TEXT};
use llama_turboquant::llama::sys;

/// Largest mean divergence: 2.2e-6 was measured.
const LIMIT: f64 = 2e-5;
/// Tokens that are decoded one by one after a shift or a restored state.
const N_MORE: usize = 8;

/// What happens to the cache: its name, and logits that follow.
type Steps = Vec<(&'static str, Vec<Vec<f32>>)>;

/// A context that takes `tokens` one after another.
struct Reader<'m, 't> {
    context: Context<'m>,
    tokens: std::slice::Iter<'t, i32>,
    pos: usize,
    seq: i32,
}

impl Reader<'_, '_> {
    fn entries(&mut self, n: usize, stride: usize) -> Vec<Entry> {
        let at = self.pos;
        self.pos += n;
        let output = |i| (i + 1) % stride == 0;
        let entry = |(i, &token)| Entry { token, pos: at + i, seq: self.seq, output: output(i) };
        self.tokens.by_ref().take(n).enumerate().map(entry).collect()
    }

    /// `n` tokens in one batch; logits of every `stride`th.
    fn batch(&mut self, n: usize, stride: usize) -> Vec<Vec<f32>> {
        let entries = self.entries(n, stride);
        self.context.decode(&entries)
    }

    fn single(&mut self, n: usize) -> Vec<Vec<f32>> {
        self.entries(n, 1).iter().flat_map(|&entry| self.context.decode(&[entry])).collect()
    }
}

/// A prompt, tokens one by one (so many of each), a shift, restored states.
fn run(model: &Model, options: Options, tokens: &[i32], (n, n_single): (usize, usize)) -> Steps {
    let mut reader =
        Reader { context: context(model, options), tokens: tokens.iter(), pos: 0, seq: 0 };
    let mut steps = vec![("prefill", reader.batch(n, 16)), ("one by one", reader.single(n_single))];
    // SAFETY: the memory belongs to the context.
    if unsafe { sys::llama_memory_can_shift(reader.context.memory()) } {
        shift(&mut reader.context, 4, 50);
        reader.pos -= 50;
        steps.push(("shifted", reader.single(N_MORE)));
    }

    let (state, seq_state) = (save(&reader.context), save_seq(&reader.context, 0));
    let tokens = reader.tokens.clone();
    reader.context = context(model, options);
    let (read, log) = restore(&mut reader.context, &state);
    assert_eq!(read, state.len(), "{log}");
    steps.push(("restored", reader.single(N_MORE)));

    (reader.tokens, reader.pos, reader.seq) = (tokens, reader.pos - N_MORE, 1);
    let (read, log) = restore_seq(&mut reader.context, &seq_state, 1);
    assert_eq!(read, seq_state.len(), "{log}");
    steps.push(("restored as sequence 1", reader.single(N_MORE)));
    steps
}

fn check(name: &str, model: &Model, options: Options, n: (usize, usize)) {
    let tokens = model.tokenize(&TEXT.repeat(8));
    let options = Options { n_seq: 2, unified: true, ..options };
    let with = Options { anchors: sys::LLAMA_KV_ANCHORS_ON, ..options };
    // llama.cpp's flash attention over f16 adds values up in f16.
    let flash_attn = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
    let without = Options { anchors: sys::LLAMA_KV_ANCHORS_OFF, flash_attn, ..options };
    let [with, without] = [with, without].map(|options| run(model, options, &tokens, n));
    let mut failed = false;
    for ((step, a), (_, b)) in with.iter().zip(&without) {
        assert_eq!(a.len(), b.len());
        let (mean, max) = mean_max(&a.iter().zip(b).map(|(a, b)| kld(b, a)).collect::<Vec<_>>());
        println!("{name}, {step}: mean KLD {mean:.1e}, max {max:.1e}, of {} logits", a.len());
        failed |= mean > LIMIT;
    }
    assert!(!failed, "{name}: a mean KLD above {LIMIT:.0e}");
}

#[test]
fn smollm2_is_the_same() {
    let options = Options { n_ctx: 1024, n_ubatch: 48, ..Options::new((F16, F16)) };
    check("SmolLM2", smollm2_f32(), options, (150, 80));
}

#[test]
fn gemma_is_the_same() {
    let options = Options { n_ctx: 1024, n_ubatch: 48, ..Options::new((F16, F16)) };
    check("Gemma", gemma_f32(), options, (150, 80));
}

/// The cells of its sliding window, 512 and those of a batch, are used again.
#[test]
fn gemma_beyond_its_window_is_the_same() {
    let options = Options { n_ctx: 2048, n_ubatch: 32, ..Options::new((F16, F16)) };
    check("Gemma, long", gemma_f32(), options, (950, 24));
}
