//! What `generate()` adds to decoding: rounds of it, greedy, in turn with rounds of what llama-bench times (decoding a
//! token and waiting for it), each 32 tokens from an empty context. Machines are noisy, so ratios are those within
//! a round.
//!
//!     cargo bench --bench generate -- MODEL.gguf

use std::error::Error;
use std::time::Instant;

use llama_turboquant::llama::{
    CacheType, Context, ContextParams, GenerateOptions, Model, Sampler, Token,
};

const N_TOKENS: usize = 32;
const ROUNDS: usize = 40;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = std::env::args().skip(1).find(|arg| arg != "--bench") else {
        eprintln!("usage: cargo bench --bench generate -- MODEL.gguf");
        return Ok(());
    };
    let model = Model::load(path)?;
    let params =
        ContextParams::default().n_ctx(512).cache_types(CacheType::Turbo4, CacheType::Turbo4);
    let mut context = Context::new(&model, &params)?;
    let mut sampler = Sampler::builder(&model).greedy()?;
    let start = model.vocab().tokenize("Once upon a time", true, false)?;

    let (mut ratios, mut plain, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // Each goes first in turn.
        let times = match round % 2 {
            0 => (decode(&mut context, &start)?, generate(&mut context, &mut sampler, &start)?),
            _ => {
                let whole = generate(&mut context, &mut sampler, &start)?;
                (decode(&mut context, &start)?, whole)
            }
        };
        // The first warms up.
        if round > 0 {
            plain.push(times.0);
            whole.push(times.1);
            ratios.push(times.1 / times.0);
        }
    }
    println!("decoding    {:7.2} t/s", N_TOKENS as f64 / median(&mut plain));
    println!("generate()  {:7.2} t/s", N_TOKENS as f64 / median(&mut whole));
    println!("time, median of ratios  {:.4}", median(&mut ratios));
    Ok(())
}

/// Seconds to decode as many tokens one by one, which ones does not matter.
fn decode(context: &mut Context, start: &[Token]) -> Result<f64, Box<dyn Error>> {
    context.seq_remove(0, ..)?;
    context.append(start, 0)?;
    let begin = Instant::now();
    for i in 0..N_TOKENS {
        context.append(&[1000 + i as Token], 0)?;
        context.last_logits()?; // waits
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Seconds for as many tokens of text.
fn generate(
    context: &mut Context,
    sampler: &mut Sampler,
    start: &[Token],
) -> Result<f64, Box<dyn Error>> {
    context.seq_remove(0, ..)?;
    let options = GenerateOptions::default().ignore_eog(true).max_tokens(N_TOKENS + 1);
    let mut pieces = context.generate(start, sampler, options);
    // The prompt, and a token.
    pieces.next().transpose()?;
    let begin = Instant::now();
    for piece in pieces {
        std::hint::black_box(piece?);
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    (values[middle] + values[(values.len() - 1) / 2]) / 2.0
}
