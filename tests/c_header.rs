//! include/turboquant.h is what cbindgen makes of src/capi now, and says nothing of ggml.
#![cfg(feature = "capi")]

use std::path::Path;

/// Set it to write the header instead of comparing it.
const UPDATE: &str = "TQ_UPDATE_HEADER";

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    // Not the whole crate: the symbols for ggml and for attention have headers of their own.
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(root.join("src/capi/status.rs"))
        .with_src(root.join("src/capi/rows.rs"))
        .generate()
        .expect("cbindgen reads src/capi");
    let mut header = Vec::new();
    bindings.write(&mut header);
    // rustdoc's heading for unsafe functions means nothing to a C programmer; its text does.
    String::from_utf8(header).expect("a header in UTF-8").replace("// # Safety\n", "")
}

#[test]
fn the_header_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/turboquant.h");
    let header = generated();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &header).expect("writing include/turboquant.h");
    }
    let checked_in = std::fs::read_to_string(&path).expect("include/turboquant.h");
    assert!(
        checked_in == header,
        "include/turboquant.h is stale: run `{UPDATE}=1 cargo test --no-default-features --features \
         capi --test c_header` and commit it"
    );
}

#[test]
fn the_header_is_for_rows_alone() {
    let header = generated();
    for name in ["ggml", "llama_", "flash_attn", "_row_turbo", "vec_dot"] {
        assert!(!header.contains(name), "{name} does not belong in the public header");
    }
}
