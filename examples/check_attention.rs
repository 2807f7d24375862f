//! Checks flash attention with every instruction set that this processor runs, on a few small problems.
//!
//! `cargo run --release --no-default-features --example check_attention [NAME...]`: fails where a NAME
//! (`avx512-vnni`, `neon`, ..) is not among them. One thread, no files: it also runs where the test suite does
//! not, on an emulated processor. Prints the largest error and the normalised mean square error against f64.

#[path = "../tests/attention/case.rs"]
#[allow(dead_code)]
mod case;

use case::{Case, Data, Ids, Mask};
use llama_turboquant::attention::{self, Kernels, KvType};
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};

fn main() {
    let names: Vec<_> = attention::available().iter().map(|table| table.name).collect();
    for asked in std::env::args().skip(1) {
        assert!(names.contains(&asked.as_str()), "{asked} is not available here: {names:?}");
    }
    for kernels in attention::available() {
        check(kernels);
    }
}

fn check(kernels: &'static Kernels) {
    let [t2, t3, t4] = [Turbo2, Turbo3, Turbo4].map(KvType::Turbo);
    let (mut largest, mut error_energy, mut energy) = (0.0f64, 0.0, 0.0);
    for case in [
        Case { n_kv: 100, ..Case::new(t4, t4, 64, 3, 1) },
        Case {
            tokens: 2,
            n_kv: 70,
            mask: Mask::Random,
            max_bias: 8.0,
            sinks: true,
            ..Case::new(t3, t2, 64, 6, 1)
        },
        Case { n_kv: 65, mask: Mask::None, softcap: 10.0, ..Case::new(t2, t3, 128, 2, 2) },
        Case { n_kv: 40, ..Case::new(KvType::Q8_0, t4, 64, 5, 1) },
        Case { n_kv: 40, sinks: true, ..Case::new(t4, KvType::F16, 64, 4, 1) },
        Case { n_kv: 150, ids: Ids::Runs, ..Case::new(t4, t4, 64, 3, 1) },
        Case {
            n_kv: 70,
            ids: Ids::Scattered,
            softcap: 10.0,
            ..Case::new(KvType::F16, KvType::F16, 64, 4, 2)
        },
    ] {
        let data = Data::new(case);
        for (got, expected) in data.run(1, kernels).iter().zip(data.expected()) {
            let error = (f64::from(*got) - expected).abs();
            assert!(error < 5e-4, "{}: {got} instead of {expected}: {case:?}", kernels.name);
            largest = largest.max(error);
            error_energy += error * error;
            energy += expected * expected;
        }
    }
    println!("{}: largest error {largest:.1e}, NMSE {:.1e}", kernels.name, error_energy / energy);
}
