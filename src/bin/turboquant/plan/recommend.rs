//! Which pair of types to take, and why.

use llama_turboquant::llama::CacheType;
use serde_json::{Value, json};

use super::Row;
use crate::args::Pair;
use crate::units::size;

/// Mean KL divergence from f16 of SmolLM2-135M and Gemma-3-270M, 512 tokens of context, as docs/quality.md has it.
/// The most precise pair first.
const MEASURED: [(CacheType, CacheType, f64, f64); 10] = {
    use CacheType::{F16, Q4_0, Q5_0, Q8_0, Turbo2, Turbo3, Turbo4};
    [
        (F16, F16, 0.0, 0.0),
        (Q8_0, Q8_0, 0.0039, 0.0066),
        (Q8_0, Turbo4, 0.0077, 0.0108),
        (Turbo4, Turbo4, 0.0143, 0.0247),
        (Q5_0, Q5_0, 0.0135, 0.0295),
        (Turbo4, Turbo3, 0.0262, 0.0363),
        (Q4_0, Q4_0, 0.0413, 0.0952),
        (Turbo3, Turbo3, 0.0553, 0.0883),
        (Turbo4, Turbo2, 0.1023, 0.0766),
        (Turbo2, Turbo2, 0.2805, 0.4088),
    ]
};

/// Place in the list of measured pairs, and what was measured. None: a pair that was not, or one with exceptions.
fn measured(pair: &Pair) -> Option<(usize, (f64, f64))> {
    let place =
        MEASURED.iter().position(|(k, v, ..)| pair.k == (*k).into() && pair.v == (*v).into())?;
    let (.., smollm2, gemma) = MEASURED[place];
    Some((place, (smollm2, gemma)))
}

/// What to take for a context.
pub enum Advice<'a> {
    /// The most precise of the measured pairs that fit.
    Take { row: &'a Row, kld: (f64, f64) },
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
            let ranked = fitting.into_iter().filter_map(|row| Some((measured(&row.pair)?, row)));
            let ((_, kld), row) = ranked.min_by_key(|((place, _), _)| *place)?;
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
            Self::Take { row, kld: (smollm2, gemma) } if *smollm2 == 0.0 && *gemma == 0.0 => {
                format!("recommended for {n_ctx} tokens: {}: it fits, and is exact\n", row.pair)
            }
            Self::Take { row, kld: (smollm2, gemma) } => format!(
                "recommended for {n_ctx} tokens: {}: the most precise of these that fits (KL divergence from f16 \
                 measured on two small models: {smollm2} and {gemma})\n",
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
            Self::Take { row, kld: (smollm2, gemma) } => json!({
                "ctx_size": n_ctx, "k": row.pair.k.to_string(), "v": row.pair.v.to_string(),
                "mean_kld": { "SmolLM2": smollm2, "Gemma": gemma },
            }),
            Self::Shorten { row, longest } => json!({
                "ctx_size": longest, "k": row.pair.k.to_string(), "v": row.pair.v.to_string(),
            }),
            Self::TooLarge { .. } => Value::Null,
        }
    }
}
