//! Regenerates the checked-in bindings from the edited llama.h (feature `bindgen`, needs libclang).

use std::path::Path;

use super::Result;

/// Writes src/llama/sys/bindings.rs.
pub fn generate(root: &Path, src: &Path) -> Result<()> {
    let to = root.join("src/llama/sys/bindings.rs");
    let rust = bindgen::RustTarget::stable(89, 0).map_err(|e| format!("bindgen: {e}"))?;
    let bindings = bindgen::Builder::default()
        .header(src.join("include/llama.h").to_string_lossy())
        .clang_args([
            format!("-I{}", src.join("include").display()),
            format!("-I{}", src.join("ggml/include").display()),
        ])
        .allowlist_function("llama_.*")
        .allowlist_type("llama_.*")
        .allowlist_var("LLAMA_.*")
        .allowlist_function("ggml_backend_load_all|ggml_backend_dev_.*|ggml_backend_reg_name")
        .allowlist_function("ggml_type_name|ggml_type_size|ggml_blck_size|ggml_row_size|ggml_log_set")
        .allowlist_type("ggml_type|ggml_log_level|ggml_log_callback")
        // FILE differs between systems, and nothing of ours takes it.
        .blocklist_function("llama_.*_from_file_ptr")
        .blocklist_type("_IO_.*|FILE|__off.*_t")
        .opaque_type("ggml_tensor|ggml_cgraph|ggml_context")
        .newtype_enum("ggml_type")
        .prepend_enum_name(false)
        .derive_default(false)
        .layout_tests(true)
        .rust_target(rust)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .raw_line("// Generated from llama.h by `cargo build --features bindgen`; do not edit.")
        .generate()
        .map_err(|e| format!("bindgen: {e} (is libclang installed? set LIBCLANG_PATH, e.g. to PyPI libclang's clang/native)"))?;
    bindings.write_to_file(&to).map_err(|e| format!("{}: {e}", to.display()))
}
