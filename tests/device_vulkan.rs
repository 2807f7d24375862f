//! The Vulkan back end, run on its first device: the Rust core's bits, and attention against an oracle in f64.
//!
//! `script/test vulkan` builds tests/device/vulkan.cpp with ggml, and names the program in `TQ_TEST_VULKAN`.
#![cfg(unix)]

#[path = "device/attention.rs"]
mod attention;
#[allow(dead_code, reason = "tests/attention.rs uses the rest")]
#[path = "attention/case.rs"]
mod case;
#[path = "support/coverage.rs"]
mod coverage;
#[path = "device/data.rs"]
mod data;
#[allow(dead_code, reason = "other tests compile their programs")]
#[path = "device/host.rs"]
mod host;

use std::path::PathBuf;

use case::{Case, Data, Ids, Mask};
use coverage::DEVICE_ATTENTION_TYPES as TYPES;
use data::{any_blocks, backwards, bytes_of_blocks, bytes_of_rows, rows};
use half::f16;
use host::{floats, run};
use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};

/// Largest [`Data::nmse`]: queries, keys, weights and values are rounded to 11 bits.
const NMSE: f64 = 5e-6;

fn program() -> PathBuf {
    std::env::var_os("TQ_TEST_VULKAN").expect("TQ_TEST_VULKAN: run script/test vulkan").into()
}

fn encodes<const K: usize>() {
    let rows = rows();
    let n = rows.len() & !1;
    let expected: Vec<_> = rows[..n].iter().map(|row| encode::<K>(row).block).collect();
    for (what, expected) in [("set", backwards(&expected)), ("copy", expected)] {
        let arguments = ["rows", what, &K.to_string(), &n.to_string()];
        let bytes = run(&program(), &arguments, bytes_of_rows(&rows[..n]));
        let blocks: Vec<_> = bytes.chunks_exact(Block::<K>::BYTES).map(Block::from_bytes).collect();
        assert_eq!(blocks.len(), expected.len());
        for (i, (got, expected)) in blocks.iter().zip(&expected).enumerate() {
            assert_eq!(got, expected, "{what}, turbo{K}, block {i} of {n}");
        }
    }
}

#[test]
#[ignore = "needs what script/test vulkan builds"]
fn rows_are_set_and_copied_to_the_same_bits() {
    encodes::<2>();
    encodes::<3>();
    encodes::<4>();
}

fn decodes<const K: usize>() {
    let blocks = any_blocks::<K>();
    let values = |blocks: &[Block<K>]| -> Vec<f32> {
        let value = |block: &Block<K>, level: &i8| block.scale() * f32::from(*level);
        let of = |block: &Block<K>| trellis::decode(block).map(|level| value(block, &level));
        blocks.iter().flat_map(of).collect()
    };
    for (what, expected) in
        [("get", values(&backwards(&blocks))), ("cast", values(&blocks)), ("half", values(&blocks))]
    {
        let arguments = ["rows", what, &K.to_string(), &blocks.len().to_string()];
        let bytes = run(&program(), &arguments, bytes_of_blocks(&blocks));
        let half = what == "half";
        let got: Vec<u32> = match half {
            true => bytes.as_chunks().0.iter().map(|&x| u32::from(u16::from_le_bytes(x))).collect(),
            false => floats(&bytes).iter().map(|x| x.to_bits()).collect(),
        };
        assert_eq!(got.len(), QK * blocks.len());
        for (i, (got, value)) in got.iter().zip(&expected).enumerate() {
            let expected = match half {
                true => u32::from(f16::from_f32(*value).to_bits()),
                false => value.to_bits(),
            };
            assert_eq!(*got, expected, "{what}, turbo{K}, value {i}: {value}");
        }
    }
}

#[test]
#[ignore = "needs what script/test vulkan builds"]
fn any_bits_are_got_and_cast_to_the_same_values() {
    decodes::<2>();
    decodes::<3>();
    decodes::<4>();
}

