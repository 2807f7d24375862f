//! The inner products of attention, written so that the compiler makes vectors of them.

use std::array;

/// Values that a sum takes at once: four vectors of four, so that additions do not wait for each other.
const LANES: usize = 16;

/// `out[i] = x . rows[i]`. `x`: n values. `rows`: `[out.len()][n]`.
pub(super) fn dots(x: &[f32], rows: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), x.len() * out.len());
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(x.len())) {
        let (row_lanes, row_rest) = row.as_chunks::<LANES>();
        let mut sums = [[0.0; 4]; 4];
        for (x, y) in x_lanes.iter().zip(row_lanes) {
            add(&mut sums, |lane| x[lane] * y[lane]);
        }
        let rest = x_rest.iter().zip(row_rest).map(|(x, y)| x * y);
        *out = total(sums) + rest.sum::<f32>();
    }
}

/// `out = sum of weights[i] * rows[i]`. `rows`: `[weights.len()][out.len()]`.
pub(super) fn weighted_sum(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let n = out.len();
    debug_assert_eq!(rows.len(), weights.len() * n);
    out.fill(0.0);
    let (fours, rest) = weights.as_chunks::<4>();
    let (rows, rest_rows) = rows.split_at(fours.len() * 4 * n);
    // Four rows for each time that `out` is read and written.
    for (weights, rows) in fours.iter().zip(rows.chunks_exact(4 * n)) {
        // What is hidden or far below the largest logit weighs 0 exactly.
        if *weights == [0.0; 4] {
            continue;
        }
        let [wa, wb, wc, wd] = weights;
        let [a, b, c, d] = array::from_fn(|i| &rows[i * n..][..n]);
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out += (wa * a + wb * b) + (wc * c + wd * d);
        }
    }
    for (weight, row) in rest.iter().zip(rest_rows.chunks_exact(n)) {
        out.iter_mut().zip(row).for_each(|(out, value)| *out += weight * value);
    }
}

/// |x - y|^2. Both of one length.
pub(super) fn distance2(x: &[f32], y: &[f32]) -> f32 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [[0.0; 4]; 4];
    for (x, y) in x.iter().zip(y) {
        add(&mut sums, |lane| (x[lane] - y[lane]) * (x[lane] - y[lane]));
    }
    let rest = x_rest.iter().zip(y_rest).map(|(x, y)| (x - y) * (x - y));
    total(sums) + rest.sum::<f32>()
}

#[inline(always)]
fn add(sums: &mut [[f32; 4]; 4], term: impl Fn(usize) -> f32) {
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum += term(4 * i + j);
        }
    }
}

/// As vectors for as long as possible.
#[inline]
fn total([a, b, c, d]: [[f32; 4]; 4]) -> f32 {
    let [a, b, c, d] = array::from_fn(|i| (a[i] + b[i]) + (c[i] + d[i]));
    (a + b) + (c + d)
}
