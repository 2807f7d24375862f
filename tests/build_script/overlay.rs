//! The files of ours that are copied into llama.cpp's source.

use std::fs;
use std::path::Path;

use super::build::edit::{self, EditFile};
use super::build::overlay;

/// A package with these files of ours, and no edits.
fn package(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("vendor/edits")).unwrap();
    fs::create_dir_all(dir.path().join("ggml-ext")).unwrap();
    for (name, text) in files {
        let path = dir.path().join("ggml-ext").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn apply(package: &Path, files: &[EditFile], tree: &Path) {
    let ours = |from: &str| fs::read(package.join("ggml-ext").join(from));
    edit::apply_all(tree, files, &["a"], &ours).unwrap();
}

const TWICE: &str = "[[twice]]\nfile = \"src/sub/a.h\"\nalso = [\"common\", \"src/other\"]\n";

#[test]
fn files_go_to_the_folders_that_theirs_are_called_after() {
    let package = package(&[
        ("src/sub/a.h", "int a;"),
        ("src/b.cpp", "int b;"),
        ("tests/c.h", "int c;"),
        ("src/.b.cpp.swp", "of an editor"),
        ("twice.toml", TWICE),
    ]);
    let files = overlay::read(package.path()).unwrap();
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("src")).unwrap();
    let read = |name: &str| fs::read_to_string(tree.path().join(name)).ok();

    // What the tree has no folder for is not wanted there.
    apply(package.path(), &files, tree.path());
    assert_eq!(read("src/b.cpp").as_deref(), Some("int b;"));
    for name in ["src/sub/a.h", "common/a.h", "src/other/a.h"] {
        assert_eq!(read(name).as_deref(), Some("int a;"), "{name}");
    }
    assert_eq!(read("src/.b.cpp.swp"), None);
    assert!(!tree.path().join("tests").exists());

    fs::create_dir(tree.path().join("tests")).unwrap();
    apply(package.path(), &files, tree.path());
    assert_eq!(read("tests/c.h").as_deref(), Some("int c;"));
}

#[test]
fn what_goes_nowhere_is_an_error() {
    let package = package(&[("src/b.cpp", "int b;"), ("twice.toml", TWICE)]);
    let error = overlay::read(package.path()).unwrap_err();
    assert!(error.contains("twice.toml") && error.contains("src/sub/a.h"), "{error}");
    fs::write(package.path().join("ggml-ext/twice.toml"), "").unwrap();
    overlay::read(package.path()).unwrap();
    fs::write(package.path().join("ggml-ext/a.h"), "").unwrap();
    let error = overlay::read(package.path()).unwrap_err();
    assert!(error.contains("a.h") && error.contains("is in no folder of llama.cpp's"), "{error}");
}
