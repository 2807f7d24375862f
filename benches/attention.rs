//! Flash attention of one layer on one thread: decoding a token, and a batch of prompt tokens.
//!
//! Throughput is that of the cache's K and V as f32, read once per token. For comparison, llama.cpp's f16
//! cache on two Zen 3 cores takes 0.32 ms a layer and token of SmolLM2 at 4096 cells (0.64 ms of CPU) when
//! decoding, and 0.11 ms (0.23 ms of CPU) in a prompt: figures of llama-bench, less those at depth 0.

#[path = "../tests/attention/case.rs"]
#[allow(dead_code)]
mod case;

use case::{Case, Data, Ids};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use llama_turboquant::attention::{self, Kernels, KvType, Problem, Thread};
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};

/// Heads of a model: head_dim, query heads, K and V heads.
const MODELS: [(&str, usize, usize, usize); 2] =
    [("smollm2-135m", 64, 9, 3), ("gemma-3-270m", 256, 4, 1)];

/// K, V, anchors.
const CACHES: [(KvType, KvType, Ids); 7] = [
    (KvType::Turbo(Turbo4), KvType::Turbo(Turbo4), Ids::Absent),
    (KvType::Turbo(Turbo4), KvType::Turbo(Turbo4), Ids::Runs),
    (KvType::Turbo(Turbo4), KvType::Turbo(Turbo4), Ids::Scattered),
    (KvType::Turbo(Turbo3), KvType::Turbo(Turbo3), Ids::Absent),
    (KvType::Turbo(Turbo4), KvType::Turbo(Turbo2), Ids::Absent),
    (KvType::Q8_0, KvType::Turbo(Turbo3), Ids::Absent),
    (KvType::Turbo(Turbo4), KvType::F16, Ids::Absent),
];

fn bench(c: &mut Criterion, group: &str, tokens: usize, n_kv: usize) {
    let mut group = c.benchmark_group(group);
    for (model, head_dim, heads, heads_kv) in MODELS {
        for (type_k, type_v, ids) in CACHES {
            for kernels in attention::available().iter().filter(|table| table.name != "scalar") {
                let case = Case { ids, ..Case::new(type_k, type_v, head_dim, heads, heads_kv) };
                check(Case { tokens: tokens.min(8), n_kv: 192, ..case }, kernels);
                let data = Data::new(Case { tokens, n_kv, ..case });
                let mut dst = vec![0.0; tokens * heads * head_dim];
                let problem = Problem::new(&data.args(&mut dst)).unwrap();
                let bytes = attention::work_bytes(&problem, 1);
                let mut work = vec![0u8; bytes];
                let thread = Thread {
                    index: 0,
                    threads: 1,
                    work: work.as_mut_ptr(),
                    work_bytes: bytes,
                    barrier: &|| {},
                };
                group.throughput(Throughput::Bytes(
                    (8 * n_kv * heads_kv * head_dim * tokens) as u64,
                ));
                let anchors = match ids {
                    Ids::Absent => "",
                    Ids::One => "-one-anchor",
                    Ids::Runs => "-anchors",
                    Ids::Scattered => "-scattered-anchors",
                };
                let (k, v) = (type_k.name(), type_v.name());
                let name = format!("{model}/{k}-{v}{anchors}/{}", kernels.name);
                group.bench_function(name, |b| {
                    // SAFETY: `data`, `dst` and `work` outlive the problem; this is the only thread.
                    b.iter(|| {
                        unsafe { attention::flash_attn(&problem, &thread, kernels) }.unwrap()
                    });
                });
            }
        }
    }
}

/// Results are checked before they are timed.
fn check(case: Case, kernels: &'static Kernels) {
    let data = Data::new(case);
    for (got, expected) in data.run(1, kernels).iter().zip(data.expected()) {
        assert!((f64::from(*got) - expected).abs() < 5e-4, "{got} instead of {expected}: {case:?}");
    }
}

fn attention(c: &mut Criterion) {
    for n_kv in [256, 4096, 16384] {
        bench(c, &format!("decode/{n_kv}"), 1, n_kv);
    }
    bench(c, "prefill/256", 256, 256);
    bench(c, "prefill/4352", 256, 4352);
}

criterion_group!(benches, attention);
criterion_main!(benches);
