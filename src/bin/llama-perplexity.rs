//! llama.cpp's `llama-perplexity`, with the turbo types.

use llama_turboquant::llama::tools::{Tool, run};

fn main() {
    run(Tool::Perplexity)
}
