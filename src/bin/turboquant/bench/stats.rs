//! What is said of samples.

use serde_json::{Value, json};

/// The middle, and where the lowest and the highest tenth begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// None: no samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |fraction: f64| {
            let place = fraction * (sorted.len() - 1) as f64;
            let (low, part) = (place as usize, place.fract());
            let high = (low + 1).min(sorted.len() - 1);
            sorted[low] * (1.0 - part) + sorted[high] * part
        };
        let some = !sorted.is_empty();
        some.then(|| Self { median: quantile(0.5), low: quantile(0.1), high: quantile(0.9) })
    }

    /// In another unit: the order may turn around.
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (f(self.low), f(self.high));
        Self { median: f(self.median), low: a.min(b), high: a.max(b) }
    }

    pub fn json(self) -> Value {
        json!({ "median": self.median, "p10": self.low, "p90": self.high })
    }
}

/// Of each round by itself.
pub fn ratios(samples: &[f64], to: &[f64]) -> Vec<f64> {
    samples.iter().zip(to).map(|(sample, to)| sample / to).collect()
}
