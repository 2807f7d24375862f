//! The Metal back end's operators over the turbo types, on the host: upstream's host code launches our kernels, which
//! are compiled as C++ and run with a fiber for each thread (tests/device/metal/).
//!
//! Needs a C++ compiler (`CXX`, else `c++`), and a Clang for the kernels: script/metal-tools gets one.
#![cfg(all(unix, feature = "llama"))]

#[path = "device/metal_attention.rs"]
mod attention;
#[allow(dead_code, reason = "tests/attention.rs uses the rest")]
#[path = "attention/case.rs"]
mod case;
#[path = "device/metal_cmake.rs"]
mod cmake;
#[path = "support/coverage.rs"]
mod coverage;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "device/data.rs"]
mod data;
#[path = "device/metal.rs"]
mod metal;
#[path = "device/metal_program.rs"]
mod program;
#[path = "common/tree.rs"]
mod tree;

use std::sync::OnceLock;

use half::f16;
use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};
use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};

use attention::{full, nmse, plain};
use case::{Case, Data, Ids, Mask};
use coverage::{DEVICE_ATTENTION_HEAD_DIMS, DEVICE_ATTENTION_TYPES};
use data::{any_blocks, bytes_of_blocks, rows};
use program::{Library, Program, Session, Type};

/// The kernels of rows, and those of attention.
const LIBRARIES: [Library; 6] = [
    Library { file: "turbo.metal", kernels: &["kernel_"], optimized: true },
    Library {
        file: "fa_vec_turbo.metal",
        kernels: &["kernel_flash_attn_ext_vec_"],
        optimized: false,
    },
    Library {
        file: "fa_vec_f16.metal",
        kernels: &["vec_f16_dk64_dv64$", "vec_f16_dk128_dv128$", "vec_f16_dk256_dv256$"],
        optimized: false,
    },
    Library {
        file: "fa_vec_q8_0.metal",
        kernels: &["vec_q8_0_dk64_dv64$", "vec_q8_0_dk128_dv128$", "vec_q8_0_dk256_dv256$"],
        optimized: false,
    },
    Library {
        file: "fa_f16.metal",
        kernels: &[
            "_f16_dk64_dv64$",
            "_f16_dk128_dv128$",
            "_f16_dk256_dv256$",
            "_f16_dk192_dv128$",
        ],
        optimized: false,
    },
    Library {
        file: "fa_aux.metal",
        kernels: &["_pad$", "_blk$", "_vec_reduce$"],
        optimized: false,
    },
];

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| Program::build("metal", &LIBRARIES, |_, text| text))
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn turbo(k: usize) -> Type {
    [Type::Turbo2, Type::Turbo3, Type::Turbo4][k - 2]
}

/// Blocks of a row in `encode_rows`.
const ROW: usize = 4;

/// The rows as the Rust core encodes them.
fn encoded<const K: usize>(rows: &[[f32; QK]]) -> Vec<u8> {
    let mut bytes = vec![0; rows.len() * Block::<K>::BYTES];
    for (row, bytes) in rows.iter().zip(bytes.chunks_exact_mut(Block::<K>::BYTES)) {
        encode::<K>(row).block.write_to(bytes);
    }
    bytes
}

fn whole_rows() -> Vec<[f32; QK]> {
    let mut rows = rows();
    rows.truncate(rows.len() / ROW * ROW);
    rows
}

