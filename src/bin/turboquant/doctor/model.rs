//! What a model's metadata says of the pair that is asked for.

use std::path::Path;

use llama_turboquant::llama::{
    CacheError, CachePolicy, CacheType, ContextError, ContextParams, FlashAttention, KeysOrValues,
    KvAnchors, Model, ModelProbe,
};

use super::{Args, Check, is_fast, turbo};
use crate::args::{Pair, check_model};
use crate::machine::Memory;
use crate::units::size;

/// The check that says whether there can be contexts.
pub const TYPES: &str = "types";
/// The name of the check whether the model fits into memory.
pub const SIZE: &str = "size";

pub fn checks(args: &Args, path: &Path) -> Vec<Check> {
    let probe = check_model(path).and_then(|()| Ok(ModelProbe::open(path)?));
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => {
            return vec![Check::problem(TYPES, format!("{error:#}"), "give another file with -m")];
        }
    };
    let pair = args.pair();
    let mut checks = vec![Check::ok("model", probe.model().description())];
    let types = types(args, probe.model(), &pair);
    let possible = types.state != super::State::Problem;
    checks.push(types);
    if possible {
        checks.extend(speed(&pair));
        checks.extend(anchors(args, &probe, &pair));
        checks.push(fits(args, &probe, &pair));
    }
    checks
}

/// Parameters as asked for.
pub fn params(args: &Args, pair: &Pair) -> ContextParams {
    let params = ContextParams::default()
        .swa_full(false)
        .cache_types(pair.k.clone(), pair.v.clone())
        .kv_anchors(args.keys.anchors())
        .flash_attention(args.keys.flash_attention());
    match args.threads {
        Some(n) => params.n_threads(n),
        None => params,
    }
}

fn types(args: &Args, model: &Model, pair: &Pair) -> Check {
    let flash = args.keys.flash_attention() != FlashAttention::Off;
    if model.kv_layers().is_empty() {
        let found = "the model has no KV cache: cache types change nothing";
        return Check::problem(TYPES, found, "take a model with attention");
    }
    let Err(error) = model.check_cache(&pair.k, &pair.v, flash) else {
        let head_dim = model.kv_layers().first().map_or(0, |layer| layer.head_dim_k);
        let found = format!(
            "the model can have {pair}: head_dim {head_dim}, {} KV layers",
            model.kv_layers().len()
        );
        return Check::ok(TYPES, found);
    };
    let fix = match (&error, nearest(model, pair, flash)) {
        (CacheError::RotationOff { .. }, _) => "unset LLAMA_ATTN_ROT_DISABLE".to_owned(),
        (CacheError::FlashAttentionOff { .. }, _) => "leave -fa off out".to_owned(),
        (_, Some(other)) => {
            format!("the nearest pair that works: -ctk {} -ctv {}", other.k, other.v)
        }
        (_, None) => "no pair like it works: leave -ctk and -ctv out".to_owned(),
    };
    Check::problem(TYPES, format!("{pair}: {error}"), fix)
}

/// What is left when all that cannot be is replaced by what is nearest.
fn nearest(model: &Model, pair: &Pair, flash: bool) -> Option<Pair> {
    let mut pair = pair.clone();
    for _ in 0..8 {
        let Err(error) = model.check_cache(&pair.k, &pair.v, flash) else { return Some(pair) };
        let (k, v) = (pair.k.base(), pair.v.base());
        let replace =
            |of: CacheType, from: CacheType, to: CacheType| if of == from { to } else { of };
        let (k, v) = match error {
            CacheError::HeadDim { side, instead, .. }
            | CacheError::HeadDimsDiffer { side, instead, .. } => match side {
                KeysOrValues::Keys => (instead, v),
                KeysOrValues::Values => (k, instead),
            },
            CacheError::FlashAttentionOff { instead, .. }
            | CacheError::NoFlashAttention { instead, .. } => (k, instead),
            CacheError::Latent { cache_type, instead }
            | CacheError::RotationOff { cache_type, instead, .. } => {
                (replace(k, cache_type, instead), replace(v, cache_type, instead))
            }
            CacheError::TypesDiffer { k, v } if k.bits_per_value() >= v.bits_per_value() => (k, k),
            CacheError::TypesDiffer { v, .. } => (v, v),
            _ => (k, v),
        };
        // Exceptions go: they may be what cannot be.
        pair = Pair { k: k.into(), v: v.into() };
    }
    None
}

