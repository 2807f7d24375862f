//! libturboquant.a, as users build it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The archive, built by the command that the documentation gives, where scripts build it, too. This is a copy: a build
/// with other features, such as that of the programs, leaves another archive there.
pub fn archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let target = tmp.parent().expect("Cargo's target folder");
        // Cargo's lock of the folder ended when it began to run tests.
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--no-default-features", "--features", "capi"])
            .args(["--offline", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let copy = tmp.join("staticlib/libturboquant.a");
        let dir = copy.parent().expect("a folder");
        std::fs::create_dir_all(dir).expect("cargo's folder can be written");
        // It appears whole: other tests may be linking with it.
        let part = tempfile::NamedTempFile::new_in(dir).expect("cargo's folder can be written");
        std::fs::copy(target.join("release/libturboquant.a"), part.path()).expect("an archive");
        part.persist(&copy).expect("a file in the same folder");
        copy
    })
}
