//! A model that really runs: what is allocated, whether it computes numbers, and how far they are from f16's.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use llama_turboquant::calibrate::TEXT;
use llama_turboquant::eval::{EvalError, EvalOptions, Evaluation, PairScore, evaluate};
use llama_turboquant::llama::{
    CachePolicy, CacheType, Context, ContextParams, KvAnchors, KvCalibration, KvFitKind, Model,
};

use super::model::params;
use super::{Args, Check, turbo};
use crate::args::Pair;
use crate::units::size;

pub const NAME: &str = "run";

/// Tokens of the text.
const N_TOKENS: u32 = 256;

/// `found` is told of each check as it is over.
pub fn checks(args: &Args, path: &Path, mut found: impl FnMut(Check) -> Result<()>) -> Result<()> {
    let model = match Model::load(path) {
        Ok(model) => model,
        Err(error) => {
            return found(Check::problem(NAME, error.to_string(), "give another file with -m"));
        }
    };
    let pair = args.pair();
    calibration(args, &model, path, &pair).map_or(Ok(()), &mut found)?;
    let mut options = EvalOptions::default();
    options.n_ctx = N_TOKENS;
    options.n_chunks = 1;
    options.cache = args.keys.settings(args.threads);
    options.cache.calibration = args.calibration();
    let types = [(pair.k.clone(), pair.v.clone())];
    match evaluate(&model, TEXT, &types, &options, |_| true) {
        Ok(evaluation) => {
            let Some(score) = evaluation.pairs.first() else { return Ok(()) };
            found(allocated(&model, &evaluation, score))?;
            found(divergence(args, score))?;
            let failed = |error| {
                Check::problem(NAME, format!("{error:#}"), "turboquant plan says what fits")
            };
            found(speeds(args, &model, &pair).unwrap_or_else(failed))
        }
        Err(EvalError::NotANumber { .. }) => found(Check::problem(
            NAME,
            format!("{pair}: a logit is not a number"),
            "if f16 does it, too (-ctk f16 -ctv f16), the model is damaged; else please report this, with the processor",
        )),
        Err(EvalError::AddsEos) => found(Check::warning(
            NAME,
            "the model ends every text with a token: it was not run",
            "eval cannot measure it either; llama-completion runs it",
        )),
        Err(error) => {
            found(Check::problem(NAME, error.to_string(), "turboquant plan says what fits"))
        }
    }
}

/// Whether K and V have the bytes of their types.
fn allocated(model: &Model, evaluation: &Evaluation, score: &PairScore) -> Check {
    let (used, f16) = (score.memory, evaluation.reference.memory);
    let layers = model.kv_layers();
    // Of f16, by the number of values.
    let share = |policy: &llama_turboquant::llama::CachePolicy, keys: bool| {
        let types = policy.types(layers.len()).unwrap_or_default();
        let values = |i: usize| {
            let head_dim = if keys { layers[i].head_dim_k } else { layers[i].head_dim_v };
            f64::from(layers[i].n_head_kv * head_dim)
        };
        let bits = |i: usize| f64::from(types[i].bits_per_value());
        let each = || 0..types.len().min(layers.len());
        each().map(|i| values(i) * bits(i)).sum::<f64>()
            / each().map(|i| 16.0 * values(i)).sum::<f64>()
    };
    let expected_k = share(&score.k, true) * f16.k as f64;
    let expected_v = share(&score.v, false) * f16.v as f64;
    // An anchor for 64 keys.
    let most_k = expected_k + f16.k as f64 / 64.0;
    let found = format!("K {} and V {} at {N_TOKENS} tokens", size(used.k), size(used.v));
    let is_k = used.k as f64 >= 0.97 * expected_k && used.k as f64 <= 1.03 * most_k;
    let is_v = (used.v as f64 - expected_v).abs() <= 0.03 * expected_v;
    match is_k && is_v {
        true => Check::ok("allocated", format!("{found}, as {} / {} take", score.k, score.v)),
        false => Check::problem(
            "allocated",
            format!(
                "{found}, where {} / {} take {} and {}: llama.cpp has other types",
                score.k,
                score.v,
                size(expected_k as u64),
                size(expected_v as u64)
            ),
            "run this again with -v, and please report it",
        ),
    }
}

/// Mean divergence that a type costs on small models, as K (with anchors) and as V alike, nats.
fn typical(t: CacheType) -> f64 {
    match t {
        CacheType::F32 | CacheType::F16 | CacheType::Bf16 => 0.002,
        CacheType::Q8_0 => 0.003,
        CacheType::Q5_1 | CacheType::Q5_0 => 0.015,
        CacheType::Turbo4 => 0.012,
        CacheType::Turbo3 => 0.04,
        CacheType::Turbo2 => 0.2,
        _ => 0.05,
    }
}

