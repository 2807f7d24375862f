//! Keys and values that are NaN or infinite: NaN for the queries that see them, nothing for all others.

use half::{bf16, f16};
use llama_turboquant::attention::{Kernels, KvType};
use llama_turboquant::codec::TurboType::{Turbo3, Turbo4};

use super::case::{Case, Data, Ids, Mask};

/// A cache of a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cache {
    K,
    V,
}

/// Heads of K and V.
const HEADS: usize = 2;
/// Query heads to each.
const GROUP: usize = 3;

/// Overwrites one value of a cell's head, or the scale of a block of it.
pub fn put(data: &mut Data, cache: Cache, cell: usize, head: usize, x: f32) {
    let (ty, len, bytes) = match cache {
        Cache::K => (data.case.type_k, data.case.dk, &mut data.k),
        Cache::V => (data.case.type_v, data.case.dv, &mut data.v),
    };
    // In the middle of the row, in its second half if it has several blocks.
    let block = (cell * HEADS + head) * (len / ty.block_len()) + len / ty.block_len() / 2;
    let at = block * ty.block_bytes();
    match ty {
        KvType::F32 => bytes[at..at + 4].copy_from_slice(&x.to_le_bytes()),
        KvType::Bf16 => bytes[at..at + 2].copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        KvType::F16 | KvType::Q8_0 | KvType::Turbo(_) => {
            bytes[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
        }
    }
}

/// Whether the query sees the cell.
fn sees(data: &Data, token: usize, cell: usize) -> bool {
    data.mask[token * data.case.n_kv + cell] != f16::NEG_INFINITY.to_bits()
}

/// Every row of `got`: NaN where it sees one of `cells` of `head`, else what it was before.
fn check(data: &Data, before: &[f32], got: &[f32], head: usize, cells: &[usize], what: &str) {
    let Case { heads, dv, .. } = data.case;
    for (row, (got, before)) in got.chunks_exact(dv).zip(before.chunks_exact(dv)).enumerate() {
        let (token, query_head) = (row / heads, row % heads);
        let sees = query_head / GROUP == head && cells.iter().any(|&cell| sees(data, token, cell));
        let as_it_must = match sees {
            true => got.iter().all(|x| x.is_nan()),
            false => got.iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits()),
        };
        assert!(
            as_it_must,
            "token {token}, head {query_head} sees a cell of {cells:?}: {sees}; got {:?}, before {:?}; {what}, {:?}",
            &got[..4],
            &before[..4],
            data.case
        );
    }
}

/// For each pair of types: a cell that some queries see, one that none does, and one in a tile of its own.
pub fn every_type(pairs: &[(KvType, KvType)], ids: Ids, kernels: &'static Kernels) {
    const CALLS: [(usize, usize); 4] = [(1, 1), (9, 1), (1, 3), (30, 2)];
    const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    const CELLS: [&[usize]; 3] = [&[70, 198], &[30], &[192]];
    for (i, &(k, v)) in pairs.iter().enumerate() {
        for (tokens, threads) in [CALLS[i % 4], CALLS[(i + 1) % 4]] {
            let case = Case::new(k, v, 128, HEADS * GROUP, HEADS);
            let mut clean = Data::new(Case { tokens, n_kv: 199, mask: Mask::Random, ids, ..case });
            // The last tile has 7 cells, of which only the first is seen.
            for mask in clean.mask.chunks_exact_mut(199) {
                mask[192] = 0;
                mask[193..].fill(f16::NEG_INFINITY.to_bits());
                mask[70] = f16::NEG_INFINITY.to_bits();
            }
            let before = clean.run(threads, kernels);
            assert!(before.iter().all(|x| x.is_finite()));
            for (j, cache) in [Cache::K, Cache::V].into_iter().enumerate() {
                for (n, cells) in CELLS.into_iter().enumerate() {
                    let x = BAD[(i + j + n) % 3];
                    let mut data = Data::new(clean.case);
                    data.mask.clone_from(&clean.mask);
                    cells.iter().for_each(|&cell| put(&mut data, cache, cell, 1, x));
                    let got = data.run(threads, kernels);
                    let what = format!("{}: {x} in {cache:?}", kernels.name);
                    check(&data, &before, &got, 1, cells, &what);
                }
            }
        }
    }
}

