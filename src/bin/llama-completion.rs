//! llama.cpp's `llama-completion`, with the turbo types.

use llama_turboquant::llama::tools::{Tool, run};

fn main() {
    run(Tool::Completion)
}
