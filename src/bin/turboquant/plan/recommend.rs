//! Which pair of types to take, and why.

use std::sync::LazyLock;

use llama_turboquant::llama::{CachePolicy, CacheType};
use serde_json::{Value, json};

use super::Row;
use crate::args::Pair;
use crate::units::size;

/// What `script/quality` found, as docs/quality.md has it.
const RESULTS: [(&str, &str); 4] = [
    ("Qwen2.5-Coder-1.5B", include_str!("../../../../docs/quality/qwen-1.5b.json")),
    ("Qwen2.5-Coder-0.5B", include_str!("../../../../docs/quality/qwen.json")),
    ("Gemma-3-270M", include_str!("../../../../docs/quality/gemma.json")),
    ("SmolLM2-135M", include_str!("../../../../docs/quality/smollm2.json")),
];

static MEASURED: LazyLock<[(&str, Value); 4]> = LazyLock::new(|| {
    RESULTS.map(|(name, json)| (name, serde_json::from_str(json).expect("results are JSON")))
});

/// Mean KL divergence from f16 of a pair, by model.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured([(&'static str, f64); 4]);

impl Measured {
    /// None: a pair that was not measured, as those with exceptions by layer.
    fn of(pair: &Pair) -> Option<Self> {
        let mut all = [("", 0.0); 4];
        for (of, (name, json)) in all.iter_mut().zip(&*MEASURED) {
            *of = (name, mean_kld(json, pair)?);
        }
        Some(Self(all))
    }

    /// Pairs are ranked by the geometric mean: one that is twice as far off on a model counts as much wherever that is.
    fn log_mean(&self) -> f64 {
        self.0.iter().map(|(_, kld)| kld.ln()).sum::<f64>() / self.0.len() as f64
    }

    fn is_exact(&self) -> bool {
        self.0.iter().all(|(_, kld)| *kld == 0.0)
    }
}

fn mean_kld(json: &Value, pair: &Pair) -> Option<f64> {
    let is = |value: &Value, policy: &CachePolicy| {
        let of = value.as_str().and_then(|name| name.parse::<CacheType>().ok());
        of.is_some_and(|of| *policy == of.into())
    };
    let rows = json["results"].as_array()?;
    let row = rows.iter().find(|row| is(&row["k"], &pair.k) && is(&row["v"], &pair.v))?;
    row["mean_kld"].as_f64()
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, kld)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {kld:.4}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// What to take for a context.
pub enum Advice<'a> {
    /// The most precise of the measured pairs that fit.
    Take { row: &'a Row, kld: Measured },
    /// No pair fits at this context; this is the longest that one does.
    Shorten { row: &'a Row, longest: u32 },
    /// Not even the shortest context fits, whatever the pair: without a cache it takes as much.
    TooLarge { least: u64 },
}

impl<'a> Advice<'a> {
    /// For the context at `index` of those in the rows. None: no pair can be had, or none of those that fit was measured.
    pub fn new(rows: &'a [Row], index: usize, memory: u64) -> Option<Self> {
        let uses =
            || rows.iter().filter_map(|row| Some((row, row.uses.as_ref().ok()?.get(index)?)));
        let fitting: Vec<_> =
            uses().filter(|(_, of)| of.total() <= memory).map(|(row, _)| row).collect();
        if !fitting.is_empty() {
            let ranked =
                fitting.into_iter().filter_map(|row| Some((Measured::of(&row.pair)?, row)));
            let (kld, row) =
                ranked.min_by(|(a, _), (b, _)| a.log_mean().total_cmp(&b.log_mean()))?;
            return Some(Self::Take { row, kld });
        }
        let longest = rows.iter().filter_map(|row| Some((row, row.longest?)));
        if let Some((row, longest)) = longest.max_by_key(|(_, longest)| *longest) {
            return Some(Self::Shorten { row, longest });
        }
        let least = uses().map(|(_, of)| of.total() - of.kv()).min()?;
        Some(Self::TooLarge { least })
    }

    pub fn text(&self, n_ctx: u32) -> String {
        match self {
            Self::Take { row, kld } if kld.is_exact() => {
                format!("recommended for {n_ctx} tokens: {}: it fits, and is exact\n", row.pair)
            }
            Self::Take { row, kld } => format!(
                "recommended for {n_ctx} tokens: {}: the most precise of these that fits (mean KL divergence from f16: \
                 {kld})\n",
                row.pair
            ),
            Self::Shorten { row, longest } => format!(
                "nothing fits {n_ctx} tokens: the longest context is {longest}, with {}\n",
                row.pair
            ),
            Self::TooLarge { least } => {
                format!("no context fits: weights and buffers alone take {}\n", size(*least))
            }
        }
    }

    pub fn json(&self, n_ctx: u32) -> Value {
        match self {
            Self::Take { row, kld } => json!({
                "ctx_size": n_ctx, "k": row.pair.k.to_string(), "v": row.pair.v.to_string(),
                "mean_kld": kld.0.iter().map(|&(name, kld)| (name.to_owned(), json!(kld))).collect::<serde_json::Map<_, _>>(),
            }),
            Self::Shorten { row, longest } => json!({
                "ctx_size": longest, "k": row.pair.k.to_string(), "v": row.pair.v.to_string(),
            }),
            Self::TooLarge { .. } => Value::Null,
        }
    }
}
