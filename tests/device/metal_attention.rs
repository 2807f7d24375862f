//! Cases of attention over a cache of two types, and what it is in f64.

use half::f16;
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK, trellis};

use super::program::{Done, Session, Type};

/// Every pair of these can be K and V.
pub const TYPES: [Type; 5] = [Type::Turbo2, Type::Turbo3, Type::Turbo4, Type::Q8_0, Type::F16];

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub k: Type,
    pub v: Type,
    /// Of K's heads, and of V's.
    pub dims: [usize; 2],
    pub queries: usize,
    pub cells: usize,
    /// Heads of queries, and of K and V.
    pub heads: [usize; 2],
    pub batches: usize,
    pub mask: bool,
    pub max_bias: f32,
    pub softcap: f32,
    pub sinks: bool,
    pub anchors: bool,
}

impl Case {
    /// Nothing special.
    pub fn new(k: Type, v: Type, dim: usize) -> Self {
        Self {
            k,
            v,
            dims: [dim, dim],
            queries: 1,
            cells: 96,
            heads: [2, 1],
            batches: 1,
            mask: false,
            max_bias: 0.0,
            softcap: 0.0,
            sinks: false,
            anchors: false,
        }
    }

    /// All that the operator has, and a number of cells that fills no tile.
    pub fn full(k: Type, v: Type, dim: usize, anchors: bool) -> Self {
        Self {
            queries: 3,
            cells: 77,
            heads: [4, 2],
            mask: true,
            max_bias: 8.0,
            softcap: 20.0,
            sinks: true,
            anchors,
            ..Self::new(k, v, dim)
        }
    }
}

/// What a case is run with.
pub struct Inputs {
    case: Case,
    scale: f32,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Vec<f16>,
    sinks: Vec<f32>,
    anchors: Vec<f16>,
    ids: Vec<i32>,
}

/// `n` values of a type that are near to Gaussians: their bytes, and the values that they stand for.
fn store(kind: Type, rng: &mut SplitMix64, n: usize) -> (Vec<u8>, Vec<f32>) {
    // Levels are up to 127, and what the bits of a block are does not matter.
    fn turbo<const K: usize>(rng: &mut SplitMix64, n: usize) -> (Vec<u8>, Vec<f32>) {
        assert_eq!(n % QK, 0, "whole blocks");
        let mut bytes = vec![0; n / QK * Block::<K>::BYTES];
        let mut stored = Vec::with_capacity(n);
        for bytes in bytes.chunks_exact_mut(Block::<K>::BYTES) {
            let scale = f16::from_f64((0.5 + rng.uniform()) / 60.0);
            let planes = std::array::from_fn(|_| rng.next_u64().to_le_bytes());
            let block = Block::<K> { scale: scale.to_le_bytes(), planes };
            block.write_to(bytes);
            stored.extend(trellis::decode(&block).map(|l| block.scale() * f32::from(l)));
        }
        (bytes, stored)
    }
    let values = match kind {
        Type::Turbo2 | Type::Turbo3 | Type::Turbo4 => Vec::new(),
        _ => rng.gaussians(n),
    };
    match kind {
        Type::Turbo2 => turbo::<2>(rng, n),
        Type::Turbo3 => turbo::<3>(rng, n),
        Type::Turbo4 => turbo::<4>(rng, n),
        Type::F16 => {
            let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
            let bytes = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
            (bytes, halves.iter().map(|h| h.to_f32()).collect())
        }
        Type::F32 => (values.iter().flat_map(|x| x.to_le_bytes()).collect(), values),
        Type::Q8_0 => {
            let (mut bytes, mut stored) = (Vec::new(), Vec::new());
            for block in values.chunks_exact(32) {
                let peak = block.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                let d = f16::from_f32(peak / 127.0);
                bytes.extend(d.to_le_bytes());
                for x in block {
                    let q = (x / d.to_f32()).round().clamp(-127.0, 127.0) as i8;
                    bytes.extend(q.to_le_bytes());
                    stored.push(d.to_f32() * f32::from(q));
                }
            }
            (bytes, stored)
        }
        _ => panic!("{kind:?} is not a type of K or V"),
    }
}

fn row_bytes(kind: Type, n: usize) -> usize {
    match kind {
        Type::F32 => 4 * n,
        Type::F16 => 2 * n,
        Type::Q8_0 => n / 32 * 34,
        Type::Turbo2 => n / QK * Block::<2>::BYTES,
        Type::Turbo3 => n / QK * Block::<3>::BYTES,
        Type::Turbo4 => n / QK * Block::<4>::BYTES,
        _ => panic!("{kind:?} is not a type of K or V"),
    }
}

/// Anchors of a case with them.
const ANCHORS: usize = 3;

