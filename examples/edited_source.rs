//! Writes llama.cpp's source with the edits of vendor/edits and the files of ggml-ext to a folder. Nothing is built, and no C compiler is needed.
//!
//!     cargo run --no-default-features --example edited_source -- DIR
//!
//! For scripts; `turboquant patch` is the command for a checkout of one's own.

#[allow(dead_code, unused_imports)]
#[path = "../build/mod.rs"]
mod build;

use std::path::PathBuf;

use build::{env::Env, overlay, pin::Pins, tree};

fn main() {
    if let Err(message) = run() {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn run() -> build::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(dir), None) = (args.next().map(PathBuf::from), args.next()) else {
        return Err("one argument is needed: the folder to write".into());
    };
    if dir.exists() {
        return Err(format!("{} is there already", dir.display()));
    }
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    }
    // `cargo run` says where the package is.
    let env = Env::from_process()?;
    let pins = Pins::read(&env.root.join("vendor/llama.cpp.toml"))?;
    let edits = overlay::read(&env.root)?;
    let pin = pins.choose(&env, &edits)?;
    tree::make_source(&env, &pin, &edits, &dir).map(|_| ())
}
