//! Kernels of every table that this machine runs, one by one.

use half::f16;

use super::anchors::{BIAS_LEN, DOTS, Runs, Terms};
use super::softmax::{Hides, Logit};
use super::{TILE, available};
use crate::codec::{Block, QK, trellis};

/// Words without a pattern.
fn word(seed: u64) -> u64 {
    let x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[test]
fn exp_is_within_its_bound_and_zero_far_below() {
    for kernels in available() {
        let mut largest = 0.0f64;
        for start in (0..86_992).step_by(16) {
            let mut x: [f32; 16] = std::array::from_fn(|i| -((start + i) as f32) * 1e-3);
            let expected = x.map(|x| f64::from(x).exp());
            // SAFETY: 16 floats, and the table is available.
            unsafe { (kernels.exp_slice)(x.as_mut_ptr(), 16) };
            for (x, expected) in x.iter().zip(expected) {
                largest = largest.max((f64::from(*x) / expected - 1.0).abs());
            }
        }
        assert!(largest < 3e-7, "{}: {largest}", kernels.name);
        let mut x = [0.0f32; 16];
        x[1..5].copy_from_slice(&[f32::NEG_INFINITY, -87.1, -1e30, -f32::MAX]);
        // SAFETY: 16 floats, and the table is available.
        unsafe { (kernels.exp_slice)(x.as_mut_ptr(), 16) };
        assert_eq!(x[..6], [1.0, 0.0, 0.0, 0.0, 0.0, 1.0], "{}", kernels.name);
        let mut x = [f32::NAN; 16];
        x[7] = -1.0;
        // SAFETY: as above.
        unsafe { (kernels.exp_slice)(x.as_mut_ptr(), 16) };
        for (i, x) in x.iter().enumerate() {
            assert_eq!(x.is_nan(), i != 7, "{}: {x}", kernels.name);
        }
    }
}

#[test]
fn nan_is_hidden_or_stays() {
    for kernels in available() {
        for cap in [0.0f32, 30.0] {
            let mut row = [1.0f32; TILE];
            row[3] = f32::NAN;
            row[4] = f32::NAN;
            row[20] = f32::INFINITY;
            let mut mask = [0.0f32; TILE];
            mask[4] = f32::NEG_INFINITY;
            mask[20] = f32::NEG_INFINITY;
            mask[21] = f32::NEG_INFINITY;
            let logit = Logit { scale: 1.0, cap, slope: 0.0, offset: 0.0, bias: std::ptr::null() };
            // SAFETY: 64 floats each, and the table is available.
            let largest = unsafe { (kernels.logits)(row.as_mut_ptr(), mask.as_ptr(), &logit) };
            for (i, x) in row.iter().enumerate() {
                match i {
                    4 | 20 | 21 => assert_eq!(*x, f32::NEG_INFINITY, "{}: {i}", kernels.name),
                    _ => assert_eq!(x.is_nan(), i == 3, "{}: {i}: {x}", kernels.name),
                }
            }
            assert_eq!(largest, row[0], "{}", kernels.name);
            // SAFETY: 64 floats, and the table is available.
            assert!(unsafe { (kernels.exp_row)(row.as_mut_ptr(), largest) }.is_nan());
        }
    }
}

#[test]
fn what_is_not_finite_is_found() {
    for kernels in available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..TILE {
                let mut x = [f32::MAX; TILE];
                // SAFETY: 64 floats, and the table is available.
                assert!(unsafe { (kernels.finite)(x.as_ptr(), TILE) });
                x[at] = bad;
                // SAFETY: as above.
                assert!(!unsafe { (kernels.finite)(x.as_ptr(), TILE) }, "{}", kernels.name);
            }
        }
    }
}

#[test]
fn softcap_follows_tanh() {
    for kernels in available() {
        let x: [f32; TILE] = std::array::from_fn(|i| (i as f32 - 32.0) * 3.1);
        for cap in [1.0f32, 30.0] {
            let mut row = x;
            let logit =
                Logit { scale: 1.0 / cap, cap, slope: 1.0, offset: 0.0, bias: std::ptr::null() };
            // SAFETY: 64 floats, no mask, and the table is available.
            let largest = unsafe { (kernels.logits)(row.as_mut_ptr(), std::ptr::null(), &logit) };
            for (got, x) in row.iter().zip(x) {
                let expected = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
                let error = (f64::from(*got) - expected).abs();
                assert!(error < 3e-7 * f64::from(cap), "{}: cap {cap}: {error}", kernels.name);
            }
            assert_eq!(largest, row.iter().fold(f32::MIN, |a, &b| a.max(b)));
        }
    }
}