fn speed(pair: &Pair) -> Option<Check> {
    let (k, v) = (pair.k.base(), pair.v.base());
    let slow = (k.is_turbo() || v.is_turbo()) && !(is_fast(k) && is_fast(v));
    slow.then(|| {
        Check::warning(
            "pair",
            format!("attention over {pair} takes a slow way"),
            "beside a turbo type take turbo, q8_0, f16 or bf16",
        )
    })
}

/// Whether keys have anchors, as llama.cpp decides it. None: there is nothing to say.
fn anchors(args: &Args, probe: &ModelProbe, pair: &Pair) -> Option<Check> {
    let k = |anchors| Some(probe.memory_use(&params(args, pair).kv_anchors(anchors)).ok()?.k);
    let wanted = args.keys.anchors();
    let has = k(wanted)? > k(KvAnchors::Off)?;
    let name = "anchors";
    match (has, turbo(&pair.k), wanted) {
        (true, ..) => {
            Some(Check::ok(name, "on: keys are coded relative to means of the keys around"))
        }
        (false, false, _) => None,
        (false, true, KvAnchors::Off) => Some(Check::warning(
            name,
            "off, as asked for: turbo keys are less precise without them",
            "leave --kv-anchors off out",
        )),
        (false, true, _) => {
            let forced = probe.memory_use(&params(args, pair).kv_anchors(KvAnchors::On));
            let reason = match forced {
                Err(ContextError::Create { reason }) => reason,
                Err(error) => error.to_string(),
                Ok(_) => "llama.cpp does not say why".into(),
            };
            Some(Check::warning(
                name,
                format!("off: {reason}"),
                "take turbo4 or q8_0 for K, which lose least without",
            ))
        }
    }
}

/// Memory at the context that is wanted, beside what f16 would take.
fn fits(args: &Args, probe: &ModelProbe, pair: &Pair) -> Check {
    let n_ctx = args.ctx_size.unwrap_or_else(|| probe.model().n_ctx_train());
    let wanted = params(args, pair);
    let f16: CachePolicy = CacheType::F16.into();
    let plain = params(args, &Pair { k: f16.clone(), v: f16 }).kv_anchors(KvAnchors::Auto);
    let both = probe
        .memory_use(&wanted.clone().n_ctx(n_ctx))
        .and_then(|used| Ok((used, probe.memory_use(&plain.n_ctx(n_ctx))?)));
    let (used, plain) = match both {
        Ok(both) => both,
        Err(error) => {
            return Check::problem(SIZE, error.to_string(), "take a shorter context: -c");
        }
    };
    let found = format!(
        "at {n_ctx} tokens K and V take {}, {:.1} times less than the {} of f16; with weights and buffers {}",
        size(used.kv()),
        plain.kv() as f64 / used.kv().max(1) as f64,
        size(plain.kv()),
        size(used.total())
    );
    let Some((room, of)) = Memory::now().room().filter(|(room, _)| used.total() > *room) else {
        return Check::ok(SIZE, found);
    };
    let found = format!("{found}, but {of} has {} left", size(room));
    match probe.longest_context(&wanted, room) {
        Ok(Some(n)) => Check::warning(SIZE, found, format!("-c {n} or less")),
        Ok(None) => Check::problem(SIZE, found, "a smaller model, or more memory"),
        Err(error) => Check::problem(SIZE, error.to_string(), "a smaller model, or more memory"),
    }
}
