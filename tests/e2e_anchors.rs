//! Key anchors: exact, whatever happens to the cache.
#![cfg(feature = "llama")]

mod common;

use std::sync::OnceLock;

use common::engine::{Context, Entry, Model, Options};
use common::gguf::{Tiny, write_tiny_model};
use common::gguf_file::{Gguf, Tensor};
use common::models::tiny;
use common::state::{restore_seq, save_seq};
use common::stats::kld;
use common::{F16, TURBO4};
use llama_turboquant::llama::sys;
use proptest::prelude::*;

const ON: sys::llama_kv_anchors_type = sys::LLAMA_KV_ANCHORS_ON;
const OFF: sys::llama_kv_anchors_type = sys::LLAMA_KV_ANCHORS_OFF;

/// Largest divergence of equals: the largest of 100 thousand was 1.4e-6.
const LIMIT: f64 = 2e-5;

/// What may happen to a cache.
#[derive(Debug, Clone)]
enum Op {
    /// So many tokens of a sequence in one batch.
    Decode { seq: usize, n: usize },
    /// One token of each sequence that has any, in one batch.
    Together,
    /// Sequence `to` becomes a copy of `from`.
    Copy { from: usize, to: usize },
    /// The last tokens are taken back.
    Cut { seq: usize, n: usize },
    /// The first tokens are dropped and the others move to the front.
    Shift { seq: usize, n: usize },
    /// A sequence goes.
    Forget { seq: usize },
    /// Every other sequence goes.
    Keep { seq: usize },
    /// A sequence is saved, removed, and restored as another.
    Restore { from: usize, to: usize },
}

const N_SEQ: usize = 3;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let seq = || 0..N_SEQ;
    let op = prop_oneof![
        6 => (seq(), prop_oneof![1usize..4, 1usize..150]).prop_map(|(seq, n)| Op::Decode { seq, n }),
        4 => Just(Op::Together),
        2 => (seq(), seq()).prop_map(|(from, to)| Op::Copy { from, to }),
        2 => (seq(), 1usize..40).prop_map(|(seq, n)| Op::Cut { seq, n }),
        2 => (seq(), 1usize..100).prop_map(|(seq, n)| Op::Shift { seq, n }),
        1 => seq().prop_map(|seq| Op::Forget { seq }),
        1 => seq().prop_map(|seq| Op::Keep { seq }),
        2 => (seq(), seq()).prop_map(|(from, to)| Op::Restore { from, to }),
    ];
    prop::collection::vec(op, 1..30)
}

/// A context, and how many tokens each sequence has.
struct Cache<'m> {
    context: Context<'m>,
    unified: bool,
    len: [usize; N_SEQ],
    token: i32,
    /// llama.cpp copies a stream's data when it decodes next. What is saved or restored before would be lost.
    copying: bool,
}

impl<'m> Cache<'m> {
    fn new(model: &'m Model, options: Options) -> Self {
        let context = Context::new(model, options).expect("a context");
        Self { context, unified: options.unified, len: [0; N_SEQ], token: 7, copying: false }
    }

    fn memory(&self) -> sys::llama_memory_t {
        self.context.memory()
    }

    fn entry(&mut self, seq: usize) -> Entry {
        self.token = 3 + (self.token * 29 + 11) % 250;
        self.len[seq] += 1;
        Entry { token: self.token, pos: self.len[seq] - 1, seq: seq as i32, output: true }
    }

