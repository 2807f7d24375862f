//! The build script's parts, in the order of use.
//!
//! `pin` says which llama.cpp, `fetch` obtains its source, `overlay` knows the edits and the files of ours, `edit` applies
//! them to a copy, `gpu` checks what a GPU back end needs, `tree` keeps that copy and its build in the folder of `cache`
//! that `key` names, `cmake` builds it with the crates that `driver` calls, `link`
//! tells Cargo.
//! `embed` gives the edits to `turboquant patch`.

#[cfg(all(feature = "bindgen", not(test)))]
mod bindings;
#[allow(dead_code)] // some of it is for `turboquant cache`
pub mod cache;
pub mod cmake;
pub mod driver;
#[allow(dead_code, unused_imports)] // its reports are for `turboquant patch`
pub mod edit;
pub mod edit_file;
pub mod embed;
pub mod env;
pub mod fetch;
pub mod gpu;
pub mod key;
pub mod link;
pub mod overlay;
pub mod pin;
pub mod target;
pub mod tree;

/// Errors are messages for the person who runs Cargo: what is wrong, and the way out.
pub type Result<T> = std::result::Result<T, String>;

pub fn run() -> Result<()> {
    for name in env::ALL.iter().chain(&env::REACHING) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["build", "vendor", "ggml-ext"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let folder = |name| std::env::var_os(name).map(std::path::PathBuf::from).unwrap_or_default();
    let out_dir = folder("OUT_DIR");
    let root = folder("CARGO_MANIFEST_DIR");
    let pins = pin::Pins::read(&root.join("vendor/llama.cpp.toml"))?;
    let edits = overlay::read(&root)?;
    embed::generate(&root, &pins, &edits, &out_dir)?;
    if std::env::var_os("DOCS_RS").is_some() {
        // no network, and nothing is linked
        return pins.all().next().map_or(Ok(()), |pin| tell(&pins, pin));
    }

    let env = env::Env::from_process()?;
    for name in env.reaching.keys().cloned().chain(env::of_target(&env.target)) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let pin = pins.choose(&env, &edits)?;
    tell(&pins, &pin)?;
    let tree = tree::Tree::build(&env, &pin)?;
    let libraries = out_dir.join("llama");
    link::adopt(&tree.out, &libraries, &env.gpu.backends)?;
    link::emit(&libraries, &env.target, &env.gpu.backends)?;
    // Without its tree, the next build makes one.
    println!("cargo::rerun-if-changed={}", tree.built.display());
    // For scripts and tests that go on with the same build (script/upstream-build).
    println!("cargo::rustc-env=TQ_LLAMA_TREE={}", tree.dir.display());
    #[cfg(all(feature = "bindgen", not(test)))]
    bindings::generate(&env.root, &pin, &tree.src)?;
    Ok(())
}

/// What `llama::LLAMA_CPP` and `llama::GGML` say, and which bindings `llama::sys` has.
fn tell(pins: &pin::Pins, pin: &pin::Pin) -> Result<()> {
    println!("cargo::rustc-env=TQ_LLAMA_CPP={}", pin.commit);
    println!("cargo::rustc-env=TQ_GGML={}", pin.ggml);
    let names: Vec<_> = pins.all().map(|pin| format!("{:?}", pin.name)).collect();
    println!("cargo::rustc-check-cfg=cfg(tq_pin, values({}))", names.join(", "));
    println!("cargo::rustc-cfg=tq_pin={:?}", pin.name);
    Ok(())
}