/// Rows of `ROW` blocks go to rows in another order, by indices of either type.
fn sets_rows<const K: usize>(program: &Program, wide: bool) -> Result<(), String> {
    let mut rows = whole_rows();
    if wide {
        rows.truncate(10 * ROW);
    }
    let n = rows.len() / ROW;
    let expected = encoded::<K>(&rows);
    let row_bytes = ROW * Block::<K>::BYTES;
    // Row i goes to n - i, and row 0 stays as it was.
    let ids: Vec<usize> = (0..n).map(|i| n - i).collect();

    let mut session = Session::default();
    let dst = session.tensor(turbo(K), [ROW * QK, n + 1, 1, 1], &vec![0x77; row_bytes * (n + 1)]);
    let src = session.tensor(Type::F32, [ROW * QK, n, 1, 1], &bytes_of(rows.as_flattened()));
    let ids_bytes: Vec<u8> = match wide {
        true => ids.iter().flat_map(|&i| (i as i64).to_le_bytes()).collect(),
        false => ids.iter().flat_map(|&i| (i as i32).to_le_bytes()).collect(),
    };
    let ids_type = if wide { Type::I64 } else { Type::I32 };
    let ids_at = session.tensor(ids_type, [n, 1, 1, 1], &ids_bytes);
    session.op(format!("set_rows {dst} {src} {ids_at}"));
    let results = session.run(program)?;
    assert_eq!(
        results[0].kernels,
        [format!("kernel_set_rows_f32_{}_{}", ids_type.name(), turbo(K).name())]
    );

    let (first, others) = results[0].bytes.split_at(row_bytes);
    assert!(first.iter().all(|&b| b == 0x77), "a row that is not in the list");
    for (i, &id) in ids.iter().enumerate() {
        let got = &others[(id - 1) * row_bytes..][..row_bytes];
        let blocks = got.chunks_exact(Block::<K>::BYTES);
        for (j, (got, expected)) in
            blocks.zip(expected[i * row_bytes..].chunks_exact(Block::<K>::BYTES)).enumerate()
        {
            if got != expected {
                let row = &rows[i * ROW + j];
                return Err(format!(
                    "turbo{K}, row {i}, block {j}: {got:x?}, not {expected:x?}: {row:?}"
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn rows_are_encoded_to_the_same_bits() {
    for wide in [false, true] {
        sets_rows::<2>(program(), wide).unwrap();
        sets_rows::<3>(program(), wide).unwrap();
        sets_rows::<4>(program(), wide).unwrap();
    }
}

/// As K-shift does: heads of rows that lie apart, back into a cache.
fn copies_to_turbo<const K: usize>() {
    const HEADS: usize = 2;
    let rows = &whole_rows()[..64];
    let n = rows.len() / HEADS;
    let mut session = Session::default();
    let cache = session.tensor(
        turbo(K),
        [QK * HEADS, n, 1, 1],
        &vec![0x77; rows.len() * Block::<K>::BYTES],
    );
    let head = Block::<K>::BYTES;
    let view = session.view(cache, [QK, HEADS, n, 1], [head, HEADS * head, n * HEADS * head], 0);
    let src = session.tensor(Type::F32, [QK, HEADS, n, 1], &bytes_of(rows.as_flattened()));
    session.op(format!("cpy {src} {view}"));
    let results = session.run(program()).unwrap();
    assert_eq!(results[0].kernels, [format!("kernel_cpy_f32_turbo{K}")]);
    assert_eq!(results[0].bytes, encoded::<K>(rows));
}

#[test]
fn copies_are_encoded_to_the_same_bits() {
    copies_to_turbo::<2>();
    copies_to_turbo::<3>();
    copies_to_turbo::<4>();
}

fn decoded<const K: usize>(blocks: &[Block<K>]) -> Vec<f32> {
    let values = |b| trellis::decode(b).map(|level| b.scale() * f32::from(level));
    blocks.iter().flat_map(values).collect()
}

fn decodes<const K: usize>() {
    let blocks = any_blocks::<K>();
    let n = blocks.len() / ROW;
    let floats = decoded(&blocks);
    let ids: Vec<usize> = (0..n).map(|i| (i * 7 + 3) % n).collect();

    let mut session = Session::default();
    let src = session.tensor(turbo(K), [ROW * QK, n, 1, 1], &bytes_of_blocks(&blocks));
    let ids_bytes: Vec<u8> = ids.iter().flat_map(|&i| (i as i32).to_le_bytes()).collect();
    let ids_at = session.tensor(Type::I32, [n, 1, 1, 1], &ids_bytes);
    session.op(format!("get_rows {src} {ids_at}"));
    session.op(format!("cast {src} f32"));
    session.op(format!("cast {src} f16"));
    // A view of heads that do not lie together.
    let head = Block::<K>::BYTES;
    let view = session.view(src, [QK, ROW, n, 1], [head, ROW * head, n * ROW * head], 0);
    let dst = session.tensor(Type::F32, [QK, ROW, n, 1], &bytes_of(&vec![0.0; floats.len()]));
    session.op(format!("cpy {view} {dst}"));
    let results = session.run(program()).unwrap();

    let names: Vec<&str> = results.iter().flat_map(|r| &r.kernels).map(String::as_str).collect();
    let t = turbo(K).name();
    assert_eq!(
        names,
        [
            format!("kernel_get_rows_{t}"),
            format!("kernel_cpy_{t}_f32"),
            format!("kernel_cpy_{t}_f16"),
            format!("kernel_cpy_{t}_f32"),
        ]
    );
    let row = 4 * ROW * QK;
    let expected = bytes_of(&floats);
    for (got, &id) in results[0].bytes.chunks_exact(row).zip(&ids) {
        assert_eq!(got, &expected[id * row..][..row], "turbo{K}, row {id}");
    }
    assert!(results[1].bytes == expected, "turbo{K} to f32");
    let halves: Vec<u8> = floats.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    assert!(results[2].bytes == halves, "turbo{K} to f16");
    assert!(results[3].bytes == expected, "turbo{K} to f32, by heads");
}

#[test]
fn any_bits_decode_to_the_same_values() {
    decodes::<2>();
    decodes::<3>();
    decodes::<4>();
}

/// NMSE that f16 queries and keys may cost.
const LIMIT: f64 = 1e-6;

/// Runs the cases, and says which are not right.
fn attend(program: &Program, cases: &[Case]) -> Result<Vec<Vec<String>>, String> {
    attend_hinted(program, cases, 0)
}

/// `n_kv_max`: as [`attention::put`] has it.
fn attend_hinted(
    program: &Program,
    cases: &[Case],
    n_kv_max: usize,
) -> Result<Vec<Vec<String>>, String> {
    let mut session = Session::default();
    let problems: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(i, &case)| {
            let data = Data::new(Case { seed: 1000 + i as u64, ..case });
            attention::put(&mut session, &data, n_kv_max);
            data
        })
        .collect();
    let results = session.run(program)?;
    assert_eq!(results.len(), cases.len());
    let mut wrong = String::new();
    let mut largest = 0.0f64;
    for ((case, data), done) in cases.iter().zip(&problems).zip(&results) {
        let error = nmse(data, done);
        largest = largest.max(error);
        if error.is_nan() || error > LIMIT {
            wrong += &format!("NMSE {error:.1e}: {case:?}\n  by {:?}\n", done.kernels);
        }
    }
    println!("largest NMSE of {}: {largest:.1e}", cases.len());
    match wrong.is_empty() {
        true => Ok(results.into_iter().map(|d| d.kernels).collect()),
        false => Err(wrong),
    }
}

/// Pairs of types that upstream has no kernel for.
fn pairs() -> Vec<(KvType, KvType)> {
    DEVICE_ATTENTION_TYPES
        .into_iter()
        .flat_map(|k| DEVICE_ATTENTION_TYPES.map(|v| (k, v)))
        .filter(|&(k, v)| k != v || !matches!(k, KvType::F16 | KvType::Q8_0))
        .collect()
}

/// The kernels that a case is to launch, in order. `few`: by the kernel for few queries, else through f16.
fn kernels_of(case: &Case, few: bool) -> Vec<String> {
    let pair = match case.type_k == case.type_v {
        true if matches!(case.type_k, KvType::F16 | KvType::Q8_0) => case.type_k.name().to_owned(),
        _ => format!("{}_{}", case.type_k.name(), case.type_v.name()),
    };
    let heads = format!("dk{}_dv{}", case.dk, case.dv);
    let anchors = if case.ids == Ids::Absent { "" } else { "_anchors" };
    let of = |name: &str| format!("kernel_flash_attn_ext_{name}");
    let to_f16 = |kind: KvType, anchors| format!("kernel_turbo_kv_{}{anchors}_f16", kind.name());

    let mut kernels = Vec::new();
    if !few {
        kernels.push(to_f16(case.type_k, anchors));
        // What is in K is there already, unless anchors are added to it.
        if !case.v_in_k || case.ids != Ids::Absent {
            kernels.push(to_f16(case.type_v, ""));
        }
    }
    // Cells that these kernels take at a time.
    let cells = if few { 32 } else { 64 };
    if !case.n_kv.is_multiple_of(cells) {
        kernels.push(of("pad"));
    }
    if few {
        kernels.extend([of(&format!("vec_{pair}_{heads}")), of("vec_reduce")]);
    } else {
        if case.mask != Mask::None {
            kernels.push(of("blk"));
        }
        kernels.push(of(&format!("f16_{heads}")));
    }
    kernels
}

fn every_pair(dim: usize) {
    let mut cases = Vec::new();
    for (k, v) in pairs() {
        for case in [
            plain(k, v, dim),
            Case { ids: Ids::Runs, ..plain(k, v, dim) },
            full(k, v, dim, Ids::Absent),
            full(k, v, dim, Ids::Scattered),
        ] {
            cases.extend([case, Case { tokens: 21, ..case }]);
        }
    }
    // Upstream's pairs with anchors.
    for kind in [KvType::F16, KvType::Q8_0] {
        let case = full(kind, kind, dim, Ids::Runs);
        cases.extend([case, Case { tokens: 21, ..case }]);
    }
    let kernels = attend(program(), &cases).unwrap_or_else(|wrong| panic!("{wrong}"));
    for (case, kernels) in cases.iter().zip(kernels) {
        assert_eq!(kernels, kernels_of(case, case.tokens < 20), "{case:?}");
    }
}

/// What docs/support.md says.
#[test]
fn heads_are_those_of_the_matrix() {
    assert_eq!(DEVICE_ATTENTION_HEAD_DIMS, [64, 128, 256]);
}

#[test]
fn every_pair_attends_with_heads_of_64() {
    every_pair(64);
}

#[test]
fn every_pair_attends_with_heads_of_128() {
    every_pair(128);
}

#[test]
fn every_pair_attends_with_heads_of_256() {
    every_pair(256);
}

/// What the pairs leave out: several sequences, cells for several simdgroups and for more than one
/// round of them, numbers of queries at which another kernel is chosen, each option by itself.
#[test]
fn other_shapes_attend() {
    let base = plain(KvType::Turbo(Turbo4), KvType::Turbo(Turbo2), 64);
    let anchored = Case { ids: Ids::Runs, ..base };
    let sequences = Case {
        batches: 2,
        batches_kv: 2,
        mask_batches: 2,
        ids_batches: 2,
        ..full(KvType::Turbo(Turbo3), KvType::Turbo(Turbo4), 128, Ids::Runs)
    };
    let cases = [
        sequences,
        Case { tokens: 40, ..sequences },
        Case { n_kv: 8200, heads: 1, ..anchored },
        Case { n_kv: 2100, heads_k: 2, heads_v: 2, mask: Mask::Causal, tokens: 2, ..base },
        Case { tokens: 19, mask: Mask::Causal, ..base },
        Case { tokens: 20, mask: Mask::Causal, ..base },
        Case { mask: Mask::Random, ..anchored },
        Case { softcap: 5.0, ..anchored },
        Case { mask: Mask::Causal, max_bias: 4.0, heads: 6, heads_k: 2, heads_v: 2, ..anchored },
        Case { sinks: true, n_kv: 1, ..base },
    ];
    let kernels = attend(program(), &cases).unwrap_or_else(|wrong| panic!("{wrong}"));
    let vec = |i: usize| kernels[i].iter().any(|k| k.contains("_vec_turbo"));
    assert!(vec(0) && !vec(1) && vec(4) && !vec(5), "{kernels:?}");
}

/// Heads without a kernel of theirs go through f16, with one query, too.
#[test]
fn other_heads_attend_through_f16() {
    let case = full(KvType::Turbo(Turbo4), KvType::Turbo(Turbo3), 192, Ids::Runs);
    let case = Case { dv: 128, ..case };
    // V is a part of K, as in latent attention.
    let latent = Case { type_v: case.type_k, v_in_k: true, ids: Ids::Absent, ..case };
    let cases = [
        case,
        Case { tokens: 1, ids: Ids::Absent, ..case },
        latent,
        Case { tokens: 21, ids: Ids::Runs, heads_k: 1, heads_v: 1, ..latent },
    ];
    let kernels = attend(program(), &cases).unwrap_or_else(|wrong| panic!("{wrong}"));
    for (case, kernels) in cases.iter().zip(kernels) {
        assert_eq!(kernels, kernels_of(case, false), "{case:?}");
    }
}

/// Graphs of sparse attention say how many cells a query sees, for upstream's kernels that gather them. Those know neither
/// the pairs nor anchors.
#[test]
fn pairs_and_anchors_are_not_gathered() {
    let pair = full(KvType::Q8_0, KvType::Turbo(Turbo4), 64, Ids::Absent);
    let anchored = full(KvType::F16, KvType::F16, 64, Ids::Runs);
    let cases = [pair, Case { tokens: 21, ..pair }, anchored, Case { tokens: 21, ..anchored }];
    let hinted = attend_hinted(program(), &cases, pair.n_kv);
    let kernels = hinted.unwrap_or_else(|wrong| panic!("{wrong}"));
    for (case, kernels) in cases.iter().zip(kernels) {
        assert_eq!(kernels, kernels_of(case, case.tokens < 20), "{case:?}");
    }
}

/// What has no kernel is refused, so that the CPU takes it.
#[test]
fn what_has_no_kernel_is_refused() {
    let refused = |put: &dyn Fn(&mut Session)| {
        let mut session = Session::default();
        put(&mut session);
        assert_eq!(session.run(program()).map(|_| ()), Err("unsupported".into()));
    };
    let turbo = KvType::Turbo(Turbo4);
    for case in [
        // Heads that upstream has no kernel for.
        plain(turbo, turbo, 320),
        Case { dv: 64, ..plain(turbo, KvType::F16, 128) },
        Case { ids: Ids::Runs, ..plain(KvType::F16, KvType::F16, 80) },
        // Keys of f32 are not made f16.
        Case { ids: Ids::Runs, ..plain(KvType::F32, KvType::F32, 64) },
        plain(KvType::F32, turbo, 64),
    ] {
        refused(&|session| attention::put(session, &Data::new(case), 0));
    }
    // Between two of the types; f16 rows.
    let zeros = [0; 4 * QK];
    refused(&|session| {
        let a = session.tensor(Type::Turbo4, [QK, 1, 1, 1], &zeros[..Block::<4>::BYTES]);
        let b = session.tensor(Type::Turbo2, [QK, 1, 1, 1], &zeros[..Block::<2>::BYTES]);
        session.op(format!("cpy {a} {b}"));
    });
    refused(&|session| {
        let dst = session.tensor(Type::Turbo4, [QK, 1, 1, 1], &zeros[..Block::<4>::BYTES]);
        let src = session.tensor(Type::F16, [QK, 1, 1, 1], &zeros[..2 * QK]);
        let ids = session.tensor(Type::I64, [1, 1, 1, 1], &zeros[..8]);
        session.op(format!("set_rows {dst} {src} {ids}"));
    });
}

/// A program with one thing in a source changed.
fn mutant(name: &str, library: Library, from: &str, to: &str) -> Program {
    let aux = Library { file: "fa_aux.metal", kernels: &["_vec_reduce$"], optimized: false };
    Program::build(name, &[library, aux], |file, text| {
        if file != library.file {
            return text;
        }
        assert_eq!(text.matches(from).count(), 1, "{from} in {file}");
        text.replace(from, to)
    })
}

#[test]
fn another_constant_is_noticed() {
    let rows = Library {
        file: "turbo.metal",
        kernels: &["kernel_set_rows_f32_i64_turbo4"],
        optimized: false,
    };
    // Part of the scale that blocks are searched at; a level.
    for (i, (from, to)) in [("0.35f", "0.351f"), ("-54, -47,", "-54, -46,")].iter().enumerate() {
        let program = mutant(&format!("metal-rows-{i}"), rows, from, to);
        let error = sets_rows::<4>(&program, true).unwrap_err();
        assert!(error.starts_with("turbo4, row "), "{error}");
    }

    let attention = Library {
        file: "fa_vec_turbo.metal",
        kernels: &["_turbo4_turbo4_dk64_dv64"],
        optimized: false,
    };
    let turbo = KvType::Turbo(Turbo4);
    let case = Case { ids: Ids::Runs, ..plain(turbo, turbo, 64) };
    // A rotation of the path; the anchors' part of a logit; what cells of the next 32 begin with.
    for (i, (from, to)) in [
        ("u >> 14 ^", "u >> 13 ^"),
        ("id == i ? sum", "id == i ? 0.99f*sum"),
        ("ic0*C + NE*tx + ty", "ic0*C + NE*ty + tx"),
    ]
    .iter()
    .enumerate()
    {
        let program = mutant(&format!("metal-attention-{i}"), attention, from, to);
        let error = attend(&program, &[case]).unwrap_err();
        assert!(error.starts_with("NMSE "), "{error}");
    }
}

/// A thread that waits for others in vain ends the program.
#[test]
fn a_barrier_that_not_all_reach_is_noticed() {
    let rows = Library {
        file: "turbo.metal",
        kernels: &["kernel_set_rows_f32_i64_turbo4"],
        optimized: false,
    };
    let at = "    scores[sg] = c.score;";
    let program =
        mutant("metal-barrier", rows, at, "    if (sg == 3) return;\n    scores[sg] = c.score;");
    let error = sets_rows::<4>(&program, true).unwrap_err();
    assert!(error.contains("threads wait for others that never come"), "{error}");
}

/// What CMake makes of the back end's folder, as far as it can be told here.
#[test]
fn libraries_are_whole() {
    let one = |file, kernels| Library { file, kernels, optimized: false };
    cmake::check_libraries(&[
        one("turbo.metal", &["kernel_set_rows_f32_i64_turbo4", "kernel_cpy_turbo2_f16"]),
        one("fa_vec_turbo.metal", &["vec_turbo4_q8_0_dk64_dv64"]),
        one("fa_vec_q8_0.metal", &["vec_q8_0_dk64_dv64"]),
    ]);
}

/// Whether the helpers of the kernels keep pointers to the memory that they are of.
//
// Not with Apple's Clang, which has not all targets.
#[cfg(target_os = "linux")]
fn keeps_address_spaces(from: &str, to: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("a folder");
    // Conversions of vectors are written in another way.
    let conversions = [
        ("reg = (type4) reg_f;", "reg = __builtin_convertvector(reg_f, type4);"),
        ("(float4) m4[j]", "__builtin_convertvector(m4[j], float4)"),
        ("(float4) sq4[qq*PK4 + j]", "__builtin_convertvector(sq4[qq*PK4 + j], float4)"),
        (from, to),
    ];
    let mut seen = [false; 4];
    let files = [
        "ggml-metal/kernels/turbo-metal.h",
        "ggml-metal/kernels/turbo-anchors.h",
        "turbo-codec-lanes.h",
        "turbo-codec.h",
        "turbo-tables.h",
    ];
    for file in files {
        let path = root.join("ggml-ext/ggml/src").join(file);
        let mut text = std::fs::read_to_string(&path).expect("a header");
        for ((from, to), seen) in conversions.iter().zip(&mut seen) {
            *seen |= text.contains(from);
            text = text.replace(from, to);
        }
        std::fs::write(dir.path().join(path.file_name().expect("a name")), text).expect("a file");
    }
    assert_eq!(seen, [true; 4], "a text to replace is not there");
    std::fs::write(dir.path().join("metal_stdlib"), "").expect("a file");
    // The compiler proper: its driver has notions of its own about the target.
    let clang = program::clang();
    let mut command = std::process::Command::new(&clang[0]);
    if clang.len() > 1 {
        command.arg("clang");
    }
    let output = command
        .args(["-cc1", "-triple", "spir64-unknown-unknown", "-cl-std=CLC++", "-x", "clcpp"])
        .args(["-D__METAL_VERSION__=320", "-fsyntax-only", "-w", "-I"])
        .arg(dir.path())
        .arg(root.join("tests/device/metal/address_spaces.clcpp"))
        .output()
        .expect("Clang");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("no matching function"), "{said}");
    output.status.success()
}

#[test]
#[cfg(target_os = "linux")]
fn address_spaces_are_kept() {
    let same = "namespace turbo {";
    assert!(keeps_address_spaces(same, same));
    assert!(!keeps_address_spaces("threadgroup float * scores", "device float * scores"));
    assert!(!keeps_address_spaces("threadgroup const q4_t * sq4", "thread const q4_t * sq4"));
}
