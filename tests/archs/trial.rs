//! A model with one pair of cache types: what it computes, and whether that is the same on every way there.

use std::path::Path;
use std::sync::Arc;

use crate::common::stats::{kld, mean_kld};
use llama_turboquant::llama::{
    Batch, CacheType, Context, ContextParams, KvAnchors, KvCalibration, Model, Token,
};

/// Tokens of a sequence, and how many at a time: windows of the models are shorter.
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
    /// The logits after the first tokens were taken away and the others moved up; or why not.
    pub shifted: Result<Vec<f32>, String>,
}

/// Loads a model. Errors: why not.
pub fn load(path: &Path) -> Result<Arc<Model>, String> {
    Model::builder(path).mmap(false).load().map_err(text)
}

/// Whether K can have anchors, or why not.
pub fn anchors(model: &Arc<Model>, k: CacheType, v: CacheType) -> Result<(), String> {
    let params = params(model, k, v).kv_anchors(KvAnchors::On);
    let reason = |error: String| {
        let why = error.split_once("key anchors cannot be on: ").map(|(_, why)| why);
        let why = why.and_then(|why| why.strip_suffix(". use --kv-anchors auto or off"));
        why.map_or(error.clone(), |why| format!("no anchors: {why}"))
    };
    Context::new(model, &params).map(drop).map_err(|e| reason(text(e)))
}

/// Runs a model in every way.
pub fn run(model: &Arc<Model>, k: CacheType, v: CacheType) -> Outcome {
    let trial = Trial::new(model, k, v);
    let mut context = trial.context()?;
    let mut logits = Vec::new();
    for part in trial.ours.chunks(N_BATCH as usize) {
        context.append(part, 0).map_err(text)?;
        logits.push(last(&context)?);
    }
    let state = trial.restored(&mut context);
    trial.read_other(&mut context)?;
    let expected = trial.next(&mut context)?;

    let mut alone = trial.read(N_BATCH as usize)?;
    let other = kld(&expected, &trial.next(&mut alone)?);
    let shifted = trial.shifted(&mut alone);
    let single = kld(&expected, &trial.next(&mut trial.read(1)?)?);

    let state = state.map(|logits| kld(&expected, &logits));
    logits.push(expected);
    Ok(Run { logits, single, other, state, shifted })
}

fn params(model: &Model, k: CacheType, v: CacheType) -> ContextParams {
    ContextParams::default()
        .n_ctx(1024)
        .n_batch(N_BATCH)
        .n_ubatch(N_BATCH)
        .n_seq_max(2)
        // What an encoder has read is for one cache.
        .kv_unified(model.has_encoder())
        .n_threads(1)
        .cache_types(k, v)
        // what they do for models without training is nothing
        .kv_calibration(KvCalibration::Off)
}

struct Trial<'a> {
    model: &'a Arc<Model>,
    params: ContextParams,
    ours: Vec<Token>,
    theirs: Vec<Token>,
}

impl<'a> Trial<'a> {
    fn new(model: &'a Arc<Model>, k: CacheType, v: CacheType) -> Self {
        let n_vocab = model.vocab().n_tokens();
        let tokens = |seed| tokens(n_vocab, seed);
        let params = params(model, k, v);
        Self { model, params, ours: tokens(1), theirs: tokens(77) }
    }

    /// A context, in which what an encoder reads has been read.
    fn context(&self) -> Result<Context, String> {
        let mut context = Context::new(self.model, &self.params).map_err(text)?;
        if self.model.has_encoder() {
            let batch = Batch::of_sequence(&self.theirs[..N_BATCH as usize], 0, 0).map_err(text)?;
            context.encode(&batch).map_err(text)?;
        }
        Ok(context)
    }

    /// A context that has read our tokens, so many at a time.
    fn read(&self, at_a_time: usize) -> Result<Context, String> {
        let mut context = self.context()?;
        for part in self.ours.chunks(at_a_time) {
            context.append(part, 0).map_err(text)?;
        }
        Ok(context)
    }

    /// Reads another sequence, in batches of another size.
    fn read_other(&self, context: &mut Context) -> Result<(), String> {
        if self.model.has_encoder() {
            return Ok(()); // what it read is for all sequences
        }
        self.theirs
            .chunks(N_BATCH as usize - 1)
            .try_for_each(|part| context.append(part, 1).map(drop))
            .map_err(text)
    }

    /// The logits of one more token.
    fn next(&self, context: &mut Context) -> Result<Vec<f32>, String> {
        context.append(&self.theirs[..1], 0).map_err(text)?;
        last(context)
    }

    /// The logits of one more token in a context with the sequence's state.
    fn restored(&self, context: &mut Context) -> Result<Vec<f32>, String> {
        let state = context.seq_state(0).map_err(text)?;
        let mut restored = self.context()?;
        restored.set_seq_state(0, &state).map_err(text)?;
        self.next(&mut restored)
    }

    fn shifted(&self, context: &mut Context) -> Result<Vec<f32>, String> {
        if !context.can_shift() {
            return Err("llama.cpp cannot move the positions of this model's cells".into());
        }
        context.seq_remove(0, ..N_SHIFT).map_err(text)?;
        context.seq_shift(0, N_SHIFT.., -N_SHIFT.cast_signed()).map_err(text)?;
        self.next(context)
    }
}

fn tokens(n_vocab: u32, seed: u32) -> Vec<Token> {
    let next = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 7) % n_vocab;
    (0..N_TOKENS).map(|i| next(i + 1).cast_signed()).collect()
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn last(context: &Context) -> Result<Vec<f32>, String> {
    let logits = context.last_logits().map_err(text)?.to_vec();
    match logits.iter().all(|x| x.is_finite()) {
        true => Ok(logits),
        false => Err("logits are not finite".into()),
    }
}

impl Run {
    /// Mean divergence from what another run gives.
    pub fn from(&self, other: &Self) -> f64 {
        mean_kld(&other.logits, &self.logits)
    }

    /// How far what it gives after a shift is from what another gives.
    pub fn shift_from(&self, other: &Self) -> Option<f64> {
        Some(kld(other.shifted.as_ref().ok()?, self.shifted.as_ref().ok()?))
    }
}
