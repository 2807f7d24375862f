//! llama.cpp's `llama-server`, with the turbo types.

use llama_turboquant::llama::tools::{Tool, run};

fn main() {
    run(Tool::Server)
}
