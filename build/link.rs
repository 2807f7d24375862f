//! Tells Cargo how to link the built libraries.

use std::fs;
use std::path::{Path, PathBuf};

use super::Result;

/// Every library, users before what they use. The tq_* symbols that ggml-cpu and ggml-base need are
/// in this crate's rlib; rustc keeps exported symbols of rlibs when it links an executable.
const LIBRARIES: [&str; 17] = [
    "turboquant-main",
    "llama-bench-impl",
    "llama-completion-impl",
    "llama-perplexity-impl",
    "llama-cli-impl",
    "llama-server-impl",
    "server-context",
    "mtmd",
    "vendor-hash",
    "llama-ui",
    "llama-common",
    "cpp-httplib",
    "llama-common-base",
    "llama",
    "ggml",
    "ggml-cpu",
    "ggml-base",
];

/// Prints the link instructions for the build folder `out`.
pub fn emit(out: &Path) -> Result<()> {
    let found = archives(out).map_err(|e| format!("{}: {e}", out.display()))?;
    for library in LIBRARIES {
        let names = [format!("lib{library}.a"), format!("{library}.lib")];
        let archive = found
            .iter()
            .find(|p| names.iter().any(|n| p.file_name().is_some_and(|f| f == n.as_str())));
        let Some(dir) = archive.and_then(|a| a.parent()) else {
            return Err(format!(
                "{} was built without {}: delete that folder and build again",
                out.display(),
                names[0]
            ));
        };
        println!("cargo::rustc-link-search=native={}", dir.display());
        // Not bundled: a copy in the rlib would cost 50 MB per profile.
        println!("cargo::rustc-link-lib=static:-bundle={library}");
    }
    for library in system_libraries(out)? {
        println!("cargo::rustc-link-lib={library}");
    }
    Ok(())
}

/// Libraries of the system, OpenMP's if CMake found it, and OpenSSL's if it was asked for.
fn system_libraries(out: &Path) -> Result<Vec<String>> {
    let mut libraries = Vec::new();
    let cache = out.join("CMakeCache.txt");
    let cache = fs::read_to_string(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let value = |name: &str| {
        let line = cache.lines().find(|l| l.starts_with(&format!("{name}:")))?;
        line.split_once('=').map(|(_, v)| v.to_string())
    };
    if value("GGML_OPENMP_ENABLED").is_some_and(|v| v == "ON") {
        for name in value("OpenMP_C_LIB_NAMES")
            .unwrap_or_default()
            .split(';')
            .filter(|n| !n.is_empty() && *n != "pthread")
        {
            if let Some(dir) = value(&format!("OpenMP_{name}_LIBRARY"))
                .map(PathBuf::from)
                .and_then(|p| p.parent().map(Path::to_owned))
            {
                println!("cargo::rustc-link-search=native={}", dir.display());
            }
            libraries.push(name.to_string());
        }
    }
    if value("LLAMA_OPENSSL").is_some_and(|v| v == "ON") {
        let ssl = value("OPENSSL_SSL_LIBRARY").map(PathBuf::from).unwrap_or_default();
        if let Some(dir) = ssl.parent() {
            println!("cargo::rustc-link-search=native={}", dir.display());
        }
        libraries.extend(["ssl", "crypto"].map(String::from));
    } else {
        println!(
            "cargo::warning=no headers of OpenSSL 3 (Debian: libssl-dev): the tools are without HTTPS, \
             -hf and https: URLs will fail"
        );
    }
    if cfg!(target_os = "macos") {
        libraries.extend(["c++", "framework=Accelerate", "framework=Foundation"].map(String::from));
    } else if cfg!(unix) {
        libraries.extend(["stdc++", "pthread", "dl", "m"].map(String::from));
    }
    Ok(libraries)
}

fn archives(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(archives(&path)?);
        } else if path.extension().is_some_and(|e| e == "a" || e == "lib") {
            found.push(path);
        }
    }
    Ok(found)
}
