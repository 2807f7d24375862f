//! The kernels: which are in use, and whether they do what they should.

use llama_turboquant::codec::distortion::relative_mse;
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK};
use llama_turboquant::kernels::{Kernels, Rows, UnknownSimd, available, select};
use llama_turboquant::llama::features;

use super::Check;

/// What `TQ_SIMD` asks for.
fn asked() -> Option<String> {
    std::env::var_os("TQ_SIMD").map(|value| value.to_string_lossy().into_owned())
}

/// The kernels that would be used.
pub fn chosen() -> Result<&'static Kernels, UnknownSimd> {
    select(asked().as_deref())
}

pub fn checks() -> Vec<Check> {
    let mut checks = build();
    match chosen() {
        Err(error) => checks.push(Check::problem("kernels", error.to_string(), "unset TQ_SIMD")),
        Ok(kernels) => checks.extend([choice(kernels), self_test(kernels)]),
    }
    checks
}

fn choice(kernels: &Kernels) -> Check {
    let names = || available().map(|kernels| kernels.name);
    let best = names().next().unwrap_or("scalar");
    match asked() {
        Some(asked) if kernels.name != best => Check::warning(
            "kernels",
            format!(
                "TQ_SIMD={asked} takes {} where {best} is possible, which is faster",
                kernels.name
            ),
            "unset TQ_SIMD",
        ),
        _ if best == "scalar" => Check::warning(
            "kernels",
            "scalar: this processor has none of AVX2, AVX-512 and NEON, or the program was built for another one",
            format!("this program is of {}: build it where it runs", std::env::consts::ARCH),
        ),
        _ => {
            let all = names().collect::<Vec<_>>().join(", ");
            Check::ok("kernels", format!("{}, the best of this processor ({all})", kernels.name))
        }
    }
}

/// Whether the program was built to be fast here.
fn build() -> Vec<Check> {
    let mut checks = Vec::new();
    if cfg!(debug_assertions) {
        checks.push(Check::warning(
            "build",
            "made for debugging: slow",
            "cargo build --release, and use target/release",
        ));
    }
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
            ("FMA", std::arch::is_x86_feature_detected!("fma")),
            ("F16C", std::arch::is_x86_feature_detected!("f16c")),
        ];
        let uses = features();
        let idle: Vec<_> = has
            .iter()
            .filter(|(name, has)| *has && !uses.iter().any(|u| u == name))
            .map(|h| h.0)
            .collect();
        if !idle.is_empty() {
            checks.push(Check::warning(
                "build",
                format!(
                    "llama.cpp was built without {}, which this processor has",
                    idle.join(", ")
                ),
                "build it here, without TQ_NATIVE=0",
            ));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("build", format!("llama.cpp uses {}", features().join(" "))));
    }
    checks
}

/// Blocks of a known row, the same on every processor and in every version; the row is [`golden_row`].
const GOLDEN: [&str; 3] = [
    "9f301a112def044fca8fecae37709cd87b6f",
    "30311788bed4bf5e127d8cbd35fc7e18e96bec6637729cd85f6e",
    "c6311ce925f02b395294e658675835cc31ce8c7c31fc7e187962eca737729cd8cf6f",
];

fn golden_row() -> [f32; QK] {
    std::array::from_fn(|e| ((e * e * 7 + e * 3) % 41) as f32 - 20.0)
}

/// Relative error on Gaussian values, by type.
const ERRORS: [f64; 3] = [0.0827, 0.0193, 0.0048];

fn self_test(kernels: &Kernels) -> Check {
    let gaussians = SplitMix64::new(1).gaussians(512 * QK);
    let tests = [
        test::<2>(kernels, &gaussians),
        test::<3>(kernels, &gaussians),
        test::<4>(kernels, &gaussians),
    ];
    let errors: Result<Vec<f64>, String> = tests.into_iter().collect();
    match errors {
        Ok(errors) => {
            let errors: Vec<_> = errors.iter().map(|error| format!("{error:.4}")).collect();
            Check::ok(
                "self test",
                format!(
                    "known blocks are as they should be; errors of turbo2, 3 and 4 {}",
                    errors.join(", ")
                ),
            )
        }
        Err(reason) => Check::problem(
            "self test",
            format!("the {} kernels are wrong: {reason}", kernels.name),
            "TQ_SIMD=scalar takes others; please report this, with the processor",
        ),
    }
}

/// The relative error of a round trip. Errors: what is wrong.
fn test<const K: usize>(kernels: &Kernels, gaussians: &[f32]) -> Result<f64, String>
where
    Kernels: Rows<K>,
{
    let rows = kernels.rows();
    let mut block = [Block::<K>::ZERO];
    (rows.quantize_row)(&golden_row(), &mut block);
    let mut bytes = vec![0; Block::<K>::BYTES];
    block[0].write_to(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if hex != GOLDEN[K - 2] {
        return Err(format!("a known row in turbo{K} is {hex}, not {}", GOLDEN[K - 2]));
    }
    let mut blocks = vec![Block::<K>::ZERO; gaussians.len() / QK];
    let mut back = vec![0.0; gaussians.len()];
    (rows.quantize_row)(gaussians, &mut blocks);
    (rows.dequantize_row)(&blocks, &mut back);
    let (error, known) = (relative_mse(gaussians, &back), ERRORS[K - 2]);
    // Three standard errors are some 3%.
    match (0.95 * known..=1.05 * known).contains(&error) {
        true => Ok(error),
        false => Err(format!("the error of turbo{K} is {error:.4}, not {known}")),
    }
}
