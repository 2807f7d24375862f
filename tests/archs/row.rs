//! What the page says of an architecture, as a model of it shows.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use llama_turboquant::llama::CacheType::{self, F16, Q4_0, Turbo2, Turbo3, Turbo4};
use llama_turboquant::llama::{KvFitOutlook, Model, ModelProbe, sys};

use super::bounds;
use super::trial;

/// A line of the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub name: String,
    pub turbo: String,
    pub anchors: String,
    pub scales: String,
    pub shift: String,
    pub notes: String,
}

/// A line, and the divergence of turbo4 in multiples of that of q4_0, where both run.
pub type Measured = (Row, Option<f64>);

/// What a cell says that has nothing to say.
pub const NONE: &str = "–";

impl Row {
    /// Of an architecture without a model in the sweep.
    pub fn not_made(name: &str, why: &str) -> Self {
        let none = || NONE.to_owned();
        Self {
            name: name.into(),
            turbo: none(),
            anchors: none(),
            scales: none(),
            shift: none(),
            notes: why.into(),
        }
    }

    /// As a row of the table. `number` gives reasons numbers.
    pub fn line(&self, number: &mut dyn FnMut(&str) -> usize) -> String {
        let mut cell = |text: &str| match text.split_once(": ") {
            Some((says @ ("no" | "K"), why)) => format!("{says} ({})", number(why)),
            _ => text.to_owned(),
        };
        let [turbo, anchors, scales, shift] =
            [&self.turbo, &self.anchors, &self.scales, &self.shift].map(|text| cell(text));
        format!("| {} | {turbo} | {anchors} | {scales} | {shift} | {} |", self.name, self.notes)
    }
}

/// Runs the model of an architecture. Errors: what is not as it should be.
pub fn of_model(name: &str, file: &Path) -> Result<Measured, String> {
    let model = trial::load(file)?;
    if model.kv_layers().is_empty() {
        return Ok((Row::not_made(name, "has no KV cache"), None));
    }
    let mut ratio = None;
    let exact = trial::run(&model, F16, F16).map_err(|e| format!("f16: {e}"))?;
    // Keys alone, if values cannot.
    let pairs: [(&str, [(CacheType, CacheType); 2]); 2] =
        [("yes", [(Turbo4, Turbo4), (Turbo3, Turbo2)]), ("K", [(Turbo4, F16), (Turbo3, F16)])];
    let mut whys = Vec::new();
    let mut row = None;
    for (says, [fine, rough]) in pairs {
        match trial::run(&model, fine.0, fine.1) {
            Err(why) => whys.push(why),
            Ok(run) => {
                let v = if fine.1 == F16 { F16 } else { Q4_0 };
                let coarse = trial::run(&model, Q4_0, v).ok();
                bounds::check(&run, &exact, coarse.as_ref(), bounds::TURBO4)?;
                ratio = coarse.as_ref().map(|q4_0| run.from(&exact) / q4_0.from(&exact).max(1e-5));
                let run = match trial::run(&model, rough.0, rough.1) {
                    // Perhaps one type for keys and values will do.
                    Err(why) => {
                        trial::run(&model, Turbo3, Turbo3).map_err(|e| format!("{why}; {e}"))?
                    }
                    Ok(run) => run,
                };
                bounds::check(&run, &exact, coarse.as_ref(), bounds::TURBO32)?;
                row = Some((says, fine));
                break;
            }
        }
    }
    let notes = features(&model, file);
    // With the reason, which the page has below the table.
    let yes = |result: Result<(), String>| match result {
        Ok(()) => "yes".to_owned(),
        Err(why) => format!("no: {}", why.replace(&format!(" ({name})"), "").replace('|', "\\|")),
    };
    let (says, anchors) = match row {
        None => ("no", NONE.to_owned()),
        Some((says, (k, v))) => (says, yes(trial::anchors(&model, k, v))),
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let probe = ModelProbe::open(file).map_err(|e| text(&e))?;
    let fit = match probe.kv_fit().map_err(|e| text(&e))? {
        // Of layers that could have one.
        KvFitOutlook::None { reason } if reason.contains("no KV cache") => {
            return Ok((Row::not_made(name, "reads a text as a whole, and has no KV cache"), None));
        }
        KvFitOutlook::None { reason } => Err(format!("no scales: {reason}")),
        _ => Ok(()),
    };
    let row = Row {
        name: name.into(),
        turbo: match whys.first() {
            Some(why) => format!("{says}: {why}"),
            None => says.into(),
        },
        anchors,
        scales: yes(fit),
        shift: yes(exact.shifted.as_ref().map(drop).map_err(Clone::clone)),
        notes: if notes.is_empty() { NONE.into() } else { notes.join("; ") },
    };
    Ok((row, ratio))
}

/// What a model has beside plain attention.
fn features(model: &Model, file: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    let layers = model.kv_layers();
    let mut add = |has: bool, what: &str| {
        if has {
            notes.push(what.to_owned());
        }
    };
    add(is_latent(model), "latent attention (MLA)");
    add(layers.iter().any(|layer| layer.sliding_window), "sliding window");
    let heads: BTreeSet<_> = layers.iter().flat_map(|l| [l.head_dim_k, l.head_dim_v]).collect();
    let heads: Vec<_> = heads.iter().map(u32::to_string).collect();
    let padded = layers.iter().any(|l| l.head_dim_k % 64 != 0 || l.head_dim_v % 64 != 0);
    add(heads.len() > 1 && !is_latent(model), &format!("heads of {}", heads.join(" and ")));
    add(padded && heads.len() == 1, &format!("heads of {}, padded", heads.join("")));
    add(model.has_encoder(), "encoder");
    // SAFETY: the model is loaded.
    let rope = unsafe { sys::llama_model_rope_type(model.raw()) };
    add([sys::LLAMA_ROPE_TYPE_MROPE, sys::LLAMA_ROPE_TYPE_IMROPE].contains(&rope), "M-RoPE");
    let tensors = layer_tensors(file);
    let has = |part: &str| tensors.iter().any(|name| name.starts_with(part));
    add(has("ssm_") || has("shortconv."), "recurrent layers");
    add(has("attn_sinks."), "sinks");
    add(has("indexer") || has("index_"), "indexer");
    notes
}

/// The names of a tiny model's tensors, without the `blk.N.` of their layer.
fn layer_tensors(file: &Path) -> BTreeSet<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file).expect("the model");
    // All names are in the beginning.
    file.take(1 << 18).read_to_end(&mut bytes).expect("its beginning");
    let text = String::from_utf8_lossy(&bytes);
    let behind = text.split("blk.").skip(1).filter_map(|rest| {
        let name = rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('.')?;
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "._".contains(c)));
        Some(name[..end.unwrap_or(name.len())].to_owned())
    });
    behind.collect()
}

/// Whether values are a part of keys.
fn is_latent(model: &Model) -> bool {
    let arch = model.meta("general.architecture").unwrap_or_default();
    model.meta(&format!("{arch}.attention.key_length_mla")).is_some()
}
