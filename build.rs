//! Builds llama.cpp with the turbo types (feature `llama`) and tells Cargo how to link it.
//! Without that feature there is nothing to build, and no C compiler is needed.

#[cfg(feature = "llama")]
#[path = "build/mod.rs"]
mod build;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "llama")]
    if let Err(message) = build::run().and_then(|()| tell_pin()) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

/// What `llama::LLAMA_CPP` and `llama::GGML` say.
#[cfg(feature = "llama")]
fn tell_pin() -> build::Result<()> {
    let pin = build::pin::Pin::read(std::path::Path::new("vendor/llama.cpp.toml"))?;
    println!("cargo::rustc-env=TQ_LLAMA_CPP={}", pin.commit);
    println!("cargo::rustc-env=TQ_GGML={}", pin.ggml);
    Ok(())
}
