//! llama.cpp's `llama-bench`, with the turbo types.

use llama_turboquant::llama::tools::{Tool, run};

fn main() {
    run(Tool::Bench)
}
