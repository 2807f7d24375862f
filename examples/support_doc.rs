//! Writes docs/support.md: what runs where, and how that was checked.
//!
//!     cargo run --no-default-features --example support_doc
//!
//! tests/support_doc.rs fails where the page is stale.

use std::path::Path;
use std::{fs, io};

#[path = "../tests/support/coverage.rs"]
mod coverage;
#[path = "../tests/support/page.rs"]
mod page;

fn main() -> io::Result<()> {
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(page::PATH), page::page())
}
