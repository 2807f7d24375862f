//! Pairs of cache types that have names.

use std::fmt;
use std::str::FromStr;

use super::cache_type::{CacheType, KvCalibration};

/// A pair of types for K and V, as `--kv-preset` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvPreset {
    K3V2,
    K4V2,
    K4V3,
    K4V4,
    Quality,
}

impl KvPreset {
    /// All of them, the smallest first.
    pub const ALL: [Self; 5] = [Self::K3V2, Self::K4V2, Self::K4V3, Self::K4V4, Self::Quality];

    /// `k4v3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::K3V2 => "k3v2",
            Self::K4V2 => "k4v2",
            Self::K4V3 => "k4v3",
            Self::K4V4 => "k4v4",
            Self::Quality => "quality",
        }
    }

    /// The types of K and V.
    pub const fn types(self) -> (CacheType, CacheType) {
        match self {
            Self::K3V2 => (CacheType::Turbo3, CacheType::Turbo2),
            Self::K4V2 => (CacheType::Turbo4, CacheType::Turbo2),
            Self::K4V3 => (CacheType::Turbo4, CacheType::Turbo3),
            Self::K4V4 => (CacheType::Turbo4, CacheType::Turbo4),
            Self::Quality => (CacheType::Q8_0, CacheType::Turbo4),
        }
    }

    /// What goes with the types; None: what is the default for them.
    pub fn calibration(self) -> Option<KvCalibration> {
        (self == Self::Quality).then_some(KvCalibration::IfPossible)
    }
}

impl fmt::Display for KvPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no such preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {name:?}: there are k3v2, k4v2, k4v3, k4v4 and quality")]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
}

impl FromStr for KvPreset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| UnknownPreset { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_tools() {
        let tools = include_str!("../../ggml-ext/common/turbo-args.h");
        for preset in KvPreset::ALL {
            let (k, v) = preset.types();
            let row: String = tools
                .lines()
                .find(|line| line.contains(&format!("{{ \"{preset}\",")))
                .expect("the tools have it")
                .split_whitespace()
                .collect();
            let scales = if preset.calibration().is_some() { "try" } else { "" };
            assert_eq!(row, format!("{{\"{preset}\",\"{k}\",\"{v}\",\"{scales}\"}},"));
            assert_eq!(preset.name().parse(), Ok(preset));
        }
        assert_eq!(tools.matches("    { \"").count(), KvPreset::ALL.len());
        let error = "k9v9".parse::<KvPreset>().expect_err("no such preset").to_string();
        assert!(KvPreset::ALL.iter().all(|p| error.contains(p.name())), "{error}");
    }
}