    /// Logits that the operation brings forth. One that is not possible now does nothing.
    fn run(&mut self, op: &Op, room: usize) -> Vec<Vec<f32>> {
        let used: usize = if self.unified {
            self.len.iter().sum()
        } else {
            self.len.into_iter().max().unwrap_or(0)
        };
        // SAFETY: the memory belongs to the context, sequences are in range.
        unsafe {
            match *op {
                Op::Decode { seq, n } if used + n <= room => {
                    let entries: Vec<_> = (0..n).map(|_| self.entry(seq)).collect();
                    self.copying = false;
                    return self.context.decode(&entries);
                }
                Op::Together if used + N_SEQ <= room && self.len.iter().any(|&n| n > 0) => {
                    let seqs: Vec<_> = (0..N_SEQ).filter(|&seq| self.len[seq] > 0).collect();
                    let entries: Vec<_> = seqs.into_iter().map(|seq| self.entry(seq)).collect();
                    self.copying = false;
                    return self.context.decode(&entries);
                }
                Op::Copy { from, to } if from != to => {
                    sys::llama_memory_seq_rm(self.memory(), to as i32, -1, -1);
                    sys::llama_memory_seq_cp(self.memory(), from as i32, to as i32, -1, -1);
                    self.len[to] = self.len[from];
                    self.copying = !self.unified;
                }
                Op::Cut { seq, n } if n < self.len[seq] => {
                    self.len[seq] -= n;
                    assert!(sys::llama_memory_seq_rm(
                        self.memory(),
                        seq as i32,
                        self.len[seq] as i32,
                        -1
                    ));
                }
                // A cell that two sequences share cannot move for one of them.
                Op::Shift { seq, n } if n < self.len[seq] && (!self.unified || self.alone(seq)) => {
                    assert!(sys::llama_memory_seq_rm(self.memory(), seq as i32, 0, n as i32));
                    sys::llama_memory_seq_add(self.memory(), seq as i32, n as i32, -1, -(n as i32));
                    self.len[seq] -= n;
                }
                Op::Forget { seq } => {
                    sys::llama_memory_seq_rm(self.memory(), seq as i32, -1, -1);
                    self.len[seq] = 0;
                }
                Op::Keep { seq } if self.unified => {
                    sys::llama_memory_seq_keep(self.memory(), seq as i32);
                    let len = self.len[seq];
                    self.len = [0; N_SEQ];
                    self.len[seq] = len;
                }
                // Cells that another sequence shares stay in use.
                Op::Restore { from, to }
                    if self.len[from] > 0
                        && !self.copying
                        && (!self.unified || self.alone(from) || used + self.len[from] <= room) =>
                {
                    let state = save_seq(&self.context, from as i32);
                    sys::llama_memory_seq_rm(self.memory(), from as i32, -1, -1);
                    let len = std::mem::take(&mut self.len[from]);
                    sys::llama_memory_seq_rm(self.memory(), to as i32, -1, -1);
                    let (n, log) = restore_seq(&mut self.context, &state, to as i32);
                    assert_eq!(n, state.len(), "{log}");
                    self.len[to] = len;
                }
                _ => {}
            }
        }
        Vec::new()
    }

    /// Whether no other sequence has tokens: none of its cells can be shared.
    fn alone(&self, seq: usize) -> bool {
        (0..N_SEQ).all(|other| other == seq || self.len[other] == 0)
    }
}

