//! CPU flash attention against an oracle in f64, for every instruction set that this machine runs.

#[allow(dead_code, reason = "tests of devices use the rest")]
#[path = "attention/case.rs"]
mod case;
#[path = "support/coverage.rs"]
mod coverage;
#[path = "attention/not_finite.rs"]
mod not_finite;

use case::{Case, Data, Ids, Mask, N_ANCHORS};
use coverage::{CPU_ATTENTION_HEAD_DIMS as HEAD_DIMS, CPU_ATTENTION_TYPES as TYPES};
use half::f16;
use llama_turboquant::attention::{self, Kernels, KvType};
use llama_turboquant::codec::TurboType::{Turbo3, Turbo4};
use proptest::prelude::*;

/// Largest difference to the oracle, of values up to 2: weights are rounded to 2^-16 of the tile's
/// largest (at most 64 * 2^-16 * 2 in all, were every error the same way) and queries to 2^-16.
const TOLERANCE: f64 = 5e-4;

fn check(case: Case, threads: usize, kernels: &'static Kernels) {
    let data = Data::new(case);
    let (got, expected) = (data.run(threads, kernels), data.expected());
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(
            error <= TOLERANCE,
            "{}: value {i}: {got} instead of {expected}, {threads} threads, {case:?}",
            kernels.name
        );
    }
}

fn all_pairs() -> impl Iterator<Item = (KvType, KvType)> {
    TYPES.into_iter().flat_map(|k| TYPES.map(|v| (k, v)))
}

/// Pairs that need no anchors.
fn pairs() -> impl Iterator<Item = (KvType, KvType)> {
    all_pairs().filter(|&(k, v)| attention::supported(k, v, 64, 64, false).is_ok())
}

fn cases() -> impl Strategy<Value = (Case, usize)> {
    let types = prop::sample::select(all_pairs().collect::<Vec<_>>());
    let dims = prop::sample::select(HEAD_DIMS.to_vec());
    let masks = prop::sample::select(vec![
        Mask::None,
        Mask::Causal,
        Mask::Window(70),
        Mask::Random,
        Mask::HiddenRows,
        Mask::HiddenAll,
    ]);
    let shape = (1usize..=3, 1usize..=9, 1usize..40, 1usize..300);
    let options =
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<u64>());
    let batch = (
        prop::sample::select(vec![(1usize, 1usize), (2, 1), (2, 2)]),
        1usize..=2,
        1usize..=2,
        1usize..=8,
    );
    let ids = prop::sample::select(vec![Ids::Absent, Ids::One, Ids::Runs, Ids::Scattered]);
    let anchors = (ids, 1usize..=2);
    (types, dims.clone(), dims, masks, shape, options, batch, anchors).prop_map(
        |((type_k, type_v), dk, dv, mask, (kv, group, tokens, n_kv), options, batch, anchors)| {
            let (alibi, softcap, sinks, interleaved, per_head, seed) = options;
            let ((batches, batches_kv), mask_batches, v_split, threads) = batch;
            let heads = kv * group;
            let case = Case {
                dk,
                dv,
                tokens,
                n_kv,
                mask,
                batches,
                batches_kv,
                mask_heads: if per_head { heads } else { 1 },
                mask_batches,
                max_bias: if alibi { 8.0 } else { 0.0 },
                softcap: if softcap { 10.0 } else { 0.0 },
                sinks,
                ids: match anchors.0 {
                    Ids::Absent if !pairs().any(|pair| pair == (type_k, type_v)) => Ids::Runs,
                    ids => ids,
                },
                ids_batches: anchors.1.min(batches),
                interleaved,
                seed,
                // V may have more heads than K.
                heads_v: if v_split == 2 && group.is_multiple_of(2) { 2 * kv } else { kv },
                ..Case::new(type_k, type_v, dk, heads, kv)
            };
            (case, threads)
        },
    )
}

