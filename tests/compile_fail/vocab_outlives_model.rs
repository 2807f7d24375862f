//! A vocabulary is part of its model.

use llama_turboquant::llama::Model;

fn main() {
    let vocab = {
        let model = Model::load("model.gguf").unwrap();
        model.vocab()
    };
    println!("{}", vocab.n_tokens());
}
