//! Several answers to one prompt, decoded together: the prompt is decoded once and shared.
//!
//!     cargo run --release --example parallel -- MODEL.gguf "Once upon a time"

use std::error::Error;

use llama_turboquant::llama::{
    Batch, CacheType, Context, ContextParams, Model, Sampler, Token, Utf8Stream,
};

const N: u32 = 4;
const N_TOKENS: usize = 48;

/// An answer that is being written.
struct Answer {
    seq: u32,
    sampler: Sampler,
    next: Token,
    text: String,
    stream: Utf8Stream,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: parallel MODEL.gguf [PROMPT]")?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());

    let model = Model::load(path)?;
    let params = ContextParams::default()
        .n_seq_max(N)
        .kv_unified(true)
        .cache_types(CacheType::Turbo4, CacheType::Turbo3);
    let mut context = Context::new(&model, &params)?;
    let vocab = model.vocab();

    context.append(&vocab.tokenize(&prompt, true, false)?, 0)?;
    let mut answers = Vec::new();
    for seq in 0..N {
        let mut sampler = Sampler::builder(&model).min_p(0.05, 1).temperature(1.0).dist(seq)?;
        let next = sampler.sample(&context)?;
        answers.push(Answer {
            seq,
            sampler,
            next,
            text: prompt.clone(),
            stream: Utf8Stream::new(),
        });
    }
    for seq in 1..N {
        context.seq_copy(0, seq, ..)?;
    }

    let mut batch = Batch::new(N as usize, 1);
    for _ in 0..N_TOKENS {
        batch.clear();
        let mut writing: Vec<_> = answers.iter_mut().filter(|a| !vocab.is_eog(a.next)).collect();
        for answer in &mut writing {
            answer.text += &answer.stream.push(&vocab.piece(answer.next, false)?);
            batch.add(answer.next, context.seq_len(answer.seq), &[answer.seq], true)?;
        }
        if batch.is_empty() {
            break;
        }
        context.decode(&batch)?;
        for (index, answer) in writing.into_iter().enumerate() {
            answer.next = answer.sampler.sample_at(&context, index)?;
        }
    }
    for answer in answers {
        println!("{}: {}\n", answer.seq, answer.text);
    }
    Ok(())
}