macro_rules! suite {
    ($isa:ident, $name:literal) => {
        mod $isa {
            use super::*;

            fn kernels() -> Option<&'static Kernels> {
                let name = $name;
                let found = attention::available().iter().find(|table| table.name == name).copied();
                if found.is_none() {
                    let required = std::env::var("TQ_REQUIRE_SIMD").unwrap_or_default();
                    assert!(!required.split(',').any(|asked| asked == name), "{name} is required");
                    eprintln!("SKIPPED: this CPU has no {name}");
                }
                found
            }

            #[test]
            fn every_pair_of_types_decodes_and_prefills() {
                let Some(kernels) = kernels() else { return };
                for (k, v) in pairs() {
                    for tokens in [1, 7] {
                        check(Case { tokens, n_kv: 200, ..Case::new(k, v, 64, 6, 2) }, 2, kernels);
                    }
                }
            }

            #[test]
            fn every_head_dim() {
                let Some(kernels) = kernels() else { return };
                for head_dim in HEAD_DIMS {
                    let turbo = KvType::Turbo(Turbo4);
                    check(
                        Case { tokens: 5, ..Case::new(turbo, turbo, head_dim, 4, 1) },
                        1,
                        kernels,
                    );
                }
                // q8_0's blocks are shorter: a last block that is half empty.
                let (dk, tokens) = (96, 5);
                let mixed = Case::new(KvType::Q8_0, KvType::Turbo(Turbo3), 64, 4, 2);
                check(Case { dk, tokens, ..mixed }, 2, kernels);
                let mixed = Case::new(KvType::Turbo(Turbo3), KvType::F16, 64, 4, 2);
                check(Case { dv: 80, tokens, ..mixed }, 2, kernels);
            }

            #[test]
            fn v_may_be_a_view_of_k() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo4);
                let mla = Case { dv: 512, v_in_k: true, ..Case::new(turbo, turbo, 576, 16, 1) };
                check(mla, 3, kernels);
                check(Case { tokens: 20, ..mla }, 3, kernels);
            }

            #[test]
            fn every_group_size_and_thread_count() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo3);
                for group in 1..=16 {
                    for tokens in [1, 3] {
                        check(
                            Case { tokens, ..Case::new(turbo, turbo, 64, 2 * group, 2) },
                            group % 5 + 1,
                            kernels,
                        );
                    }
                }
                for group in [17, 24, 25, 47, 48, 49, 71, 96, 128, 129, 160] {
                    for (tokens, threads) in [(1, 1), (1, 7), (3, 2)] {
                        let case = Case::new(turbo, turbo, 64, group, 1);
                        check(Case { tokens, n_kv: 150, ..case }, threads, kernels);
                    }
                }
                for threads in [1, 2, 3, 5, 8, 16, 33, 64] {
                    for (tokens, n_kv) in [(1, 1000), (1, 40), (40, 300)] {
                        check(
                            Case { tokens, n_kv, ..Case::new(turbo, turbo, 64, 3, 1) },
                            threads,
                            kernels,
                        );
                    }
                }
            }

            #[test]
            fn anchors_with_every_pair_of_types() {
                let Some(kernels) = kernels() else { return };
                for (k, v) in all_pairs() {
                    for (tokens, threads) in [(1, 3), (7, 2)] {
                        let case = Case::new(k, v, 64, 6, 2);
                        check(Case { tokens, n_kv: 200, ids: Ids::Runs, ..case }, threads, kernels);
                    }
                }
            }

            #[test]
            fn anchors_of_every_pattern() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo4);
                let pairs =
                    [(turbo, turbo), (KvType::F16, KvType::F16), (KvType::Q8_0, KvType::F16)];
                for (k, v) in pairs {
                    for ids in [Ids::One, Ids::Runs, Ids::Scattered] {
                        for softcap in [0.0, 2.0] {
                            let one =
                                Case { n_kv: 1000, ids, softcap, ..Case::new(k, v, 64, 3, 1) };
                            check(one, 1, kernels);
                            check(one, 4, kernels);
                            let many = Case { tokens: 33, n_kv: 333, ids, softcap, ..one };
                            check(many, 2, kernels);
                            let wide = Case::new(k, v, 256, 4, 1);
                            check(Case { n_kv: 300, ids, softcap, ..wide }, 3, kernels);
                            check(Case { tokens: 9, n_kv: 150, ids, softcap, ..wide }, 2, kernels);
                        }
                    }
                }
            }

            #[test]
            fn anchors_of_batches() {
                let Some(kernels) = kernels() else { return };
                let base = Case::new(KvType::F16, KvType::Turbo(Turbo3), 64, 4, 2);
                for (batches_kv, ids_batches) in [(1, 1), (1, 2), (4, 1), (4, 4), (2, 4)] {
                    for (tokens, threads) in [(1, 5), (6, 2)] {
                        let batch = Case { batches: 4, batches_kv, ids_batches, ..base };
                        let ids = Ids::Runs;
                        check(Case { tokens, n_kv: 190, ids, ..batch }, threads, kernels);
                    }
                }
            }

            #[test]
            fn keys_less_their_anchors_attend_as_the_keys() {
                let Some(kernels) = kernels() else { return };
                let base = Case::new(KvType::F32, KvType::Turbo(Turbo4), 64, 6, 2);
                for (tokens, threads, batches_kv) in [(1, 1, 1), (1, 4, 2), (20, 2, 1)] {
                    for ids in [Ids::One, Ids::Runs, Ids::Scattered] {
                        let batch = Case { batches: 2, batches_kv, ..base };
                        let case = Case { tokens, n_kv: 300, interleaved: false, ..batch };
                        let plain = Data::new(case).run(threads, kernels);
                        let anchored = Data::new(case).anchored(ids).run(threads, kernels);
                        for (i, (plain, anchored)) in plain.iter().zip(&anchored).enumerate() {
                            let error = (plain - anchored).abs();
                            assert!(error < 1e-4, "value {i}: {anchored}, not {plain}, {case:?}");
                        }
                    }
                }
            }

            /// The one row of a causal mask that sees the last cell is the last token's.
            #[test]
            fn an_anchor_that_is_infinite_or_does_not_exist_is_nan_where_it_is_seen() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo4);
                let last = N_ANCHORS as i32 - 1;
                for (k, softcap) in [(turbo, 0.0), (KvType::F16, 0.0), (turbo, 5.0)] {
                    for (tokens, threads) in [(1, 1), (1, 4), (3, 1), (3, 4), (40, 2)] {
                        for id in [last, last + 1] {
                            let base =
                                Case { n_kv: 300, ids: Ids::Runs, ..Case::new(k, turbo, 64, 3, 1) };
                            let mut data = Data::new(Case { tokens, softcap, ..base });
                            data.anchor_ids.iter_mut().for_each(|id| *id = (*id).min(last - 1));
                            data.anchor_ids[299] = id;
                            data.anchors[last as usize * 64 + 7] = f16::INFINITY;
                            let got = data.run(threads, kernels);
                            let (fine, bad) = got.split_at((tokens - 1) * 3 * 64);
                            assert!(fine.iter().all(|x| x.is_finite()), "{}", kernels.name);
                            assert!(bad.iter().all(|x| x.is_nan()), "{}", kernels.name);
                        }
                    }
                }
            }

            #[test]
            fn a_query_that_is_not_finite_gives_nan() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo4);
                for k in [turbo, KvType::F16] {
                    for ids in [Ids::Absent, Ids::One, Ids::Scattered] {
                        for (tokens, threads) in [(2, 1), (2, 4), (30, 2)] {
                            for bad in [f32::NAN, f32::INFINITY] {
                                let base = Case::new(k, turbo, 64, 3, 1);
                                let mut data = Data::new(Case { tokens, ids, ..base });
                                data.q[64 + 5] = bad;
                                let got = data.run(threads, kernels);
                                for (row, got) in got.chunks_exact(64).enumerate() {
                                    let nan = got.iter().all(|x| x.is_nan());
                                    let finite = got.iter().all(|x| x.is_finite());
                                    assert!(if row == 1 { nan } else { finite }, "row {row}");
                                }
                            }
                        }
                    }
                }
            }

            #[test]
            fn cells_that_are_not_finite_are_nan_where_they_are_seen_and_nothing_elsewhere() {
                let Some(kernels) = kernels() else { return };
                not_finite::every_type(&pairs().collect::<Vec<_>>(), Ids::Absent, kernels);
                let floats = [
                    (KvType::F16, KvType::F16),
                    (KvType::F32, KvType::Q8_0),
                    (KvType::Bf16, KvType::F32),
                    (KvType::Turbo(Turbo4), KvType::Bf16),
                ];
                not_finite::every_type(&floats, Ids::Runs, kernels);
                not_finite::nothing_but_nan(kernels);
                not_finite::a_mask_that_is_nan(kernels);
            }

            #[test]
            fn products_that_overflow_are_nan_or_weigh_nothing() {
                let Some(kernels) = kernels() else { return };
                not_finite::products_that_overflow(kernels);
            }

            #[test]
            fn the_same_result_for_the_same_threads() {
                let Some(kernels) = kernels() else { return };
                let turbo = KvType::Turbo(Turbo4);
                for tokens in [1, 100] {
                    let data =
                        Data::new(Case { tokens, n_kv: 700, ..Case::new(turbo, turbo, 64, 6, 2) });
                    let first = data.run(3, kernels);
                    assert!((0..5).all(|_| data.run(3, kernels) == first));
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: n_cases(), ..Default::default() })]
                #[test]
                fn any_problem((case, threads) in cases()) {
                    if let Some(kernels) = kernels() {
                        check(case, threads, kernels);
                    }
                }
            }
        }
    };
}

/// Any number of query heads to a KV head, of tokens and of threads, by this machine's best kernels.
#[test]
fn any_group_any_tokens_any_threads() {
    let turbo = KvType::Turbo(Turbo4);
    let mut rng = case::Rng::new(14);
    let mut below = |n: usize| (rng.bits() >> 32) as usize % n;
    for group in 1..=160 {
        let (heads_kv, tokens, threads) =
            (1 + below(2), 1 + below(1000 / group + 1), 1 + below(64));
        let case = Case::new(turbo, turbo, 64, group * heads_kv, heads_kv);
        let case = Case { tokens: tokens.min(300), n_kv: 1 + below(200), ..case };
        check(case, threads, attention::active());
    }
}

/// `PROPTEST_CASES`, else fewer than usual: a case is a whole problem.
fn n_cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(48, |n| n.parse().expect("PROPTEST_CASES is a number"))
}

suite!(scalar, "scalar");
#[cfg(target_arch = "x86_64")]
suite!(avx2, "avx2");
#[cfg(target_arch = "x86_64")]
suite!(avx512, "avx512");
#[cfg(target_arch = "x86_64")]
suite!(avx512_vnni, "avx512-vnni");
#[cfg(target_arch = "aarch64")]
suite!(neon, "neon");
