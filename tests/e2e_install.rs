//! script/install, and C and C++ programs on what it installs: by CMake, by pkg-config, and after a move.
//!
//! Needs pkg-config and the compilers that built llama.cpp.
#![cfg(all(feature = "cli", unix))]

mod common;
#[path = "install/gpu.rs"]
mod gpu;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use common::archive::archive;
use common::cmake::{cmake, options, tree};
use common::models;
use common::process::{Finished, run};

const LIMIT: Duration = Duration::from_secs(600);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// script/install with what this test run built.
fn install(args: &[&str]) -> Finished {
    let programs = Path::new(env!("CARGO_BIN_EXE_turboquant")).parent().expect("a folder");
    let built = ["--bin-dir", text(programs), "--core", text(archive()), "--tree", text(tree())];
    run(&format!("{ROOT}/script/install"), &[&built, args].concat(), &[], LIMIT)
}

fn uninstall(prefix: &Path) -> Finished {
    let args = ["--uninstall", "--prefix", text(prefix)];
    run(&format!("{ROOT}/script/install"), &args, &[], LIMIT)
}

/// Runs a command that has to succeed; its stdout.
#[track_caller]
fn succeed(program: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let ran = run(text(program), args, env, LIMIT);
    ran.assert_success();
    ran.stdout
}

/// Every file below `dir`, by its path in it.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).expect("below it").to_owned());
            }
        }
    }
    found
}

/// An installation in a folder with a space, which is not where it was made.
struct Installed(tempfile::TempDir);

impl Installed {
    /// One for all tests that run at once; it goes with the last of them.
    fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Installed>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            let (made, moved) = (dir.path().join("made"), dir.path().join("moved to"));
            install(&["--prefix", text(&made)]).assert_success();
            std::fs::rename(made, moved).expect("the same file system");
            let installed = Arc::new(Self(dir));
            *shared = Arc::downgrade(&installed);
            installed
        })
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("moved to")
    }
}

/// Configures and builds a project with the package, in `dir`.
fn build(project: &Path, dir: &Path) {
    let (project, to) = (text(project), text(dir));
    let installed = Installed::get();
    let prefix = format!("-DCMAKE_PREFIX_PATH={}", installed.path().display());
    let options = options();
    let mut args = vec!["-S", project, "-B", to, &prefix];
    args.extend(options.iter().map(String::as_str));
    succeed(&cmake(), &args, &[]);
    succeed(&cmake(), &["--build", to], &[]);
}

/// The example's output: an answer, and the cache's size in the types that were asked for.
#[track_caller]
fn check_example(program: &Path) {
    let model = models::path("smollm2");
    let base = ["-m", text(&model), "-p", "The capital of France is", "-n", "123"];
    let turbo = succeed(program, &[&base[..], &["-ctk", "turbo4", "-ctv", "turbo2"]].concat(), &[]);
    assert!(turbo.starts_with(" Paris"), "{turbo}");
    // 30 layers of 192 values, cells in steps of 256: 4.25 bits and 0.25 of anchors, and 2.25.
    assert!(turbo.ends_with("tokens: K (turbo4) 0.79 MiB, V (turbo2) 0.40 MiB\n"), "{turbo}");
    let f16 = succeed(program, &[&base[..], &["-ctk", "f16", "-ctv", "f16"]].concat(), &[]);
    assert!(f16.ends_with("K (f16) 2.81 MiB, V (f16) 2.81 MiB\n"), "{f16}");

    let run = |args: &[&str]| run(text(program), args, &[], LIMIT);
    run(&["-m", "none.gguf"]).assert_refused(&["error: cannot load none.gguf", "No such file"]);
    run(&["-ctk", "turbo9"]).assert_refused(&["no such cache type: turbo9"]);
    run(&["-m"]).assert_refused(&["usage: "]);
}

#[test]
fn the_example_builds_with_cmake() {
    let dir = tempfile::tempdir().expect("a folder");
    build(&Path::new(ROOT).join("examples/cpp"), dir.path());
    check_example(&dir.path().join("generate"));
}

#[test]
fn the_example_builds_with_pkg_config() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = dir.path().join("generate");
    let installed = Installed::get();
    let packages = installed.path().join("lib/pkgconfig");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    // As in the example's head; the quotes that pkg-config puts around spaces are for a shell that reads them.
    let line = format!(
        "flags=$(pkg-config --cflags --libs llama-turboquant) && \
         eval {compiler} -std=c++17 -Wall -Wextra -Werror '{ROOT}/examples/cpp/main.cpp' \"$flags\" -o '{}'",
        program.display()
    );
    succeed(Path::new("sh"), &["-c", &line], &[("PKG_CONFIG_PATH", text(&packages))]);
    check_example(&program);
}

/// Upstream's example of a program that asks for upstream's package.
#[test]
fn a_program_for_upstreams_package_builds() {
    let dir = tempfile::tempdir().expect("a folder");
    build(&tree().join("src/examples/simple-cmake-pkg"), dir.path());
    let model = models::path("smollm2");
    let program = dir.path().join("llama-simple-cmake-pkg");
    let said = succeed(&program, &["-m", text(&model), "-n", "4", "The capital of France is"], &[]);
    assert!(said.contains("The capital of France is Paris"), "{said}");
}

