//! CUDA's flash attention, compiled for the host and run thread by thread, against an oracle in f64.
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and no CUDA.
#![cfg(unix)]

#[path = "device/attention.rs"]
mod attention;
#[allow(dead_code, reason = "tests/attention.rs uses the rest")]
#[path = "attention/case.rs"]
mod case;
#[path = "support/coverage.rs"]
mod coverage;
#[path = "device/hadamard.rs"]
mod hadamard;
#[path = "device/host.rs"]
mod host;
#[allow(dead_code, reason = "tests/attention.rs uses the rest")]
#[path = "attention/not_finite.rs"]
mod not_finite;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use case::{Case, Data, Ids, Mask};
use coverage::{DEVICE_ATTENTION_HEAD_DIMS as HEAD_DIMS, DEVICE_ATTENTION_TYPES as TYPES};
use hadamard::rotate;
use host::{compile, floats, run};
use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType::{Turbo2, Turbo4};
use not_finite::{Cache, put};

/// Largest [`Data::nmse`]: queries, weights and scaled q8_0 are rounded to 11 bits.
const NMSE: f64 = 1e-6;

/// tests/device/cuda/attention.cpp for a head_dim.
fn program(head_dim: usize) -> PathBuf {
    // One compiler at a time.
    static COMPILED: Mutex<Vec<(usize, PathBuf)>> = Mutex::new(Vec::new());
    let mut compiled = COMPILED.lock().unwrap();
    if let Some((_, program)) = compiled.iter().find(|(dim, _)| *dim == head_dim) {
        return program.clone();
    }
    let program = compile_for(head_dim, "cuda-attention", Path::new("ggml-ext/ggml/src/ggml-cuda"));
    compiled.push((head_dim, program.clone()));
    program
}

/// It, with the kernels of a folder.
fn compile_for(head_dim: usize, name: &str, kernels: &Path) -> PathBuf {
    let headers = ["tests/device", "tests/device/cuda", "ggml-ext/ggml/src"].map(Path::new);
    let headers = [&headers[..], &[kernels]].concat();
    let (name, define) = (format!("{name}-{head_dim}"), format!("HEAD_DIM={head_dim}"));
    let program = compile(&name, &["cuda/attention.cpp", "fibers.cpp"], &headers, &[&define]);
    program.unwrap_or_else(|error| panic!("{error}"))
}

/// What the kernels make of a problem.
fn attend(program: &Path, data: &Data, splits: usize) -> Vec<f32> {
    let case = &data.case;
    let arguments = [case.type_k.name(), case.type_v.name(), &splits.to_string()];
    floats(&run(program, &arguments, attention::input(data)))
}

fn nmse(program: &Path, case: Case, splits: usize) -> f64 {
    let data = Data::new(case);
    data.nmse(&attend(program, &data, splits))
}

fn check(case: Case, splits: usize) {
    let nmse = nmse(&program(case.dk), case, splits);
    assert!(nmse <= NMSE, "NMSE {nmse:.2e}, {splits} splits, {case:?}");
}

