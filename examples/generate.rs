//! Text behind a prompt, through a cache of turbo types.
//!
//!     cargo run --release --example generate -- MODEL.gguf "The capital of France is" turbo4 turbo3

use std::error::Error;
use std::io::Write;

use llama_turboquant::llama::{
    CachePolicy, Context, ContextParams, GenerateOptions, Model, Sampler,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [PROMPT [TYPE_K [TYPE_V]]]")?;
    let prompt = args.next().unwrap_or_else(|| "The capital of France is".into());
    let k: CachePolicy = args.next().as_deref().unwrap_or("turbo4").parse()?;
    let v: CachePolicy = args.next().as_deref().unwrap_or("turbo3").parse()?;

    let model = Model::load(path)?;
    let mut context = Context::new(&model, &ContextParams::default().cache_types(k, v))?;
    let mut sampler =
        Sampler::builder(&model).top_k(40).top_p(0.95, 1).temperature(0.7).dist(u32::MAX)?;

    print!("{prompt}");
    let tokens = model.vocab().tokenize(&prompt, true, false)?;
    let options = GenerateOptions::default().max_tokens(128);
    let mut generation = context.generate(&tokens, &mut sampler, options);
    for piece in &mut generation {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();

    let timings = generation.timings();
    eprintln!(
        "prompt {:.1} t/s, decode {:.1} t/s, ended by {:?}",
        timings.prompt_per_second(),
        timings.decode_per_second(),
        generation.finish()
    );
    Ok(())
}
