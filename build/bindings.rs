//! Regenerates the checked-in bindings from the edited llama.h and from turbo-api.h (feature `bindgen`, needs libclang).

use std::path::Path;

use bindgen::{Builder, RustEdition, RustTarget};

use super::Result;
use super::pin::Pin;

/// Writes src/llama/sys/fence.rs, and src/llama/sys/bindings_NAME.rs of the pin.
pub fn generate(root: &Path, pin: &Pin, src: &Path) -> Result<()> {
    let to = |name: &str| root.join("src/llama/sys").join(name);
    let llama = builder(src, &src.join("include/llama.h"))?
        .header(src.join("include/llama-kv-calib.h").to_string_lossy())
        .allowlist_function("llama_.*")
        .allowlist_type("llama_.*")
        .allowlist_var("LLAMA_.*")
        .allowlist_function("ggml_backend_load_all|ggml_backend_dev_.*|ggml_backend_reg_name")
        .allowlist_function(
            "ggml_type_name|ggml_type_size|ggml_blck_size|ggml_row_size|ggml_log_set",
        )
        .allowlist_type("ggml_type|ggml_log_level|ggml_log_callback")
        // FILE differs between systems, and nothing of ours takes it.
        .blocklist_function("llama_.*_from_file_ptr")
        .blocklist_type("_IO_.*|FILE|__off.*_t")
        .opaque_type("ggml_tensor|ggml_cgraph|ggml_context")
        .newtype_enum("ggml_type")
        .raw_line("// Generated from llama.h and llama-kv-calib.h by `cargo build --features bindgen`; do not edit.");
    write(llama, &to(&format!("bindings_{}.rs", pin.name)))?;
    let fence = builder(src, &root.join("ggml-ext/tools/turboquant/turbo-api.h"))?
        .allowlist_function("tq_.*")
        .allowlist_type("tq_.*")
        .allowlist_recursively(false)
        .derive_default(true)
        .raw_line("// Generated from ggml-ext/tools/turboquant/turbo-api.h by `cargo build --features bindgen`; do not edit.")
        .raw_line("use super::*;");
    write(fence, &to("fence.rs"))
}

fn builder(src: &Path, header: &Path) -> Result<Builder> {
    Ok(Builder::default()
        .header(header.to_string_lossy())
        .clang_args([
            format!("-I{}", src.join("include").display()),
            format!("-I{}", src.join("ggml/include").display()),
        ])
        .prepend_enum_name(false)
        .derive_default(false)
        .layout_tests(true)
        .rust_target(RustTarget::stable(89, 0).map_err(|e| format!("bindgen: {e}"))?)
        .rust_edition(RustEdition::Edition2024))
}

fn write(builder: Builder, to: &Path) -> Result<()> {
    let bindings = builder.generate().map_err(|e| {
        format!("bindgen: {e} (is libclang installed? set LIBCLANG_PATH, e.g. to PyPI libclang's clang/native)")
    })?;
    bindings.write_to_file(to).map_err(|e| format!("{}: {e}", to.display()))
}
