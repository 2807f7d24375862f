//! The scales that minimise the sum of A_cc' s_c'^2 / s_c^2: Osborne's balancing of a matrix.
//!
//! In y = s^2 the sum over row i and column i without the diagonal is r / y_i + c y_i, with r the sum of
//! A_ij y_j and c that of A_ji / y_j, so the best y_i beside the others is sqrt(r / c). The whole sum is convex
//! in log y: one such y_i after the other converges to its minimum, where r / y_i = c y_i for each i.
//! Source: Osborne 1960, "On pre-conditioning of matrices".

/// Energy that every channel of queries and of keys is given, as a share of their mean channel's: one without any
/// keeps a finite scale.
const FLOOR: f64 = 1e-4;
/// Balancing ends when no log y moves by more.
const TOLERANCE: f64 = 1e-9;
/// Or after so many times through all y, far more than data needs.
const SWEEPS: usize = 1000;
/// Scales are at most this and at least its inverse.
const LARGEST: f64 = 64.0;

/// Log of the best scale of each channel, up to a constant. `a`: `[dim][dim]`, finite and not negative.
///
/// `groups`: the group of each of the `dim` channels, numbered without gaps; a group has one scale.
pub(super) fn balance(a: &[f64], groups: &[usize]) -> Vec<f64> {
    let dim = groups.len();
    let n = groups.iter().max().map_or(0, |last| last + 1);
    let total: f64 = a.iter().sum();
    // The elements are to be divided by their mean: none, or one that is all but 0, decides nothing.
    if total < f64::MIN_POSITIVE * (dim * dim) as f64 {
        return vec![0.0; dim];
    }
    let mean = total / (dim * dim) as f64;
    // Of elements that are 1 in the mean.
    let share = 1.0 / (dim as f64 * mean);
    let rows: Vec<f64> = a.chunks_exact(dim).map(|row| row.iter().sum::<f64>() * share).collect();
    let column = |column: usize| a.iter().skip(column).step_by(dim).sum::<f64>() * share;
    let columns: Vec<f64> = (0..dim).map(column).collect();
    let mut tied = vec![0.0; n * n];
    for (i, row) in a.chunks_exact(dim).enumerate() {
        for (j, element) in row.iter().enumerate() {
            // (q_i^2 + FLOOR) (k_j^2 + FLOOR), summed as A is.
            let floor = FLOOR * (rows[i] + columns[j] + FLOOR);
            tied[groups[i] * n + groups[j]] += element / mean + floor;
        }
    }
    let y = osborne(&tied, n);
    groups.iter().map(|group| 0.5 * y[*group].ln()).collect()
}

/// y that balances `a`, `[n][n]`, of which every element is positive.
fn osborne(a: &[f64], n: usize) -> Vec<f64> {
    let mut y = vec![1.0f64; n];
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for i in 0..n {
            let (mut row, mut column) = (0.0, 0.0);
            for j in (0..n).filter(|j| *j != i) {
                row += a[i * n + j] * y[j];
                column += a[j * n + i] / y[j];
            }
            let new = (row / column).sqrt();
            largest = largest.max((new / y[i]).ln().abs());
            y[i] = new;
        }
        if largest < TOLERANCE {
            break;
        }
    }
    y
}

/// Scales from their logs, which are multiplied by `power`: within bounds, and of geometric mean 1.
pub(super) fn bounded(logs: &[f64], power: f32) -> Vec<f32> {
    let bound = LARGEST.ln();
    let scaled = || logs.iter().map(|log| log * f64::from(power));
    let clamped = |shift: f64| scaled().map(move |log| (log - shift).clamp(-bound, bound));
    // Bounds move the mean, so the shift for which it is 0 is searched: the mean falls as the shift rises.
    let mut low = scaled().fold(f64::INFINITY, f64::min) - bound;
    let mut high = scaled().fold(f64::NEG_INFINITY, f64::max) + bound;
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if clamped(middle).sum::<f64>() > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    clamped(0.5 * (low + high)).map(|log| log.exp() as f32).collect()
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
