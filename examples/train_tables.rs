//! Trains the level tables of `src/codec/tables.rs` again, from the seed that they came from.
//!
//!     cargo run --release --no-default-features --example train_tables

use llama_turboquant::codec::train::{Effort, Trained, train};
use std::thread;

fn main() {
    let runs: [(usize, fn() -> Trained); 3] = [
        (2, || train::<2>(1, Effort::FULL)),
        (3, || train::<3>(1, Effort::FULL)),
        (4, || train::<4>(1, Effort::FULL)),
    ];
    let runs = runs.map(|(k, run)| (k, thread::spawn(run)));
    for (k, run) in runs {
        let Trained { levels, scales, distortion } = run.join().expect("training does not panic");
        println!("turbo{k}: relative MSE {distortion:.5}");
        println!("  levels {levels:?}");
        println!("  scales {scales:?}");
    }
}
