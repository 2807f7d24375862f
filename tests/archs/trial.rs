//! A model with one pair of cache types: what it computes, and whether that is the same on every way there.

use std::path::Path;
use std::sync::Arc;

use llama_turboquant::llama::{
    Batch, CacheType, Context, ContextError, ContextParams, KvAnchors, KvCalibration, Model, Token,
};

/// Tokens of a sequence, and how many at a time.
const N_TOKENS: u32 = 300;
const N_BATCH: u32 = 100;
/// Tokens that a shift takes from the front.
const N_SHIFT: u32 = 64;

/// What a context gave, or why there is none.
pub type Outcome = Result<Run, String>;

/// Logits, and how far apart those are that should be the same.
pub struct Run {
    /// Of the last token of each batch, and of the one after all.
    pub logits: Vec<Vec<f32>>,
    /// Divergence of the last ones when the same tokens are decoded one by one.
    pub single: f64,
    /// When another sequence was decoded in between.
    pub other: f64,
    /// When the sequence's state went to another context; or why it did not.
    pub state: Result<f64, String>,
    /// The logits after the first tokens were taken away and the others moved up; none: the memory cannot.
    pub shifted: Option<Vec<f32>>,
}

pub fn params(k: CacheType, v: CacheType) -> ContextParams {
    ContextParams::default()
        .n_ctx(1024)
        .n_batch(N_BATCH)
        .n_ubatch(N_BATCH)
        .n_seq_max(2)
        .kv_unified(false)
        .n_threads(1)
        .cache_types(k, v)
        .kv_calibration(KvCalibration::Off)
}

/// Loads a model. Errors: why not.
pub fn load(path: &Path) -> Result<Arc<Model>, String> {
    Model::builder(path).mmap(false).load().map_err(|e| e.to_string())
}

/// Whether K can have anchors, or why not.
pub fn anchors(model: &Arc<Model>) -> Result<(), String> {
    let params = params(CacheType::Turbo4, CacheType::Turbo4).kv_anchors(KvAnchors::On);
    Context::new(model, &params).map(|_| ()).map_err(reason)
}

/// What an error says, without what every one of its kind says.
fn reason(error: ContextError) -> String {
    error.to_string()
}

fn tokens(n_vocab: u32, seed: u32) -> Vec<Token> {
    let next = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % n_vocab;
    (0..N_TOKENS).map(|i| next(i + 1).cast_signed()).collect()
}

pub fn run(model: &Arc<Model>, k: CacheType, v: CacheType) -> Outcome {
    let params = params(k, v);
    let fresh = || Context::new(model, &params).map_err(reason);
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let n_vocab = model.vocab().n_tokens();
    let (ours, theirs) = (tokens(n_vocab, 1), tokens(n_vocab, 77));

    let mut context = fresh()?;
    if model.has_encoder() {
        let batch = Batch::of_sequence(&theirs[..N_BATCH as usize], 0, 0).map_err(|e| text(&e))?;
        context.encode(&batch).map_err(|e| text(&e))?;
    }
    let mut logits = Vec::new();
    for part in ours.chunks(N_BATCH as usize) {
        context.append(part, 0).map_err(|e| text(&e))?;
        logits.push(last(&context)?);
    }
    let next = |context: &mut Context| -> Result<Vec<f32>, String> {
        context.append(&theirs[..1], 0).map_err(|e| text(&e))?;
        last(context)
    };

    let state = context.seq_state(0).map_err(|e| text(&e)).and_then(|state| {
        let mut restored = fresh()?;
        if model.has_encoder() {
            return Err("an encoder's output is not in a state".into());
        }
        restored.set_seq_state(0, &state).map_err(|e| text(&e))?;
        next(&mut restored)
    });

    // Another sequence, and then this one goes on.
    if !model.has_encoder() {
        for part in theirs.chunks(N_BATCH as usize - 1) {
            context.append(part, 1).map_err(|e| text(&e))?;
        }
    }
    logits.push(next(&mut context)?);
    let expected = logits.last().expect("one");

    let mut alone = fresh()?;
    if model.has_encoder() {
        let batch = Batch::of_sequence(&theirs[..N_BATCH as usize], 0, 0).map_err(|e| text(&e))?;
        alone.encode(&batch).map_err(|e| text(&e))?;
    }
    for part in ours.chunks(N_BATCH as usize) {
        alone.append(part, 0).map_err(|e| text(&e))?;
    }
    let other = kld(expected, &next(&mut alone)?);

    let mut single = fresh()?;
    if model.has_encoder() {
        let batch = Batch::of_sequence(&theirs[..N_BATCH as usize], 0, 0).map_err(|e| text(&e))?;
        single.encode(&batch).map_err(|e| text(&e))?;
    }
    for token in &ours {
        single.append(std::slice::from_ref(token), 0).map_err(|e| text(&e))?;
    }
    let single = kld(expected, &next(&mut single)?);

    let shifted = match alone.can_shift() {
        true => Some(shift(&mut alone, &theirs[1])?),
        false => None,
    };
    Ok(Run { single, other, state: state.map(|logits| kld(&logits, expected)), shifted, logits })
}

fn shift(context: &mut Context, token: &Token) -> Result<Vec<f32>, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    context.seq_remove(0, ..N_SHIFT).map_err(|e| text(&e))?;
    context.seq_shift(0, N_SHIFT.., -N_SHIFT.cast_signed()).map_err(|e| text(&e))?;
    context.append(std::slice::from_ref(token), 0).map_err(|e| text(&e))?;
    last(context)
}

fn last(context: &Context) -> Result<Vec<f32>, String> {
    let logits = context.last_logits().map_err(|e| e.to_string())?.to_vec();
    match logits.iter().all(|x| x.is_finite()) {
        true => Ok(logits),
        false => Err("logits are not finite".into()),
    }
}

/// Kullback-Leibler divergence of what `b` says of the next token from what `a` says.
pub fn kld(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (log_softmax(a), log_softmax(b));
    a.iter().zip(&b).map(|(a, b)| a.exp() * (a - b)).sum::<f64>().max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    logits.iter().map(|x| f64::from(x - max) - sum.ln()).collect()
}

impl Run {
    /// Mean divergence from what another run gives.
    pub fn from(&self, other: &Self) -> f64 {
        let sum: f64 = self.logits.iter().zip(&other.logits).map(|(a, b)| kld(b, a)).sum();
        sum / self.logits.len() as f64
    }
}