/// Finite keys whose product with a query is not: +infinity is NaN as in any softmax, -infinity weighs nothing, and
/// a cap makes either finite.
pub fn products_that_overflow(kernels: &'static Kernels) {
    for tokens in [1, 5] {
        for (softcap, sign) in [(0.0, 1.0), (0.0, -1.0), (4.0, 1.0), (4.0, -1.0)] {
            let case = Case::new(KvType::F32, KvType::Turbo(Turbo4), 64, HEADS * GROUP, HEADS);
            let case = Case { tokens, n_kv: 100, ids: Ids::One, softcap, ..case };
            let mut clean = Data::new(Case { mask: Mask::Random, ..case });
            clean.q.iter_mut().for_each(|q| *q = 2.0 + q.abs());
            let data = |cell: Option<usize>| {
                let mut data = Data::new(clean.case);
                data.q.clone_from(&clean.q);
                if let Some(cell) = cell {
                    put(&mut data, Cache::K, cell, 0, sign * f32::MAX);
                }
                data
            };
            let before = data(None).run(1, kernels);
            for cell in [3, 80] {
                let data = data(Some(cell));
                let got = data.run(1, kernels);
                if softcap == 0.0 && sign > 0.0 {
                    check(&data, &before, &got, 0, &[cell], kernels.name);
                    continue;
                }
                // The oracle's sums do not overflow, which is what both come to.
                let expected = data.expected();
                for (got, expected) in got.iter().zip(&expected) {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(error < 5e-4, "{}: {got}, not {expected}", kernels.name);
                }
                let hidden = check_hidden(&data, &before, &got, cell);
                assert!(tokens == 1 || hidden > 0, "no token is hidden from cell {cell}");
            }
        }
    }
}

/// Rows that do not see the cell are as before; returns how many these are.
fn check_hidden(data: &Data, before: &[f32], got: &[f32], cell: usize) -> usize {
    let per_token = data.case.heads * data.case.dv;
    let hidden: Vec<_> = (0..data.case.tokens).filter(|&token| !sees(data, token, cell)).collect();
    for &token in &hidden {
        let row = token * per_token..(token + 1) * per_token;
        assert_eq!(got[row.clone()], before[row]);
    }
    hidden.len()
}

/// A query all of whose cells are NaN.
pub fn nothing_but_nan(kernels: &'static Kernels) {
    for k in [KvType::Turbo(Turbo3), KvType::F16] {
        for (cells, threads) in [(1, 1), (64, 1), (150, 1), (150, 4)] {
            let case = Case::new(k, KvType::Turbo(Turbo4), 64, HEADS * GROUP, HEADS);
            let mut data = Data::new(Case { n_kv: cells, ..case });
            for cell in 0..cells {
                put(&mut data, Cache::K, cell, 0, f32::NAN);
            }
            let got = data.run(threads, kernels);
            let (bad, fine) = got.split_at(GROUP * 64);
            assert!(bad.iter().all(|x| x.is_nan()) && fine.iter().all(|x| x.is_finite()));
        }
    }
}

/// A mask that is NaN hides nothing: it makes the logit NaN.
pub fn a_mask_that_is_nan(kernels: &'static Kernels) {
    for others in [f16::ZERO, f16::NEG_INFINITY] {
        let turbo = KvType::Turbo(Turbo4);
        let mut data = Data::new(Case { tokens: 2, ..Case::new(turbo, turbo, 64, 6, HEADS) });
        let (first, second) = data.mask.split_at_mut(256);
        first.fill(0);
        second.fill(others.to_bits());
        second[77] = f16::NAN.to_bits();
        let got = data.run(2, kernels);
        let (fine, bad) = got.split_at(6 * 64);
        assert!(bad.iter().all(|x| x.is_nan()) && fine.iter().all(|x| x.is_finite()));
    }
}
