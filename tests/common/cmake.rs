//! cmake, as the build has it.

use std::path::PathBuf;

pub use super::tree::tree;

/// The cmake that configured it, which may be in the cache folder and not on PATH.
pub fn cmake() -> PathBuf {
    cached("CMAKE_COMMAND").into()
}

/// Its generator and compilers.
pub fn options() -> Vec<String> {
    let name = |what: &str| format!("-D{what}={}", cached(what));
    let mut options = vec![
        format!("-G{}", cached("CMAKE_GENERATOR")),
        name("CMAKE_C_COMPILER"),
        name("CMAKE_CXX_COMPILER"),
    ];
    if cached("CMAKE_GENERATOR") == "Ninja" {
        options.push(name("CMAKE_MAKE_PROGRAM"));
    }
    options
}

/// A value of its CMakeCache.txt.
fn cached(name: &str) -> String {
    let file = tree().join("build/CMakeCache.txt");
    let text = std::fs::read_to_string(file).expect("the cache of CMake");
    let value = text.lines().find_map(|line| {
        let (_, value) = line.strip_prefix(name)?.strip_prefix(':')?.split_once('=')?;
        Some(value.to_owned())
    });
    value.unwrap_or_else(|| panic!("{name} is not in CMakeCache.txt"))
}
