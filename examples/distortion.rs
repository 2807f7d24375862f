//! Prints what each code loses on blocks of unit Gaussians, next to what is possible at all.
//!
//!     cargo run --release --no-default-features --example distortion -- [BLOCKS] [SEED]

use std::error::Error;

use llama_turboquant::codec::distortion::{
    Q4_0_BITS, lloyd_max, q4_0, rate_distortion_limit, relative_mse, turbo,
};
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{QK, TurboType};

const BLOCKS: usize = 16_384;
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let blocks = args.next().map_or(Ok(BLOCKS), |arg| arg.parse())?;
    let seed = args.next().map_or(Ok(SEED), |arg| arg.parse())?;
    let x = SplitMix64::new(seed).gaussians(blocks * QK);

    println!("relative MSE of {blocks} blocks of {QK} unit Gaussians, seed {seed}");
    println!("{:<42} {:>10} {:>10} {:>9}", "code", "bits/value", "MSE", "SNR, dB");
    let row = |name: &str, bits: f64, mse: f64| {
        println!("{name:<42} {bits:>10.2} {mse:>10.5} {:>9.2}", -10.0 * mse.log10());
    };
    for ty in TurboType::ALL {
        let index_bits = ty.index_bits();
        let bits = ty.bits_per_value();
        println!();
        row(ty.name(), bits, relative_mse(&x, &turbo(ty, &x)));
        let scalar = lloyd_max(index_bits as u32, &x)?;
        row("Lloyd-Max scalar, least-squares scale", bits, relative_mse(&x, &scalar));
        if ty == TurboType::Turbo4 {
            row("q4_0 (ggml), on rotated data", Q4_0_BITS, relative_mse(&x, &q4_0(&x)));
        }
        let limit = rate_distortion_limit(index_bits as f64);
        row("rate-distortion limit of the index bits", index_bits as f64, limit);
    }
    Ok(())
}
