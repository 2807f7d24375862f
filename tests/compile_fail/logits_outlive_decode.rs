//! Decoding overwrites the outputs of the decode before.

use llama_turboquant::llama::{Batch, Context};

fn decode(context: &mut Context, batch: &Batch) {
    let logits = context.last_logits().unwrap();
    context.decode(batch).unwrap();
    println!("{}", logits[0]);
}

fn main() {}
