//! Comparing next-token distributions.

/// KL divergence in nats of softmax(`q`) from softmax(`p`); both are logits over the vocabulary.
/// Panics on a value that is not finite: no test wants one.
pub fn kld(p: &[f32], q: &[f32]) -> f64 {
    assert_eq!(p.len(), q.len());
    assert!(p.iter().chain(q).all(|x| x.is_finite()), "logits that are not finite");
    let (zp, zq) = (log_sum_exp(p), log_sum_exp(q));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (log_p, log_q) = (f64::from(p) - zp, f64::from(q) - zq);
        log_p.exp() * (log_p - log_q)
    });
    terms.sum::<f64>().max(0.0)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

/// Mean divergence of `q` from `p`, over as many predictions of each.
pub fn mean_kld(p: &[Vec<f32>], q: &[Vec<f32>]) -> f64 {
    assert_eq!(p.len(), q.len());
    mean_max(&p.iter().zip(q).map(|(p, q)| kld(p, q)).collect::<Vec<_>>()).0
}

/// The most likely token.
pub fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("a vocabulary");
    best.0 as i32
}

/// Mean and maximum.
pub fn mean_max(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().copied().fold(0.0, f64::max))
}
