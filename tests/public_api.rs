//! docs/api.txt is the crate's public API, a line per item: what a change of it breaks or adds is in the diff.
//!
//! The listing comes from rustdoc's JSON, whose format changes with the compiler, so that one version of it can be read.
//! With others the test says SKIPPED.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/api.txt";
/// The compiler whose JSON the crate `public-api` of Cargo.toml reads.
const RUSTC: &str = "1.95.";

#[test]
fn the_listing_is_up_to_date() {
    let version = rustc_version();
    if !version.starts_with(RUSTC) {
        println!("SKIPPED: the API is listed with rustc {RUSTC}x, and this is {version}");
        return;
    }
    let listed = list();
    assert!(listed.contains("pub fn llama_turboquant::llama::Model::load"), "{listed}");
    if std::env::var_os("TQ_UPDATE_API").is_some() {
        std::fs::write(PAGE, &listed).expect("a page");
    }
    let page = std::fs::read_to_string(PAGE).expect("a page");
    let missing = |from: &str, of: &str| {
        let of: std::collections::HashSet<_> = of.lines().collect();
        from.lines().filter(|line| !of.contains(line)).collect::<Vec<_>>().join("\n")
    };
    assert!(
        page == listed,
        "{PAGE} is stale: TQ_UPDATE_API=1 cargo test --test public_api\nnew:\n{}\ngone:\n{}",
        missing(&listed, &page),
        missing(&page, &listed)
    );
}

fn rustc_version() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("rustc");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().nth(1).expect("rustc VERSION").into()
}

/// All items but those of the C API's bindings.
fn list() -> String {
    let target =
        Path::new(env!("CARGO_BIN_EXE_turboquant")).ancestors().nth(2).expect("target/debug");
    let output = Command::new(env!("CARGO"))
        .args(["rustdoc", "--lib", "--quiet", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTC_BOOTSTRAP", "1") // for that format alone
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let api = public_api::Builder::from_rustdoc_json(target.join("doc/llama_turboquant.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .expect("rustdoc's JSON");
    let items = api.items().map(ToString::to_string);
    items.filter(|item| !item.contains("llama::sys::")).map(|item| item + "\n").collect()
}
