//! docs/support.md is what the tests cover.

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
