//! What happens to a cache in the life of a context, and the logits that follow each step.

use super::engine::{Context, Entry, Model, Options, context};
use super::state::{restore, restore_seq, save, save_seq, shift};
use super::stats::{kld, mean_max};
use llama_turboquant::llama::sys;

/// Tokens that are decoded one by one after a shift or a restored state.
const N_MORE: usize = 8;

/// Each step's name, and logits that follow.
pub type Steps = Vec<(&'static str, Vec<Vec<f32>>)>;

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

/// A prompt, tokens one by one (so many of each), a shift, restored states. `options` are for two
/// sequences.
pub fn run(
    model: &Model,
    options: Options,
    tokens: &[i32],
    (n, n_single): (usize, usize),
) -> Steps {
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

/// The largest mean divergence of a step's logits from those without what is tested. Prints all.
pub fn divergence(name: &str, with: &Steps, without: &Steps) -> f64 {
    assert_eq!(with.len(), without.len());
    let mut largest = 0.0f64;
    for ((step, a), (_, b)) in with.iter().zip(without) {
        assert_eq!(a.len(), b.len());
        let (mean, max) = mean_max(&a.iter().zip(b).map(|(a, b)| kld(b, a)).collect::<Vec<_>>());
        println!("{name}, {step}: mean KLD {mean:.1e}, max {max:.1e}, of {} logits", a.len());
        largest = largest.max(mean);
    }
    largest
}
