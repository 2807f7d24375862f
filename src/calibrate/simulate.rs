//! Attention with quantized keys: what some scales are worth.

use super::head::{Head, padded, rotation_width};
use crate::codec::TurboType;
use crate::codec::rotation::wht;
use crate::rows::{dequantize_row, quantize_row, row_bytes};

/// The type whose error is simulated. Errors of turbo2 and turbo4 differ in size, hardly in shape; the middle
/// one is large enough to stand out from f32's, and small enough that softmax answers it in proportion.
const TYPE: TurboType = TurboType::Turbo3;

/// The queries that judge, with what attention to exact keys gives them.
pub(super) struct Judge<'a> {
    head: &'a Head<'a>,
    /// `[queries and their heads][dim_v]`.
    exact: Vec<f32>,
    /// Sum of their squares.
    energy: f64,
}

impl<'a> Judge<'a> {
    /// Attends to the head's exact keys.
    pub fn new(head: &'a Head<'a>) -> Self {
        let mut exact = Vec::new();
        attend(head, &head.keys, |result| exact.extend_from_slice(result));
        let energy = exact.iter().map(|x| f64::from(*x).powi(2)).sum();
        Self { head, exact, energy }
    }

    /// Sum |o' - o|^2 / sum |o|^2 over queries and their heads, with o' of keys that were quantized under `scale`.
    ///
    /// 0 where o' is o, even if both are 0.
    pub fn error(&self, scale: &[f32]) -> f64 {
        let keys = quantized(self.head, scale);
        let mut exact = self.exact.chunks_exact(self.head.dim_v);
        let mut error = 0.0;
        attend(self.head, &keys, |result| {
            let exact = exact.next().expect("as many results as before");
            let squares = result.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2));
            error += squares.sum::<f64>();
        });
        if error == 0.0 { 0.0 } else { error / self.energy }
    }
}

/// Attends to `keys` with every query that judges, and shows each result.
fn attend(head: &Head, keys: &[f32], mut show: impl FnMut(&[f32])) {
    let &Head { dim, dim_v, .. } = head;
    let (mut weights, mut result) = (Vec::new(), vec![0.0; dim_v]);
    for token in head.judging() {
        let cells = token.cells.clone();
        let keys = &keys[cells.start * dim..cells.end * dim];
        let values = &head.values[cells.start * dim_v..cells.end * dim_v];
        for query in token.heads(head.index) {
            query.attend(keys, values, &mut weights, &mut result);
            show(&result);
        }
    }
}

/// `[n_kv][dim]`: keys as a cache returns them that holds H(scale * (k - m)).
pub(super) fn quantized(head: &Head, scale: &[f32]) -> Vec<f32> {
    let padded = padded(head.dim);
    let width = rotation_width(padded);
    let rotate = |rows: &mut [f32]| {
        for values in rows.chunks_exact_mut(width) {
            wht(values).expect("a power of two");
        }
    };
    let residuals = || head.residuals.chunks_exact(head.dim);
    let mut rows = vec![0.0; residuals().len() * padded];
    for (row, residual) in rows.chunks_exact_mut(padded).zip(residuals()) {
        for ((x, residual), s) in row.iter_mut().zip(residual).zip(scale) {
            *x = residual * s;
        }
    }
    rotate(&mut rows);
    let lengths = "rows are whole blocks";
    let mut bytes = vec![0; row_bytes(TYPE, rows.len()).expect(lengths)];
    quantize_row(TYPE, &rows, &mut bytes).expect(lengths);
    dequantize_row(TYPE, &bytes, &mut rows).expect(lengths);
    rotate(&mut rows);
    let mut keys = head.keys.clone();
    let cells = keys.chunks_exact_mut(head.dim).zip(rows.chunks_exact(padded));
    for ((key, row), residual) in cells.zip(residuals()) {
        for (((key, x), residual), s) in key.iter_mut().zip(row).zip(residual).zip(scale) {
            *key += x / s - residual;
        }
    }
    keys
}
