//! `turboquant patch`, on copies of the pin's source.
#![cfg(feature = "cli")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::archive::archive;
use common::cmake::{cmake, options, tree};
use common::process::{Finished, run};

const TURBOQUANT: &str = env!("CARGO_BIN_EXE_turboquant");
const LIMIT: Duration = Duration::from_secs(600);

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn patch(dir: &Path, args: &[&str]) -> Finished {
    run(TURBOQUANT, &[&["patch", text(dir)], args].concat(), &[], LIMIT)
}

/// It said why in one line, and the tree is as it was.
#[track_caller]
fn assert_refused(checkout: &Checkout, args: &[&str], words: &[&str]) {
    assert_eq!(refusal(checkout, args, words).lines().count(), 1);
}

/// The same in any number of lines, which are returned.
#[track_caller]
fn refusal(checkout: &Checkout, args: &[&str], words: &[&str]) -> String {
    let before = files(checkout.dir());
    let ran = patch(checkout.dir(), args);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.text());
    ran.assert_refused(words);
    assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{}", ran.text());
    assert!(files(checkout.dir()) == before, "files changed");
    ran.stderr
}

/// Every file of a tree but git's, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                found.insert(path.strip_prefix(dir).expect("below it").to_owned(), bytes);
            }
        }
    }
    found
}

/// A copy of the pin's source, without what no edit and no build of ours looks at.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        copy(&source(), dir.path());
        Self(dir)
    }

    /// The same, committed.
    #[cfg(unix)]
    fn in_git() -> Self {
        let checkout = Self::new();
        checkout.git(&["init", "--quiet"]);
        checkout.git(&["add", "--all", "--force"]);
        checkout.git(&["commit", "--quiet", "-m", "the pin"]);
        checkout
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    /// Changes a file's text.
    fn change(&self, file: &str, change: impl FnOnce(&str) -> String) {
        let path = self.path(file);
        let old = std::fs::read_to_string(&path).expect("a text");
        let new = change(&old);
        assert_ne!(old, new);
        std::fs::write(path, new).expect("a file");
    }

    #[track_caller]
    fn git(&self, args: &[&str]) {
        let who =
            ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false"];
        let mine = ["-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"];
        let output =
            Command::new("git").arg("-C").arg(self.dir()).args(who).args(mine).args(args).output();
        let output = output.expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The unedited source, which build.rs names beside the tree that it made of it.
fn source() -> PathBuf {
    let path = tree().join("source");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    PathBuf::from(text)
}

fn copy(from: &Path, to: &Path) {
    const LEFT_OUT: [&str; 3] = [".git", "media", "docs"];
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a copy");
        }
    }
}

#[test]
fn a_dry_run_says_all_and_changes_nothing() {
    let checkout = Checkout::new();
    let before = files(checkout.dir());
    let ran = patch(checkout.dir(), &[]);
    ran.assert_success();
    let line = |words: &[&str]| ran.stdout.lines().any(|l| words.iter().all(|w| l.contains(w)));
    assert!(line(&["ggml/include/ggml.h", "+4 -1", "ggml.toml"]), "{}", ran.stdout);
    assert!(line(&["src/llama-turbo.cpp", "new, ", "ggml-ext/src"]), "{}", ran.stdout);
    assert!(line(&["files to change", "new", "--apply", "--diff"]), "{}", ran.stdout);
    assert!(files(checkout.dir()) == before);
}

#[test]
fn applied_it_is_the_very_tree_that_is_built() {
    let checkout = Checkout::new();
    let before = files(checkout.dir());
    let ran = patch(checkout.dir(), &["--apply", "--lib", text(archive())]);
    ran.assert_success();
    for words in ["files changed", "cmake -S ", "--target llama-cli", text(archive())] {
        assert!(ran.stdout.contains(words), "no {words}: {}", ran.stdout);
    }
    let (now, built) = (files(checkout.dir()), files(&tree().join("src")));
    for (file, bytes) in &now {
        assert!(built.get(file) == Some(bytes), "{} differs", file.display());
    }
    // But for what the copy is without.
    let original = files(&source());
    let missing = built.keys().filter(|f| !now.contains_key(*f) && !original.contains_key(*f));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    assert!(now.len() > before.len());

    for args in [&[][..], &["--apply"]] {
        let again = patch(checkout.dir(), args);
        again.assert_success();
        assert!(again.stdout.contains("has these edits already"), "{}", again.text());
        assert!(files(checkout.dir()) == now);
    }
    assert_eq!(patch(checkout.dir(), &["--diff"]).stdout, "");
}

