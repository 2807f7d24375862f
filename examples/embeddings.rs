//! How near texts are to each other: cosines of their embeddings. Best with a model that is made for it.
//!
//!     cargo run --release --example embeddings -- MODEL.gguf "a cat" "a kitten" "a lighthouse"

use std::error::Error;

use llama_turboquant::llama::{Context, ContextParams, Model, Pooling};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: embeddings MODEL.gguf [TEXT...]")?;
    let mut texts: Vec<String> = args.collect();
    if texts.is_empty() {
        texts = ["a cat", "a kitten", "a lighthouse on an island"].map(String::from).into();
    }

    let model = Model::load(path)?;
    let params = ContextParams::default()
        .embeddings(true)
        .pooling(Pooling::Mean)
        .n_seq_max(8)
        .kv_unified(true);
    let mut context = Context::new(&model, &params)?;

    let vocab = model.vocab();
    let tokens: Result<Vec<_>, _> =
        texts.iter().map(|text| vocab.tokenize(text, true, false)).collect();
    let embeddings = context.embed(&tokens?, true)?;

    for (text, a) in texts.iter().zip(&embeddings) {
        for b in &embeddings {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            print!("{cosine:6.3} ");
        }
        println!(" {text}");
    }
    Ok(())
}