/// The largest difference of logits between a cache with anchors and one without.
fn check(model: &Model, options: Options, ops: &[Op], limit: f64) -> Result<(), TestCaseError> {
    let room = if options.unified { options.n_ctx } else { options.n_ctx / options.n_seq } as usize;
    let mut with = Cache::new(model, Options { anchors: ON, ..options });
    // llama.cpp's flash attention over f16 adds values up in f16.
    let flash_attn = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
    let mut without = Cache::new(model, Options { anchors: OFF, flash_attn, ..options });
    for (i, op) in ops.iter().enumerate() {
        let (a, b) = (with.run(op, room), without.run(op, room));
        for (a, b) in a.iter().zip(&b) {
            let kld = kld(b, a);
            prop_assert!(kld <= limit, "operation {i}, {op:?}: KLD {kld:.2e}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn f16_with_anchors_is_f16(ops in ops(), unified: bool, flash_attn: bool, n_ubatch in prop_oneof![Just(512u32), Just(48), Just(7)]) {
        let flash_attn = if flash_attn { sys::LLAMA_FLASH_ATTN_TYPE_ENABLED } else { sys::LLAMA_FLASH_ATTN_TYPE_DISABLED };
        let n_ctx = if unified { 512 } else { 3 * 512 };
        let options = Options { n_ctx, n_seq: N_SEQ as u32, unified, flash_attn, n_ubatch, n_threads: 1, ..Options::new((F16, F16)) };
        check(model(), options, &ops, LIMIT)?;
    }
}

/// Logits of attention go up to about 5: a term that is added behind the cap is far off.
const SOFTCAP: Tiny = Tiny { key_bias: 3.0, sharpness: 30.0, softcap: 1.0, head_dim: 64 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The term enters before a softcap; and a cache with a sliding window.
    #[test]
    fn f16_with_anchors_is_f16_under_a_softcap(ops in ops(), unified: bool, flash_attn: bool, n_ubatch in prop_oneof![Just(512u32), Just(48), Just(7)]) {
        let flash_attn = if flash_attn { sys::LLAMA_FLASH_ATTN_TYPE_ENABLED } else { sys::LLAMA_FLASH_ATTN_TYPE_DISABLED };
        let n_ctx = if unified { 512 } else { 3 * 512 };
        let options = Options { n_ctx, n_seq: N_SEQ as u32, unified, flash_attn, n_ubatch, n_threads: 1, ..Options::new((F16, F16)) };
        static MODEL: OnceLock<Model> = OnceLock::new();
        check(MODEL.get_or_init(|| tiny(SOFTCAP)), options, &ops, LIMIT)?;
    }
}

/// Cells without an anchor before the first that has one: new keys of a sliding window take the place of old ones,
/// and those before them go. Proptest comes upon it once in thousands of cases.
#[test]
fn cells_without_anchors_come_first() {
    let ops = [
        Op::Decode { seq: 0, n: 58 },
        Op::Decode { seq: 1, n: 1 },
        Op::Together,
        Op::Decode { seq: 0, n: 94 },
        Op::Keep { seq: 0 },
        Op::Decode { seq: 0, n: 1 },
        Op::Decode { seq: 1, n: 3 },
    ];
    let model = tiny(SOFTCAP);
    for flash_attn in [sys::LLAMA_FLASH_ATTN_TYPE_DISABLED, sys::LLAMA_FLASH_ATTN_TYPE_ENABLED] {
        let options = Options {
            flash_attn,
            n_seq: N_SEQ as u32,
            unified: true,
            n_ubatch: 48,
            n_threads: 1,
            ..Options::new((F16, F16))
        };
        check(&model, Options { n_ctx: 512, ..options }, &ops, LIMIT)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The keys of a token that a model makes NaN go into no anchor of another sequence, whose weight for them is 0.
#[test]
fn nan_keys_stay_in_their_sequence() {
    const BAD: i32 = 200;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    write_tiny_model(&path, Tiny::new(64));
    let mut file = Gguf::read(&path);
    let embeddings = file.tensors.iter_mut().find(|t| t.name == "token_embd.weight");
    let embeddings = embeddings.expect("the embeddings");
    let n_embd = embeddings.shape[0] as usize;
    let mut values = embeddings.values();
    values[BAD as usize * n_embd..][..n_embd].fill(f32::NAN);
    *embeddings =
        Tensor::f32(embeddings.name.clone(), embeddings.shape.clone(), values.into_iter());
    file.write(&path);
    let model = Model::load(&path).expect("the model loads");

    // Two sequences in one ubatch; the embedding of the token is its logit, too, which does not count.
    let logits = |bad: bool, unified| {
        let options = Options {
            n_seq: 2,
            unified,
            n_ubatch: 256,
            n_threads: 1,
            anchors: ON,
            ..Options::new((TURBO4, TURBO4))
        };
        let mut context = Context::new(&model, options).expect("a context");
        let entries = (0..2 * 80).map(|i| {
            let (seq, pos) = (i / 80, i % 80);
            let token = if bad && seq == 1 && pos == 30 { BAD } else { 3 + (i * 29 % 190) as i32 };
            Entry { token, pos, seq: seq as i32, output: seq == 0 && pos == 79 }
        });
        let mut logits = context.decode(&entries.collect::<Vec<_>>()).remove(0);
        logits.remove(BAD as usize);
        logits
    };
    for unified in [false, true] {
        let logits = [false, true].map(|bad| logits(bad, unified));
        assert!(logits[0].iter().all(|x| x.is_finite()));
        assert_eq!(logits[0], logits[1], "unified: {unified}");
    }
}

/// Without the cap, logits differ by far more than the limit.
#[test]
fn the_softcap_is_felt() {
    let logits = |softcap| {
        let model = tiny(Tiny { softcap, ..SOFTCAP });
        let tokens: Vec<_> = (0..64).map(|i| 3 + i * 29 % 250).collect();
        Context::new(&model, Options::new((F16, F16))).expect("a context").prefill(&tokens, 0, 0)
    };
    let kld = kld(&logits(1e6), &logits(SOFTCAP.softcap));
    println!("KLD {kld:.2e}");
    assert!(kld > 200.0 * LIMIT, "KLD {kld:.2e}");
}

/// With large biases of its keys: any key that is measured from one anchor and read with another is far off.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| tiny(Tiny { key_bias: 3.0, sharpness: 30.0, ..Tiny::new(64) }))
}
