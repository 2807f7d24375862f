//! What K and V take of memory with each pair of types, and which a model cannot have.
//!
//!     cargo run --release --example kv_sizes -- MODEL.gguf 8192

use std::error::Error;

use llama_turboquant::llama::CacheType::{F16, Q4_0, Q8_0, Turbo2, Turbo3, Turbo4};
use llama_turboquant::llama::{Context, ContextError, ContextParams, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: kv_sizes MODEL.gguf [N_CTX]")?;
    let n_ctx = args.next().map_or(Ok(4096), |n| n.parse())?;

    let model = Model::load(path)?;
    println!("{}, {} KV layers, {n_ctx} tokens", model.description(), model.kv_layers().len());
    println!("{:8} {:8} {:>10} {:>10} {:>10}", "K", "V", "K MiB", "V MiB", "smaller");
    let mut f16 = 0;
    for (k, v) in [
        (F16, F16),
        (Q8_0, Q8_0),
        (Q4_0, Q4_0),
        (Q8_0, Turbo4),
        (Turbo4, Turbo4),
        (Turbo4, Turbo3),
        (Turbo3, Turbo3),
        (Turbo2, Turbo2),
    ] {
        let params = ContextParams::default().n_ctx(n_ctx).cache_types(k, v);
        let context = match Context::new(&model, &params) {
            Err(ContextError::Cache(why)) => {
                println!("{k:8} {v:8} {why}");
                continue;
            }
            context => context?,
        };
        let used = context.memory_use()?;
        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        f16 = f16.max(used.kv());
        let smaller = f16 as f64 / used.kv() as f64;
        println!("{k:8} {v:8} {:10.1} {:10.1} {smaller:9.1}x", mib(used.k), mib(used.v));
    }
    Ok(())
}