/// The kernels that script/gpu/logits.cu measures.
#[test]
fn logits_alone() {
    let headers = [
        "tests/device",
        "tests/device/cuda",
        "ggml-ext/ggml/src",
        "ggml-ext/ggml/src/ggml-cuda",
        "script/gpu",
    ]
    .map(Path::new);
    let program = compile("cuda-logits", &["cuda/logits.cpp", "fibers.cpp"], &headers, &[]);
    let program = program.unwrap_or_else(|error| panic!("{error}"));
    let output = std::process::Command::new(program).output().expect("a program that runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Every pair of types, every other one with anchors, one token of grouped heads; the cells are no whole tiles.
fn every_pair(head_dim: usize) {
    for (i, type_k) in TYPES.into_iter().enumerate() {
        for (j, type_v) in TYPES.into_iter().enumerate() {
            let ids = if (i + j).is_multiple_of(2) { Ids::Runs } else { Ids::Absent };
            let seed = (5 * i + j) as u64;
            let case = Case::new(type_k, type_v, head_dim, 8, 2);
            check(Case { n_kv: 139, ids, seed, ..case }, 2);
        }
    }
}

#[test]
fn every_pair_at_every_head_dim() {
    HEAD_DIMS.into_iter().for_each(every_pair);
}

const TURBO: Case = Case {
    n_kv: 300,
    seed: 3,
    ..Case::new(KvType::Turbo(Turbo4), KvType::Turbo(Turbo2), 64, 6, 2)
};

/// Rows of several blocks, the last of them not full.
#[test]
fn several_tokens() {
    for tokens in [2, 5, 6, 7] {
        check(Case { tokens, ..TURBO }, 3);
    }
}

#[test]
fn any_number_of_splits() {
    for splits in [1, 2, 7, 10, 12] {
        check(TURBO, splits);
    }
    check(Case { n_kv: 1, ..TURBO }, 1);
}

#[test]
fn every_mask() {
    for mask in [Mask::None, Mask::Window(70), Mask::Random, Mask::HiddenRows] {
        check(Case { tokens: 4, mask, ..TURBO }, 2);
    }
    let hidden = Case { tokens: 4, mask: Mask::HiddenAll, ..TURBO };
    assert!(attend(&program(64), &Data::new(hidden), 2).iter().all(|&x| x == 0.0));
}

#[test]
fn masks_of_heads_and_batches() {
    let batches = Case { batches: 2, batches_kv: 2, ids_batches: 2, ids: Ids::Runs, ..TURBO };
    check(batches, 2);
    check(Case { mask_batches: 2, tokens: 3, mask: Mask::Random, ..batches }, 2);
    check(Case { mask_heads: 6, tokens: 3, mask: Mask::Random, ..TURBO }, 2);
    check(Case { interleaved: false, ..batches }, 2);
}

#[test]
fn slopes_softcap_and_sinks() {
    check(Case { max_bias: 8.0, mask: Mask::Random, tokens: 2, ..TURBO }, 2);
    check(Case { softcap: 2.0, ..TURBO }, 2);
    check(Case { softcap: 2.0, ids: Ids::Scattered, ..TURBO }, 2);
    check(Case { sinks: true, ..TURBO }, 2);
    let hidden = Case { sinks: true, mask: Mask::HiddenAll, ..TURBO };
    assert!(attend(&program(64), &Data::new(hidden), 2).iter().all(|&x| x == 0.0));
}

/// Rows that see a scale that is not finite are NaN; it changes nothing for the others.
#[test]
fn scales_that_are_not_finite() {
    let case = Case { tokens: 4, mask: Mask::Random, ..TURBO };
    for (splits, cell) in [(1, 30), (3, 299)] {
        for cache in [Cache::K, Cache::V] {
            for x in [f32::NAN, f32::INFINITY] {
                let mut data = Data::new(case);
                put(&mut data, cache, cell, 0, x);
                let (got, expected) = (attend(&program(64), &data, splits), data.expected());
                let (mut seen, mut error, mut size) = (0, 0.0, 0.0);
                for (got, expected) in got.chunks_exact(64).zip(expected.chunks_exact(64)) {
                    if expected.iter().any(|x| !x.is_finite()) {
                        assert!(got.iter().all(|x| x.is_nan()), "{x} in {cache:?}: {got:?}");
                        seen += 1;
                        continue;
                    }
                    for (got, expected) in got.iter().zip(expected) {
                        error += (f64::from(*got) - expected).powi(2);
                        size += expected * expected;
                    }
                }
                // Three heads of the tokens that see it.
                assert!(seen > 0 && seen < 12, "{seen}");
                assert!(error / size <= NMSE, "{x} in {cache:?}: NMSE {}", error / size);
            }
        }
    }
    // Nothing but NaN.
    let mut data = Data::new(Case { n_kv: 40, ..TURBO });
    (0..40).for_each(|cell| put(&mut data, Cache::K, cell, 1, f32::NAN));
    let got = attend(&program(64), &data, 2);
    let (fine, bad) = got.split_at(3 * 64);
    assert!(fine.iter().all(|x| x.is_finite()) && bad.iter().all(|x| x.is_nan()));
}

#[test]
fn every_kind_of_ids() {
    for ids in [Ids::One, Ids::Runs, Ids::Scattered] {
        check(Case { ids, tokens: 3, ..TURBO }, 2);
    }
}

/// Queries that are scaled and rotated as they are loaded, and a result that is rotated as it is put together: the bits of
/// separate operators. The scales are those of tests/device/cuda/attention.cpp.
#[test]
fn rotations_on_the_way() {
    let anchored = Case { ids: Ids::Runs, tokens: 3, ..TURBO };
    let wide = Case { tokens: 2, sinks: true, ..Case::new(TURBO.type_k, TURBO.type_v, 256, 4, 2) };
    let middle = Case {
        n_kv: 70,
        batches: 2,
        ids: Ids::Scattered,
        ..Case::new(TURBO.type_k, TURBO.type_v, 128, 8, 2)
    };
    for (case, before, after) in
        [(anchored, 64, 64), (wide, 256, 64), (wide, 64, 256), (middle, 128, 64)]
    {
        let arguments =
            [case.type_k.name(), case.type_v.name(), "2", &before.to_string(), &after.to_string()];
        let mut data = Data::new(case);
        let got = floats(&run(&program(case.dk), &arguments, attention::input(&data)));

        let group = case.heads / case.heads_k;
        for (row, q) in data.q.chunks_exact_mut(case.dk).enumerate() {
            let head_kv = row % case.heads / group;
            for (i, x) in q.iter_mut().enumerate() {
                *x *= 0.5 + ((head_kv * case.dk + i) * 7 % 13) as f32 / 8.0;
            }
            rotate(q, before);
        }
        let mut expected = attend(&program(case.dk), &data, 2);
        rotate(&mut expected, after);
        assert!(got == expected, "{before} and {after}: {case:?}");
    }
}

/// What is compared is what the kernels do: one bit of a constant, one place of a value.
#[test]
fn a_mutation_is_noticed() {
    for (name, file, from, to) in [
        ("byte", "turbo-warp.cuh", "0x64806480", "0x64816480"),
        (
            "place",
            "turbo-tiles.cuh",
            "return 32*(g/4) + 4*s + g%4;",
            "return 32*(g/4) + 4*s + (g^1)%4;",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let kernels = host::root().join("ggml-ext/ggml/src/ggml-cuda");
        for entry in std::fs::read_dir(kernels).expect("the kernels") {
            let path = entry.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("a text");
            let name = path.file_name().expect("a name");
            let mutated = if name == file { text.replace(from, to) } else { text.clone() };
            assert!(name != file || mutated != text, "{file} has no {from}");
            std::fs::write(dir.path().join(name), mutated).expect("writing");
        }
        let program = compile_for(64, &format!("cuda-attention-{name}"), dir.path());
        let nmse = nmse(&program, TURBO, 2);
        assert!(nmse > 100.0 * NMSE, "{name}: NMSE {nmse:.2e}");
    }
}
