//! Rotations as llama.cpp's graphs have them.

/// By a Hadamard matrix, in the order of upstream's additions: neighbours first.
pub fn rotate(x: &mut [f32], n: usize) {
    for x in x.chunks_exact_mut(n) {
        for x in &mut *x {
            *x *= 1.0 / (n as f32).sqrt();
        }
        for half in (0..n.ilog2()).map(|bit| 1 << bit) {
            for i in (0..n).filter(|i| i & half == 0) {
                (x[i], x[i + half]) = (x[i] + x[i + half], x[i] - x[i + half]);
            }
        }
    }
}
