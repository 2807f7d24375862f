//! What of a model is compared: a pair of types, and how its keys are treated.

use std::str::FromStr;

use llama_turboquant::llama::{ContextParams, KvAnchors, KvCalibration};

use crate::args::Pair;

/// How keys are treated before they are quantized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Treatment {
    /// Anchors where K is of a turbo type.
    Auto,
    /// As they are.
    Off,
    /// Anchors whatever the type.
    On,
    /// Anchors as for auto, and scales; None: those in the user's cache.
    Calibrated(Option<String>),
}

impl FromStr for Treatment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("calib=")) {
            ("auto", _) => Ok(Self::Auto),
            ("off", _) => Ok(Self::Off),
            ("on", _) => Ok(Self::On),
            (_, Some("auto")) => Ok(Self::Calibrated(None)),
            (_, Some(file)) if !file.is_empty() => Ok(Self::Calibrated(Some(file.into()))),
            _ => Err(format!(
                "{text:?} is no treatment: there are auto, off, on, calib=FILE and calib=auto"
            )),
        }
    }
}

impl std::fmt::Display for Treatment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::On => f.write_str("on"),
            Self::Calibrated(file) => write!(f, "calib={}", file.as_deref().unwrap_or("auto")),
        }
    }
}

/// A pair under a treatment.
#[derive(Debug, Clone)]
pub struct Setting {
    pub pair: Pair,
    pub keys: Treatment,
}

impl Setting {
    /// Of contexts with the rest of their parameters in `params`.
    pub fn params(&self, params: &ContextParams) -> ContextParams {
        let params = params.clone().cache_types(self.pair.k.clone(), self.pair.v.clone());
        match &self.keys {
            Treatment::Auto => params.kv_anchors(KvAnchors::Auto),
            Treatment::Off => params.kv_anchors(KvAnchors::Off),
            Treatment::On => params.kv_anchors(KvAnchors::On),
            Treatment::Calibrated(None) => params.kv_calibration(KvCalibration::Auto),
            Treatment::Calibrated(Some(file)) => {
                params.kv_calibration(KvCalibration::File(file.into()))
            }
        }
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.keys {
            Treatment::Auto => write!(f, "{}", self.pair),
            keys => write!(f, "{}, keys {keys}", self.pair),
        }
    }
}
