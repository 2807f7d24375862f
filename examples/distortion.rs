//! Prints what each code loses on blocks of unit Gaussians, next to what is possible at all, and how many times a product
//! with what is decoded is the right one on average (`products`).
//!
//!     cargo run --release --no-default-features --example distortion -- [BLOCKS] [SEED]

use std::error::Error;

use llama_turboquant::codec::distortion::{
    Q4_0_BITS, lloyd_max, projection, q4_0, rate_distortion_limit, relative_mse, turbo,
    turbo_least_squares,
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
    println!(
        "{:<42} {:>10} {:>10} {:>9} {:>9}",
        "code", "bits/value", "MSE", "SNR, dB", "products"
    );
    let bound = |name: &str, bits: f64, mse: f64| {
        print!("{name:<42} {bits:>10.2} {mse:>10.5} {:>9.2}", -10.0 * mse.log10());
    };
    let row = |name: &str, bits: f64, y: &[f32]| {
        bound(name, bits, relative_mse(&x, y));
        println!(" {:>9.5}", projection(&x, y));
    };
    for ty in TurboType::ALL {
        let index_bits = ty.index_bits();
        let bits = ty.bits_per_value();
        println!();
        row(ty.name(), bits, &turbo(ty, &x));
        let least = format!("{} with a least-squares scale", ty.name());
        row(&least, bits, &turbo_least_squares(ty, &x));
        row("Lloyd-Max scalar, least-squares scale", bits, &lloyd_max(index_bits as u32, &x)?);
        if ty == TurboType::Turbo4 {
            row("q4_0 (ggml), on rotated data", Q4_0_BITS, &q4_0(&x));
        }
        let limit = rate_distortion_limit(index_bits as f64);
        bound("rate-distortion limit of the index bits", index_bits as f64, limit);
        println!();
    }
    Ok(())
}
