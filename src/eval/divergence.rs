//! How far predictions are from those of a reference.

/// A prediction: the logits of all tokens in one place, and what makes them probabilities.
#[derive(Debug, Clone, Copy)]
pub struct Prediction<'a> {
    logits: &'a [f32],
    /// Natural logarithm of the sum of all `exp(logit)`.
    log_sum_exp: f64,
    top: usize,
}

impl<'a> Prediction<'a> {
    /// None: there is no logit, or one is not a number, or one is infinite.
    pub fn new(logits: &'a [f32]) -> Option<Self> {
        let mut top = 0;
        for (i, &x) in logits.iter().enumerate() {
            if x > logits[top] {
                top = i; // of equals the first
            }
        }
        let max = *logits.get(top)?;
        let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
        let log_sum_exp = f64::from(max) + sum.ln();
        log_sum_exp.is_finite().then_some(Self { logits, log_sum_exp, top })
    }

    /// Natural logarithm of a token's probability.
    pub fn log_prob(&self, token: usize) -> f64 {
        f64::from(self.logits[token]) - self.log_sum_exp
    }

    /// The most likely token.
    pub fn top(&self) -> usize {
        self.top
    }

    /// KL divergence of `other` from this one, nats: what it costs to take `other` for the truth.
    pub fn kld(&self, other: &Prediction<'_>) -> f64 {
        let shift = self.log_sum_exp - other.log_sum_exp;
        let terms = self.logits.iter().zip(other.logits).map(|(&x, &y)| {
            let p = (x - self.log_sum_exp as f32).exp();
            // What is impossible costs nothing, also where both are.
            if p > 0.0 { f64::from(p) * (f64::from(x) - f64::from(y) - shift) } else { 0.0 }
        });
        terms.sum()
    }
}

/// What one prediction is like beside its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// Divergence from the reference, nats.
    pub kld: f64,
    /// Negative logarithm of the probability of the token that came.
    pub nll: f64,
    /// Whether the most likely token is the same.
    pub same_top: bool,
}

impl Compared {
    /// `token`: the one that came.
    pub fn new(reference: &Prediction<'_>, other: &Prediction<'_>, token: usize) -> Self {
        Self {
            kld: reference.kld(other),
            nll: -other.log_prob(token),
            same_top: reference.top() == other.top(),
        }
    }
}

/// All places of a text together.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Places.
    pub n: usize,
    /// Perplexity.
    pub ppl: f64,
    /// Mean divergence, nats.
    pub mean_kld: f64,
    /// Its standard error.
    pub mean_kld_error: f64,
    /// The divergence that 99% of places do not exceed, interpolated between places.
    pub kld_99: f64,
    /// The largest.
    pub max_kld: f64,
    /// Share of places whose most likely token is the reference's, 0 to 1.
    pub same_top: f64,
}

impl Summary {
    /// None: there is nothing to summarize.
    pub fn new(places: &[Compared]) -> Option<Self> {
        let mut klds: Vec<f64> = places.iter().map(|place| place.kld).collect();
        klds.sort_unstable_by(f64::total_cmp);
        let max_kld = *klds.last()?;
        let n = places.len() as f64;
        let mean_kld = klds.iter().sum::<f64>() / n;
        let square = klds.iter().map(|kld| (kld - mean_kld).powi(2)).sum::<f64>() / n;
        let same = places.iter().filter(|place| place.same_top).count();
        Some(Self {
            n: places.len(),
            ppl: (places.iter().map(|place| place.nll).sum::<f64>() / n).exp(),
            mean_kld,
            mean_kld_error: (square / (n - 1.0).max(1.0)).sqrt(),
            kld_99: quantile(&klds, 0.99),
            max_kld,
            same_top: same as f64 / n,
        })
    }
}

/// Of sorted values, at least one; linear between two.
fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len() - 1) as f64;
    let (low, part) = (place as usize, place.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - part) + sorted[high] * part
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    fn prediction(logits: &[f32]) -> Prediction<'_> {
        Prediction::new(logits).expect("numbers")
    }

    #[test]
    fn divergence_is_that_of_the_probabilities() {
        // 1/4, 3/4 and 1/2, 1/2, shifted.
        let p = [7.0, 7.0 + 3f32.ln()];
        let q = [-2.0, -2.0];
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert_abs_diff_eq!(prediction(&p).kld(&prediction(&q)), expected, epsilon = 1e-6);
        assert_abs_diff_eq!(prediction(&p).kld(&prediction(&p)), 0.0, epsilon = 1e-7);
        assert_abs_diff_eq!(prediction(&p).log_prob(0), 0.25f64.ln(), epsilon = 1e-6);
        assert_eq!((prediction(&p).top(), prediction(&q).top()), (1, 0));
    }

    #[test]
    fn what_is_no_prediction_is_none() {
        for logits in [&[][..], &[1.0, f32::NAN], &[f32::NAN, 1.0], &[f32::INFINITY, 0.0]] {
            assert!(Prediction::new(logits).is_none(), "{logits:?}");
        }
        assert!(Prediction::new(&[f32::NEG_INFINITY]).is_none());
        let masked = [0.0, f32::NEG_INFINITY];
        assert_eq!(prediction(&masked).kld(&prediction(&masked)), 0.0);
        assert_eq!(prediction(&[0.0, 0.0]).kld(&prediction(&masked)), f64::INFINITY);
    }

    #[test]
    fn summaries_are_means_and_quantiles() {
        let place = |kld, same_top| Compared { kld, nll: 2f64.ln(), same_top };
        let places: Vec<_> = (0..=200).map(|i| place(f64::from(i), i % 4 != 0)).collect();
        let summary = Summary::new(&places).expect("places");
        assert_abs_diff_eq!(summary.ppl, 2.0, epsilon = 1e-9);
        assert_eq!((summary.n, summary.mean_kld, summary.max_kld), (201, 100.0, 200.0));
        assert_abs_diff_eq!(summary.kld_99, 198.0, epsilon = 1e-9);
        assert_abs_diff_eq!(summary.same_top, 150.0 / 201.0, epsilon = 1e-9);
        assert_abs_diff_eq!(summary.mean_kld_error, 58.0230 / 200f64.sqrt(), epsilon = 1e-4);
        assert_eq!(Summary::new(&[]), None);
        assert_eq!(Summary::new(&places[5..6]).expect("one").mean_kld_error, 0.0);
    }
}