fn divergence(args: &Args, score: &PairScore) -> Check {
    let (k, v) = (score.k.base(), score.v.base());
    // Without anchors keys cost up to 5 times as much.
    let keys = if args.keys.anchors() == KvAnchors::Off { 5.0 } else { 1.0 };
    let typical = keys * typical(k) + typical(v);
    let summary = &score.summary;
    let found = format!(
        "mean KLD to f16 {:.4} over {} tokens, top-1 {:.0}% (small models have some {typical:.3})",
        summary.mean_kld,
        summary.n,
        100.0 * summary.same_top
    );
    let mut fix = "measure it: turboquant eval; ".to_owned();
    fix += if turbo(&score.k) && args.calibration() == Some(KvCalibration::Off) {
        "then --kv-calib auto, or a finer type for K"
    } else {
        "then a finer type for K"
    };
    match summary.mean_kld {
        kld if kld > 10.0 * typical => Check::problem("quality", found, fix),
        kld if kld > 3.0 * typical => Check::warning("quality", found, fix),
        _ => Check::ok("quality", found),
    }
}

/// A hint, of a moment.
fn speeds(args: &Args, model: &Arc<Model>, pair: &Pair) -> Result<Check> {
    let params = params(args, pair).n_ctx(N_TOKENS);
    let f16 = CachePolicy::new(CacheType::F16);
    let plain = params.clone().cache_types(f16.clone(), f16);
    let params = match args.calibration() {
        Some(calibration) => params.kv_calibration(calibration),
        None => params,
    };
    let (of_pair, of_f16) = (speed(model, &params)?, speed(model, &plain)?);
    Ok(Check::ok(
        "speed",
        format!(
            "prompt {:.1} t/s (f16 {:.1}), generation {:.1} t/s (f16 {:.1}); turboquant bench model measures it at depth",
            of_pair.prompt, of_f16.prompt, of_pair.generation, of_f16.generation
        ),
    ))
}

/// Tokens per second.
struct Speed {
    prompt: f64,
    generation: f64,
}

fn speed(model: &Arc<Model>, params: &ContextParams) -> Result<Speed> {
    let mut context = Context::new(model, params)?;
    let tokens = model.vocab().tokenize(TEXT, true, false)?;
    let (prompt, rest) = tokens.split_at(tokens.len().min(N_TOKENS as usize / 2));
    let rest = &rest[..rest.len().min(8)];
    // The first batch pays for memory that is touched for the first time.
    context.append(prompt, 0)?;
    context.synchronize()?;
    context.clear()?;
    let begin = Instant::now();
    context.append(prompt, 0)?;
    context.synchronize()?;
    let middle = Instant::now();
    for token in rest {
        context.append(std::slice::from_ref(token), 0)?;
        context.synchronize()?;
    }
    Ok(Speed {
        prompt: prompt.len() as f64 / (middle - begin).as_secs_f64(),
        generation: rest.len() as f64 / middle.elapsed().as_secs_f64(),
    })
}

/// Which key scales contexts of the pair have.
fn calibration(args: &Args, model: &Arc<Model>, path: &Path, pair: &Pair) -> Option<Check> {
    let name = "calibration";
    let asked = args.calibration();
    if asked == Some(KvCalibration::Off) {
        let found = "there are no key scales, by --kv-calib off";
        return Some(Check::ok(name, found));
    }
    if asked.is_none() && !turbo(&pair.k) {
        return None;
    }
    let mut params = params(args, pair).n_ctx(N_TOKENS);
    if let Some(asked) = asked {
        params = params.kv_calibration(asked);
    }
    let context = match Context::new(model, &params) {
        Ok(context) => context,
        Err(error) => {
            return Some(Check::problem(name, error.to_string(), "--kv-calib off runs without"));
        }
    };
    let Some(fit) = context.kv_fit() else {
        let found = "the model has no key scales, without which quantized keys are less precise";
        return Some(Check::warning(name, found, "the log says why: run this again with -v"));
    };
    let place = match &fit.source {
        Some(file) => format!("of {}", file.display()),
        None => "in memory alone".into(),
    };
    let found = format!("{} key scales, id {:016x}, {place} (--kv-calib)", fit.kind, fit.id);
    Some(match (fit.kind, &fit.source) {
        (KvFitKind::Quick, None) => Check::warning(
            name,
            found,
            "each start fits them again: set LLAMA_CACHE to a folder that is writable",
        ),
        (KvFitKind::Quick | KvFitKind::Norms, _) => Check::ok(
            name,
            format!("{found}; turboquant calibrate -m {} makes thorough ones", path.display()),
        ),
        _ => Check::ok(name, found),
    })
}
