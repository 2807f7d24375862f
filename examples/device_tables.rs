//! Writes ggml-ext/ggml/src/turbo-tables.h, the numbers that the devices' codec has from the Rust one.
//!
//!     cargo run --no-default-features --example device_tables
//!
//! tests/device_codec.rs fails where the file is stale.

use std::path::Path;
use std::{fs, io};

#[path = "../tests/device/tables.rs"]
mod tables;

fn main() -> io::Result<()> {
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(tables::PATH), tables::header())
}
