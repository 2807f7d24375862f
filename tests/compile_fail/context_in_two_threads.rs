//! A context is used by one thread at a time.

use llama_turboquant::llama::Context;

fn share(context: &Context) {
    std::thread::scope(|scope| {
        scope.spawn(|| context.last_logits().unwrap()[0]);
        scope.spawn(|| context.last_logits().unwrap()[0]);
    });
}

fn main() {}
