//! docs/support.md is what the tests cover, and tables of quality are of the results that are kept.

#[path = "support/coverage.rs"]
mod coverage;
#[path = "support/page.rs"]
mod page;

#[test]
fn the_page_is_not_stale() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page::PATH);
    let text = std::fs::read_to_string(path).expect("the page");
    let help = "stale: run `cargo run --no-default-features --example support_doc`";
    assert_eq!(text, page::page(), "{} is {help}", page::PATH);
}

/// Also that the scripts know the models that script/models has, and no others.
#[test]
fn tables_of_quality_are_not_stale() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/script/quality");
    let output = std::process::Command::new("python3")
        .args([script, "--check"])
        .output()
        .unwrap_or_else(|e| panic!("python3 {script}: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
