//! What of a model is compared: a pair of types, and how its keys are treated.

use std::str::FromStr;

use llama_turboquant::llama::{ContextParams, KvAnchors, KvCalibration};

use crate::args::Pair;

/// How keys are treated before they are quantized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Treatment {
    /// As by default: anchors and scales where K is of a turbo type.
    Auto,
    /// As they are.
    Off,
    /// Anchors whatever the type; scales as for auto.
    On,
    /// Anchors as for auto, and these scales.
    Calibrated(KvCalibration),
}

impl FromStr for Treatment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("calib=")) {
            ("auto", _) => Ok(Self::Auto),
            ("off", _) => Ok(Self::Off),
            ("on", _) => Ok(Self::On),
            (_, Some("auto")) => Ok(Self::Calibrated(KvCalibration::Auto)),
            (_, Some("off")) => Ok(Self::Calibrated(KvCalibration::Off)),
            (_, Some(file)) if !file.is_empty() => {
                Ok(Self::Calibrated(KvCalibration::File(file.into())))
            }
            _ => Err(format!(
                "{text:?} is no treatment: there are auto, off, on, calib=FILE, calib=auto and calib=off"
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
            Self::Calibrated(KvCalibration::File(file)) => write!(f, "calib={}", file.display()),
            Self::Calibrated(KvCalibration::Off) => f.write_str("calib=off"),
            Self::Calibrated(_) => f.write_str("calib=auto"),
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
            Treatment::Off => params.kv_anchors(KvAnchors::Off).kv_calibration(KvCalibration::Off),
            Treatment::On => params.kv_anchors(KvAnchors::On),
            Treatment::Calibrated(calibration) => params.kv_calibration(calibration.clone()),
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
