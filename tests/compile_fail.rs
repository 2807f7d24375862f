//! Programs that must not compile: what would be undefined in C++ is an error in Rust.
#![cfg(feature = "llama")]

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