#[cfg(unix)]
#[test]
fn the_diff_is_one_that_git_applies() {
    let (checkout, by_git) = (Checkout::new(), Checkout::in_git());
    let ran = patch(by_git.dir(), &["--diff"]);
    ran.assert_success();
    let diff = by_git.dir().with_extension("diff");
    std::fs::write(&diff, &ran.stdout).expect("a file");
    by_git.git(&["apply", "--whitespace=nowarn", text(&diff)]);
    std::fs::remove_file(diff).expect("our file");
    patch(checkout.dir(), &["--apply"]).assert_success();
    assert!(files(checkout.dir()) == files(by_git.dir()));
}

#[cfg(unix)]
#[test]
fn uncommitted_changes_are_refused() {
    let checkout = Checkout::in_git();
    checkout.change("LICENSE", |text| format!("{text}\nmine\n"));
    for args in [&[][..], &["--apply"], &["--diff"]] {
        assert_refused(&checkout, args, &["uncommitted changes", "LICENSE", "git stash"]);
    }
    checkout.git(&["commit", "--quiet", "--all", "-m", "mine"]);
    std::fs::write(checkout.path("new.txt"), "mine").expect("a file");
    assert_refused(&checkout, &["--apply"], &["uncommitted changes", "new.txt"]);
    checkout.git(&["add", "new.txt"]);
    checkout.git(&["commit", "--quiet", "-m", "mine, too"]);
    patch(checkout.dir(), &["--apply"]).assert_success();
    // Its own changes are none that it would refuse.
    let again = patch(checkout.dir(), &[]);
    again.assert_success();
    assert!(again.stdout.contains("has these edits already"), "{}", again.text());
}

#[test]
fn every_damaged_anchor_is_named_in_one_run() {
    let checkout = Checkout::new();
    let (file, anchor) = ("ggml/src/ggml-cpu/ops.cpp", "switch (dst->op_params[3]) {");
    checkout.change(file, |text| text.replace(anchor, "switch (dst->op_params[4]) {"));
    let (other, include) = ("src/llama-graph.h", "#include \"llama-hparams.h\"");
    checkout.change(other, |text| text.replace(include, ""));
    std::fs::remove_file(checkout.path("common/arg.cpp")).expect("a file");

    let commit = llama_turboquant::llama::LLAMA_CPP;
    let words = [
        "ggml-cpu.toml",
        file,
        anchor,
        "nothing was changed",
        commit,
        &format!("git checkout {commit}"),
    ];
    for args in [&["--apply"][..], &[]] {
        let text = refusal(&checkout, args, &words);
        let at = |words: &[&str]| {
            let found = text.lines().position(|l| words.iter().all(|w| l.contains(w)));
            found.unwrap_or_else(|| panic!("no line has {words:?}: {text}"))
        };
        let line = text.lines().nth(at(&["ggml-cpu.toml", anchor, "is missing"]) + 1);
        let line = line.expect("the nearest");
        assert!(
            line.contains("nearest, line ") && line.ends_with("switch (dst->op_params[4]) {"),
            "{line}"
        );
        at(&["llama-graph.toml", other, "llama-hparams.h", "is missing"]);
        at(&["common.toml", "common/arg.cpp", "No such file"]);
    }
    // All that are known are named, and the nearest.
    for name in
        ["0.25.3 (commit 0c1e57098, ggml 0.25.3)", "b12032 (commit 785322d17f, ggml 0.28.0)"]
    {
        refusal(&checkout, &[], &[name, "The nearest to yours is"]);
    }
}

#[test]
fn other_edits_of_ours_are_refused() {
    let checkout = Checkout::new();
    patch(checkout.dir(), &["--apply"]).assert_success();
    checkout.change("src/llama-turbo.cpp", |text| format!("{text}\n"));
    assert_refused(&checkout, &["--apply"], &["patched already", "another version"]);
    checkout.change("src/llama-turbo.cpp", |text| text[..text.len() - 1].into());
    patch(checkout.dir(), &[]).assert_success();
    checkout.change("ggml/include/ggml.h", |text| text.replace("GGML_TYPE_TURBO2  = 120,", ""));
    assert_refused(&checkout, &[], &["patched already", "in part"]);
}

