//! Builds llama.cpp with the turbo types (feature `llama`) and tells Cargo how to link it.
//! Without that feature there is nothing to build, and no C compiler is needed.

#[cfg(feature = "llama")]
#[path = "build/mod.rs"]
mod build;

fn main() {
    #[cfg(feature = "llama")]
    if let Some(task) = build::env::task() {
        build::driver::perform(&task);
    }
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(not(feature = "llama"))]
    println!("cargo::rustc-check-cfg=cfg(tq_pin, values(any()))");
    #[cfg(feature = "llama")]
    if let Err(message) = build::run() {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}
