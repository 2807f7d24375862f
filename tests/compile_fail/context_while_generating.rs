//! A generation has its context for itself.

use llama_turboquant::llama::{Context, GenerateOptions, Sampler};

fn generate(context: &mut Context, sampler: &mut Sampler) {
    let mut generation = context.generate(&[1], sampler, GenerateOptions::default());
    context.clear().unwrap();
    generation.next();
}

fn main() {}