#[test]
fn runs_of_anchors_bias_their_cells() {
    let terms = [1.5f32, f32::NAN, -2.0, f32::NAN, 4.0];
    let every_other = Terms { first: terms.as_ptr(), stride: 2, len: 3 };
    let ids: [fn(usize) -> i32; 6] = [
        |_| 1,
        |_| -3,
        |i| i32::from(i >= 17),
        |i| (i / 5 % 5) as i32 - 2,
        |i| (word(i as u64) >> 40) as i32 % 3,
        |i| -i32::from(i < 63),
    ];
    for kernels in available() {
        for n in [1, 2, 15, 63, 64] {
            for ids in ids {
                let ids: Vec<i32> = (0..n).map(ids).collect();
                let mut runs = Runs::NONE;
                runs.split(&[2; TILE]);
                // SAFETY: the table is available.
                unsafe { (kernels.split)(&mut runs, &ids) };
                if runs.get().is_empty() {
                    assert!(ids.iter().all(|&id| id < 0));
                    continue;
                }
                let mut dst = [f32::NAN; BIAS_LEN];
                // SAFETY: room for BIAS_LEN, runs of a tile, and the table is available.
                let finite =
                    unsafe { (kernels.bias)(dst.as_mut_ptr(), runs.get(), &every_other, 0.5) };
                assert!(finite);
                for (cell, x) in dst[..TILE].iter().enumerate() {
                    let expected = match ids.get(cell) {
                        Some(&id) if id >= 0 => 0.5 * terms[2 * id as usize],
                        _ => 0.0,
                    };
                    assert_eq!(*x, expected, "{}: cell {cell} of {ids:?}", kernels.name);
                }
            }
        }
        for (id, terms) in [(3, [0.0; 3]), (i32::MAX, [0.0; 3]), (1, [0.0, f32::INFINITY, 0.0])] {
            let mut ids = [0; TILE];
            ids[40] = id;
            let mut runs = Runs::NONE;
            runs.split(&ids);
            let mut dst = [0.0; BIAS_LEN];
            let terms = Terms { first: terms.as_ptr(), stride: 1, len: 3 };
            // SAFETY: as above.
            let finite = unsafe { (kernels.bias)(dst.as_mut_ptr(), runs.get(), &terms, 1.0) };
            assert!(!finite && !dst[40].is_finite() && dst[39] == 0.0 && dst[41] == 0.0);
        }
    }
}

#[test]
fn queries_are_multiplied_with_an_anchor() {
    let values = |seed: u64, n: usize| -> Vec<f32> {
        (0..n as u64).map(|i| (word(seed << 32 | i) >> 40) as f32 / 1e6 - 8.0).collect()
    };
    for kernels in available() {
        for len in [1, 7, 16, 64, 80, 256] {
            let q: [Vec<f32>; DOTS] = std::array::from_fn(|i| values(i as u64, len));
            let m: Vec<f16> = values(9, len).into_iter().map(f16::from_f32).collect();
            // SAFETY: `len` floats each, and the table is available.
            let dots = unsafe {
                (kernels.dots)(std::array::from_fn(|i| q[i].as_ptr()), m.as_ptr().cast(), len)
            };
            for (dot, q) in dots.iter().zip(&q) {
                let products = q.iter().zip(&m).map(|(q, m)| f64::from(*q) * m.to_f64());
                let (expected, size) =
                    products.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                let error = (f64::from(*dot) - expected).abs();
                assert!(error <= 1e-6 * size, "{}: {dot}, not {expected}", kernels.name);
            }
        }
    }
}

