//! A chat on the terminal, by the template of the model. A line is a message; an empty one ends it.
//!
//!     cargo run --release --example chat -- MODEL.gguf

use std::error::Error;
use std::io::{BufRead, Write};

use llama_turboquant::llama::{
    CacheType, ChatMessage, ChatTemplate, Context, ContextParams, GenerateOptions, Model, Sampler,
};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL.gguf")?;
    let model = Model::load(path)?;
    let template = ChatTemplate::of_model(&model)?;
    let params = ContextParams::default().cache_types(CacheType::Turbo4, CacheType::Turbo3);
    let mut context = Context::new(&model, &params)?;
    let mut sampler = Sampler::builder(&model).min_p(0.05, 1).temperature(0.7).dist(u32::MAX)?;

    let mut chat = Vec::new();
    let mut seen = Vec::new(); // the tokens that the context has
    print!("> ");
    std::io::stdout().flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        chat.push(ChatMessage::user(line));

        // What the context has of the prompt is not decoded again.
        let tokens = model.vocab().tokenize(&template.apply(&chat, true)?, true, true)?;
        let common =
            seen.iter().zip(&tokens[..tokens.len() - 1]).take_while(|(a, b)| a == b).count();
        context.seq_remove(0, u32::try_from(common)?..)?;

        let mut answer = String::new();
        let options = GenerateOptions::default().max_tokens(512);
        let mut generation = context.generate(&tokens[common..], &mut sampler, options);
        for piece in &mut generation {
            let piece = piece?;
            print!("{piece}");
            std::io::stdout().flush()?;
            answer += &piece.text;
        }
        seen = [&tokens, generation.tokens()].concat();
        seen.pop(); // the last token was not decoded
        chat.push(ChatMessage::assistant(answer));
        print!("\n> ");
        std::io::stdout().flush()?;
    }
    Ok(())
}
