//! A prompt is decoded once and saved; when the file is there, it is restored instead.
//!
//!     cargo run --release --example save_restore -- MODEL.gguf prompt.state

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use llama_turboquant::llama::{
    CacheType, Context, ContextParams, GenerateOptions, Model, Sampler, StateError,
};

const PROMPT: &str = "The lighthouse keeper wrote down every ship that passed: the name, the hour and the colour of \
                      the sails. One day";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: save_restore MODEL.gguf FILE";
    let (path, file) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);

    let model = Model::load(path)?;
    let params = ContextParams::default().cache_types(CacheType::Turbo4, CacheType::Turbo4);
    let mut context = Context::new(&model, &params)?;
    let tokens = model.vocab().tokenize(PROMPT, true, false)?;
    let (last, before) = tokens.split_last().ok_or("no tokens")?;

    let start = Instant::now();
    if restore(&mut context, Path::new(&file))? == before {
        println!("restored {} tokens in {:?}", before.len(), start.elapsed());
    } else {
        context.clear()?;
        context.append(before, 0)?;
        println!("decoded {} tokens in {:?}", before.len(), start.elapsed());
        context.save_state(&file, before)?;
    }

    // A state has no logits: the last token is decoded in any case.
    let mut sampler = Sampler::greedy(&model)?;
    let options = GenerateOptions::default().max_tokens(40);
    println!("{PROMPT}{}", context.generate(&[*last], &mut sampler, options).text()?);
    Ok(())
}

/// The tokens that were saved; none: there is no file, or one of another model or prompt.
fn restore(context: &mut Context, file: &Path) -> Result<Vec<i32>, StateError> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    match context.load_state(file) {
        Err(e @ (StateError::Restore { .. } | StateError::Format { .. })) => {
            eprintln!("{e}");
            Ok(Vec::new())
        }
        result => result,
    }
}