#[test]
fn masks_are_classified() {
    let row = |f: fn(usize) -> f32| {
        std::array::from_fn::<u16, TILE, _>(|i| f16::from_f32(f(i)).to_bits())
    };
    for kernels in available() {
        for (mask, expected) in [
            (row(|_| f32::NEG_INFINITY), Hides::All),
            (row(|_| 0.0), Hides::None),
            (row(|i| if i == 63 { 0.0 } else { f32::NEG_INFINITY }), Hides::Some),
            (row(|i| if i == 1 { f32::NEG_INFINITY } else { 0.0 }), Hides::Some),
            (row(|i| if i == 40 { 0.5 } else { 0.0 }), Hides::Some),
            (row(|i| -(i as f32) * 6e-8), Hides::Some),
            (row(|i| if i % 2 == 0 { 0.5 } else { -0.5 }), Hides::Some),
        ] {
            let mut out = [f32::NAN; TILE];
            // SAFETY: 64 elements each, and the table is available.
            let hides = unsafe { (kernels.mask_row)(out.as_mut_ptr(), mask.as_ptr()) };
            assert_eq!(hides, expected, "{}", kernels.name);
            assert_eq!(out, mask.map(|x| f16::from_bits(x).to_f32()), "{}", kernels.name);
        }
        for others in [f16::ZERO, f16::NEG_INFINITY] {
            let (mut mask, mut out) = ([others.to_bits(); TILE], [0.0; TILE]);
            mask[11] = f16::NAN.to_bits();
            // SAFETY: as above.
            let hides = unsafe { (kernels.mask_row)(out.as_mut_ptr(), mask.as_ptr()) };
            assert_eq!(hides, Hides::Some, "{}", kernels.name);
        }
    }
}

fn levels<const K: usize>(table: usize) {
    // An odd stride, as blocks of other heads lie between.
    let stride = Block::<K>::BYTES + 1;
    for n in [1, 7, 64] {
        let bytes: Vec<u8> = (0..n * stride).map(|i| (word(i as u64) >> 40) as u8 & 0x7b).collect();
        let blocks: Vec<_> = (0..n)
            .map(|i| Block::<K>::from_bytes(&bytes[i * stride..][..Block::<K>::BYTES]))
            .collect();
        for kernels in available() {
            let (mut out, mut scales) = ([0i8; TILE * QK], [0.0f32; TILE]);
            // SAFETY: `n` cells, room for 64, and the table is available.
            unsafe {
                (kernels.levels[table])(
                    bytes.as_ptr(),
                    stride,
                    n,
                    out.as_mut_ptr(),
                    scales.as_mut_ptr(),
                );
            }
            for (i, block) in blocks.iter().enumerate() {
                let expected = trellis::decode(block);
                for (place, &value) in kernels.order.iter().enumerate() {
                    assert_eq!(
                        out[i * QK + place],
                        expected[usize::from(value)],
                        "{}",
                        kernels.name
                    );
                }
                assert_eq!(scales[i], block.scale(), "{}", kernels.name);
            }
        }
    }
}

#[test]
fn levels_come_in_the_stated_order() {
    levels::<2>(0);
    levels::<3>(1);
    levels::<4>(2);
}

#[test]
fn tiles_are_packed_alike() {
    let levels: Vec<i8> = (0..TILE * QK).map(|i| (word(i as u64) >> 50) as i8).collect();
    let floats: Vec<f32> = levels.iter().map(|&x| f32::from(x)).collect();
    for kernels in available() {
        let (mut k, mut v) = (vec![0i16; TILE * QK], vec![0i16; TILE * QK]);
        let mut transposed = vec![0.0f32; TILE * QK];
        // SAFETY: 64 x 64 elements each, and the table is available.
        unsafe {
            (kernels.pack_k)(levels.as_ptr(), k.as_mut_ptr());
            (kernels.pack_v)(levels.as_ptr(), v.as_mut_ptr());
            (kernels.transpose)(floats.as_ptr(), transposed.as_mut_ptr());
        }
        for cell in 0..TILE {
            for value in 0..QK {
                let level = levels[cell * QK + value];
                assert_eq!(
                    k[(value / 2 * TILE + cell) * 2 + value % 2],
                    i16::from(level),
                    "{}",
                    kernels.name
                );
                assert_eq!(
                    v[(cell / 2 * QK + value) * 2 + cell % 2],
                    i16::from(level),
                    "{}",
                    kernels.name
                );
                assert_eq!(transposed[value * TILE + cell], f32::from(level), "{}", kernels.name);
            }
        }
    }
}
