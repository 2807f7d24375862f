//! llama.cpp's `llama-cli`, with the turbo types.

use llama_turboquant::llama::tools::{Tool, run};

fn main() {
    run(Tool::Cli)
}