/// Puts the case into a session, as llama.cpp does: K and V are views of caches with all heads of a cell in a row.
pub fn put(session: &mut Session, case: Case, seed: u64) -> Inputs {
    let mut rng = SplitMix64::new(seed);
    let [dk, dv] = case.dims;
    let [nh, nkv] = case.heads;
    let (nq, n, nb) = (case.queries, case.cells, case.batches);
    let scale = 1.0 / (dk as f32).sqrt();

    let q = rng.gaussians(nb * nh * nq * dk);
    let (k_bytes, k) = store(case.k, &mut rng, nb * n * nkv * dk);
    let (v_bytes, v) = store(case.v, &mut rng, nb * n * nkv * dv);
    // Not all of the first keys; the last row of queries sees one cell alone.
    let mask: Vec<f16> = (0..nb * nq * n)
        .map(|i| {
            let (row, cell) = (i / n % nq, i % n);
            let hidden = match row + 1 == nq && nq > 1 {
                true => cell != n / 2,
                false => cell > n - nq + row || cell % 7 == row % 7,
            };
            if hidden { f16::NEG_INFINITY } else { f16::from_f32(-(cell as f32 % 5.0) / 4.0) }
        })
        .collect();
    let sinks = rng.gaussians(nh);
    let anchors: Vec<f16> =
        rng.gaussians(nb * nkv * ANCHORS * dk).into_iter().map(f16::from_f32).collect();
    // Cells in a row share an anchor, some have none, and some are anywhere.
    let ids: Vec<i32> = (0..nb * n)
        .map(|i| match i % n {
            c if c < 40 => 1,
            c if c < 50 => -1,
            c if c < 70 => (c % ANCHORS) as i32,
            _ => 2,
        })
        .collect();

    let f32s = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let f16s = |x: &[f16]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };

    let q_at = session.tensor(Type::F32, [dk, nq, nh, nb], &f32s(&q));
    let mut cache = |kind, dim: usize, bytes: &[u8]| {
        let (head, cells) = (row_bytes(kind, dim), nb * n);
        let whole = session.tensor(kind, [dim * nkv, cells, 1, 1], bytes);
        session.view(whole, [dim, n, nkv, nb], [head * nkv, head, head * nkv * n], 0)
    };
    let (k_at, v_at) = (cache(case.k, dk, &k_bytes), cache(case.v, dv, &v_bytes));
    let none = String::from("-1");
    let mask_at = match case.mask {
        true => session.tensor(Type::F16, [n, nq, 1, nb], &f16s(&mask)).to_string(),
        false => none.clone(),
    };
    let sinks_at = match case.sinks {
        true => session.tensor(Type::F32, [nh, 1, 1, 1], &f32s(&sinks)).to_string(),
        false => none.clone(),
    };
    let (anchors_at, ids_at) = match case.anchors {
        true => {
            let bytes: Vec<u8> = ids.iter().flat_map(|i| i.to_le_bytes()).collect();
            (
                session.tensor(Type::F16, [dk, ANCHORS, nkv, nb], &f16s(&anchors)).to_string(),
                session.tensor(Type::I32, [n, nb, 1, 1], &bytes).to_string(),
            )
        }
        false => (none.clone(), none),
    };
    session.op(format!(
        "attend {q_at} {k_at} {v_at} {mask_at} {sinks_at} {anchors_at} {ids_at} {scale} {} {}",
        case.max_bias, case.softcap
    ));
    Inputs { case, scale, q, k, v, mask, sinks, anchors, ids }
}

impl Inputs {
    /// What attention is, in f64: heads of a query together.
    fn expected(&self) -> Vec<f64> {
        let case = &self.case;
        let [dk, dv] = case.dims;
        let [nh, nkv] = case.heads;
        let (nq, n) = (case.queries, case.cells);
        let mut out = Vec::with_capacity(case.batches * nq * nh * dv);
        for b in 0..case.batches {
            for iq in 0..nq {
                for h in 0..nh {
                    let hk = h / (nh / nkv);
                    let q = &self.q[((b * nh + h) * nq + iq) * dk..][..dk];
                    let slope = slope(h, nh, case.max_bias);
                    let logits: Vec<f64> = (0..n)
                        .map(|c| {
                            let k = &self.k[((b * n + c) * nkv + hk) * dk..][..dk];
                            let mut dot = dot(q, k.iter().copied());
                            if case.anchors && self.ids[b * n + c] >= 0 {
                                let id = self.ids[b * n + c] as usize;
                                let m = &self.anchors[((b * nkv + hk) * ANCHORS + id) * dk..][..dk];
                                dot += self::dot(q, m.iter().map(|m| m.to_f32()));
                            }
                            let mut s = dot * f64::from(self.scale);
                            if case.softcap > 0.0 {
                                let cap = f64::from(case.softcap);
                                s = cap * (s / cap).tanh();
                            }
                            if case.mask {
                                s += slope * self.mask[(b * nq + iq) * n + c].to_f64();
                            }
                            s
                        })
                        .collect();
                    let sink = case.sinks.then(|| f64::from(self.sinks[h]));
                    let max = logits.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
                    let mut sum = sink.map_or(0.0, |s| (s - max).exp());
                    let mut o = vec![0.0; dv];
                    for (c, s) in logits.iter().enumerate() {
                        let w = (s - max).exp();
                        sum += w;
                        let v = &self.v[((b * n + c) * nkv + hk) * dv..][..dv];
                        for (o, v) in o.iter_mut().zip(v) {
                            *o += w * f64::from(*v);
                        }
                    }
                    out.extend(o.iter().map(|o| o / sum));
                }
            }
        }
        out
    }

    /// Squared error of what the operator made, relative to what it is to be.
    pub fn error(&self, done: &Done) -> f64 {
        let expected = self.expected();
        let (got, rest) = done.bytes.as_chunks::<4>();
        assert!(rest.is_empty() && got.len() == expected.len(), "{:?}", self.case);
        let (mut error, mut energy) = (0.0, 0.0);
        for (got, expected) in got.iter().zip(&expected) {
            error += (f64::from(f32::from_le_bytes(*got)) - expected).powi(2);
            energy += expected * expected;
        }
        error / energy
    }
}

fn dot(q: &[f32], k: impl Iterator<Item = f32>) -> f64 {
    q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(k)).sum()
}

/// ALiBi's, as ggml has it.
fn slope(head: usize, heads: usize, max_bias: f32) -> f64 {
    if max_bias == 0.0 {
        return 1.0;
    }
    let log2 = 1 << heads.ilog2();
    let base = |bias: f32| f64::from((-bias / log2 as f32).exp2());
    match head < log2 {
        true => base(max_bias).powi(head as i32 + 1),
        false => base(max_bias / 2.0).powi(2 * (head - log2) as i32 + 1),
    }
}