/// ggml's number of a type.
fn number_of(ty: KvType) -> i64 {
    match ty {
        KvType::F32 => 0,
        KvType::F16 => 1,
        KvType::Q8_0 => 8,
        KvType::Bf16 => 30,
        KvType::Turbo(Turbo2) => 120,
        KvType::Turbo(Turbo3) => 121,
        KvType::Turbo(Turbo4) => 122,
    }
}

/// All in one process.
fn check(cases: &[Case]) {
    let problems: Vec<_> = cases.iter().map(|&case| Data::new(case)).collect();
    let mut input = Vec::new();
    for data in &problems {
        input.extend(number_of(data.case.type_k).to_le_bytes());
        input.extend(number_of(data.case.type_v).to_le_bytes());
        input.extend(attention::input(data));
    }
    let got = floats(&run(&program(), &["attention"], input));
    let mut rest = &got[..];
    let mut largest = 0.0f64;
    for data in &problems {
        let result;
        (result, rest) = rest.split_at(attention::result_len(data));
        let nmse = data.nmse(result);
        assert!(nmse <= NMSE, "NMSE {nmse:.2e}, {:?}", data.case);
        largest = largest.max(nmse);
    }
    assert!(rest.is_empty());
    println!("largest NMSE of {}: {largest:.2e}", cases.len());
}

const TURBO: Case = Case {
    n_kv: 139,
    seed: 3,
    ..Case::new(KvType::Turbo(Turbo4), KvType::Turbo(Turbo2), 64, 8, 2)
};

/// Decoding: the scalar shader reads K and V as they are.
#[test]
#[ignore = "needs what script/test vulkan builds"]
fn few_queries() {
    let with = |type_k, type_v, ids| Case { type_k, type_v, ids, ..TURBO };
    let anchored = Case { ids: Ids::Runs, ..TURBO };
    let batches = Case { batches: 2, batches_kv: 2, ids_batches: 2, ..anchored };
    check(&[
        anchored,
        Case { ids: Ids::Scattered, ..TURBO },
        Case { tokens: 3, ..anchored },
        Case { tokens: 3, mask: Mask::Random, ..batches },
        Case { interleaved: false, ..batches },
        Case { n_kv: 1500, ..anchored },
        Case { softcap: 2.0, sinks: true, max_bias: 8.0, mask: Mask::Random, ..anchored },
        // tokens and not heads in a tile
        Case { heads: 2, tokens: 20, ..anchored },
        with(KvType::Turbo(Turbo2), KvType::Q8_0, Ids::Runs),
        with(KvType::Q8_0, KvType::Turbo(Turbo3), Ids::Scattered),
        with(KvType::F16, KvType::Turbo(Turbo4), Ids::One),
        with(KvType::Turbo(Turbo3), KvType::F16, Ids::Absent),
    ]);
}

/// Prefill: every pair becomes f16, keys with their anchors, and is attended by one shader.
#[test]
#[ignore = "needs what script/test vulkan builds"]
fn many_queries_of_every_pair() {
    let mut cases = Vec::new();
    for (i, type_k) in TYPES.into_iter().enumerate() {
        for (j, type_v) in TYPES.into_iter().enumerate() {
            let ids = if (i + j).is_multiple_of(2) { Ids::Scattered } else { Ids::Absent };
            let turbo = [type_k, type_v].iter().any(|ty| matches!(ty, KvType::Turbo(_)));
            if turbo || ids != Ids::Absent {
                let seed = (5 * i + j) as u64;
                cases.push(Case { type_k, type_v, ids, seed, tokens: 12, ..TURBO });
            }
        }
    }
    let batches = Case { batches: 2, batches_kv: 2, ids_batches: 2, ids: Ids::Runs, ..TURBO };
    cases.push(Case { tokens: 12, interleaved: false, ..batches });
    check(&cases);
}