#[test]
fn what_is_no_llama_cpp_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |dir: &Path, words: &[&str]| patch(dir, &["--apply"]).assert_refused(words);
    refused(dir.path(), &["is not the root of a llama.cpp checkout", "CMakeLists.txt"]);
    refused(&dir.path().join("none"), &["is not a folder"]);
    refused(Path::new(TURBOQUANT), &["is not a folder"]);
    refused(&tree().join("src/src"), &["is not the root of a llama.cpp checkout"]);
    let ran = patch(&tree().join("src"), &["--lib", TURBOQUANT]);
    ran.assert_refused(&["is not a static library"]);
}

/// Where a file cannot be written, those that were are as before. A folder with the name of the file that is written
/// beside its place is in the way of root, too.
#[test]
fn all_or_nothing() {
    let checkout = Checkout::new();
    std::fs::create_dir(checkout.path("tools/.CMakeLists.txt.part")).expect("a folder");
    assert_refused(&checkout, &["--apply"], &["tools", "is as it was"]);
    assert!(!checkout.path("tools/turboquant").exists());
    std::fs::remove_dir(checkout.path("tools/.CMakeLists.txt.part")).expect("our folder");
    patch(checkout.dir(), &["--apply"]).assert_success();
}

/// As a user's build has it, with shared libraries, but of ggml alone: all of llama.cpp is what `script/test upstream`
/// builds.
#[cfg(target_os = "linux")]
#[test]
fn a_patched_tree_links_the_core() {
    let checkout = Checkout::new();
    patch(checkout.dir(), &["--apply"]).assert_success();
    let (dir, out) = (text(checkout.dir()), checkout.path("build"));
    let options = options();
    let configure = |lib: &str| {
        let mut args = vec!["-S", dir, "-B", text(&out)];
        args.extend(options.iter().map(String::as_str));
        args.extend([
            "-DLLAMA_BUILD_COMMON=OFF",
            "-DLLAMA_BUILD_TOOLS=OFF",
            "-DLLAMA_BUILD_APP=OFF",
        ]);
        args.extend(["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"]);
        args.extend(["-DCMAKE_SHARED_LINKER_FLAGS=-Wl,-z,defs"]); // no symbol may be missing
        args.extend((!lib.is_empty()).then_some(lib));
        run(text(&cmake()), &args, &[], LIMIT)
    };
    configure("").assert_refused(&["need their Rust core", "-DTURBOQUANT_LIB="]);
    configure("-DTURBOQUANT_LIB=/none.a").assert_refused(&["/none.a does not exist"]);
    let header = format!("-DTURBOQUANT_LIB={dir}/include/llama.h");
    configure(&header).assert_refused(&["without the C interface"]);
    configure(&format!("-DTURBOQUANT_LIB={}", archive().display())).assert_success();
    run(text(&cmake()), &["--build", text(&out), "--target", "ggml-base"], &[], LIMIT)
        .assert_success();

    let program = checkout.path("row");
    std::fs::write(checkout.path("row.cpp"), ROW).expect("a file");
    let (source, libraries) = (checkout.path("row.cpp"), out.join("bin"));
    let include = format!("-I{dir}/ggml/include");
    let (search, rpath) =
        (format!("-L{}", libraries.display()), format!("-Wl,-rpath,{}", libraries.display()));
    let args = [text(&source), &include, &search, &rpath, "-lggml-base", "-o", text(&program)];
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    run(&compiler, &args, &[], LIMIT).assert_success();
    let ran = run(text(&program), &[], &[], LIMIT);
    ran.assert_success();
    assert_eq!(ran.stdout, "turbo4 34\n");
}

/// A row of 64 there and back, through ggml.
#[cfg(target_os = "linux")]
const ROW: &str = r#"
#include "ggml.h"
#include <cmath>
#include <cstdio>
int main() {
    const ggml_type type = GGML_TYPE_TURBO4;
    float x[64], y[64], error = 0, energy = 0;
    for (int i = 0; i < 64; i++) x[i] = std::sin(0.7f * i);
    char block[64];
    const size_t size = ggml_quantize_chunk(type, x, block, 0, 1, 64, nullptr);
    ggml_get_type_traits(type)->to_float(block, y, 64);
    for (int i = 0; i < 64; i++) { error += (x[i] - y[i]) * (x[i] - y[i]); energy += x[i] * x[i]; }
    printf("%s %zu\n", ggml_type_name(type), size);
    return error < 0.02f * energy ? 0 : 1;
}
"#;
