//! libturboquant.a, as users build it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The archive, built by the command that the documentation gives, in a target folder of its own: the one of this test
/// run is locked.
pub fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("staticlib");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--no-default-features", "--features", "capi"])
            .args(["--offline", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("release/libturboquant.a")
    })
}