/// In a project without C++, by version, and the C interface alone.
#[test]
fn a_c_project_finds_the_package() {
    let dir = tempfile::tempdir().expect("a folder");
    let project = "cmake_minimum_required(VERSION 3.14)\nproject(c C)\n\
         find_package(llama-turboquant 99 QUIET)\n\
         if (llama-turboquant_FOUND)\n    message(FATAL_ERROR \"99\")\nendif()\n\
         find_package(llama-turboquant @ REQUIRED)\n\
         add_executable(types types.c)\n\
         target_link_libraries(types PRIVATE llama-turboquant::llama)\n\
         add_executable(rows ROOT/examples/c/rows.c)\n\
         target_link_libraries(rows PRIVATE llama-turboquant::turboquant)\n";
    let project = project.replace('@', env!("CARGO_PKG_VERSION")).replace("ROOT", ROOT);
    let program = "#include <stdio.h>\n#include \"llama.h\"\n\
         int main(void) {\n    llama_backend_init();\n    \
         puts(ggml_type_name(GGML_TYPE_TURBO3));\n    \
         return llama_model_load_from_file(\"none\", llama_model_default_params()) != 0;\n}\n";
    std::fs::write(dir.path().join("CMakeLists.txt"), project).expect("a file");
    std::fs::write(dir.path().join("types.c"), program).expect("a file");
    let out = dir.path().join("out");
    build(dir.path(), &out);
    assert_eq!(succeed(&out.join("types"), &[], &[]), "turbo3\n");
    assert!(succeed(&out.join("rows"), &[], &[]).contains("turbo4: 4.25 bits per value"));
}

#[test]
fn what_is_installed_is_complete_and_tells_no_path() {
    let installed = Installed::get();
    let prefix = installed.path();
    let there = files(&prefix);
    for file in [
        "bin/turboquant",
        "bin/llama-server",
        "lib/libturboquant.a",
        "include/llama-cpp.h",
        "include/llama-kv-calib.h",
        "include/gguf.h",
        "include/turboquant.h",
        "include/ggml-anchors.h",
        "share/man/man1/turboquant-run.1",
        "share/man/man1/turboquant.1",
        "share/bash-completion/completions/turboquant",
        "share/zsh/site-functions/_turboquant",
        "share/fish/vendor_completions.d/turboquant.fish",
    ] {
        assert!(there.contains(Path::new(file)), "{file} is not in {there:?}");
    }
    let made = prefix.with_file_name("made");
    for file in there.iter().filter(|f| f.starts_with("share") || f.starts_with("lib/cmake")) {
        let words = std::fs::read_to_string(prefix.join(file)).expect("a text");
        assert!(!words.contains(text(&made)) && !words.contains(ROOT), "{}", file.display());
    }
    // The installed command knows the archive beside it.
    let bin = prefix.join("bin/turboquant");
    let said = succeed(&bin, &["patch", text(&tree().join("src"))], &[]);
    assert!(said.contains("libturboquant.a'\n"), "{said}");
}

#[test]
fn a_second_run_updates_and_uninstalling_leaves_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let prefix = dir.path().join("new/prefix");
    let args = ["--prefix", text(&prefix)];
    let ran = install(&args);
    ran.assert_success();
    assert!(ran.stdout.contains("CMAKE_PREFIX_PATH="), "{}", ran.text());
    let first = files(&prefix);

    // What an earlier version left, and what is no longer as it was.
    let manifest = prefix.join("share/llama-turboquant/install-manifest.txt");
    let list = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, format!("{list}include/old.h\n")).expect("a file");
    std::fs::write(prefix.join("include/old.h"), "old").expect("a file");
    std::fs::write(prefix.join("include/llama.h"), "old").expect("a file");
    install(&args).assert_success();
    assert_eq!(files(&prefix), first);
    let header = std::fs::read(prefix.join("include/llama.h")).expect("a header");
    assert_eq!(header, std::fs::read(tree().join("src/include/llama.h")).expect("a header"));

    std::fs::write(prefix.join("lib/other.txt"), "not ours").expect("a file");
    uninstall(&prefix).assert_success();
    assert_eq!(files(&prefix), BTreeSet::from(["lib/other.txt".into()]));
    uninstall(&prefix).assert_refused(&["nothing is installed"]);

    std::fs::remove_dir_all(&prefix).expect("our folder");
    install(&args).assert_success();
    uninstall(&prefix).assert_success();
    assert!(!prefix.exists() && dir.path().join("new").exists());
}

#[test]
fn files_of_something_else_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("include")).expect("a folder");
    std::fs::write(dir.path().join("include/llama.h"), "another").expect("a file");
    let prefix = ["--prefix", text(dir.path())];
    install(&prefix).assert_refused(&["something else", "include/llama.h", "--force"]);
    assert_eq!(files(dir.path()), BTreeSet::from(["include/llama.h".into()]));
    assert_eq!(std::fs::read(dir.path().join("include/llama.h")).expect("a file"), b"another");
}

#[test]
fn what_is_no_folder_to_install_to_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let refused = |args: &[&str], words: &[&str]| install(args).assert_refused(words);
    refused(&["--prefix", text(&file)], &["error: ", "is not a folder"]);
    refused(&["--prefix", text(&file.join("below"))], &["is not a folder"]);
    if cfg!(target_os = "linux") {
        // Nobody can write there, root neither.
        refused(&["--prefix", "/proc/turboquant"], &["/proc", "~/.local"]);
    }
    refused(&[], &["--prefix DIR is needed", "--help"]);
    refused(&["--prefix", text(dir.path()), "--colour"], &["--colour"]);
    refused(&["--prefix", text(dir.path()), "--core", text(&file)], &["C interface"]);
    assert_eq!(files(dir.path()), BTreeSet::from(["file".into()]));
    install(&["--help"]).assert_success();
}
