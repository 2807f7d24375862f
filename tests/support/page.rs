//! docs/support.md as it has to be.

use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType;

use super::coverage::{
    CPU_ATTENTION_HEAD_DIMS, CPU_ATTENTION_TYPES, DEVICE_ATTENTION_HEAD_DIMS,
    DEVICE_ATTENTION_TYPES,
};

/// Where it is.
pub const PATH: &str = "docs/support.md";

/// An operator of a back end.
struct Row {
    back_end: &'static str,
    operator: &'static str,
    types: String,
    head_dims: String,
    checked: &'static str,
}

/// Of what script/test-vulkan runs.
const VULKAN_HEADS: &str = "run: llvmpipe, every pair at 64, turbo4/turbo2 at 128";

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn rows() -> Vec<Row> {
    let turbo = || list(TurboType::ALL.map(TurboType::name));
    let pairs =
        |types: &[KvType]| format!("every pair of {}", list(types.iter().map(|ty| ty.name())));
    let any = || "any multiple of 64".to_owned();
    let row = |back_end, operator, types, head_dims, checked| Row {
        back_end,
        operator,
        types,
        head_dims,
        checked,
    };
    vec![
        row(
            "CPU",
            "set_rows, get_rows, copies",
            turbo(),
            any(),
            "run: AVX2; emulated: AVX-512, NEON",
        ),
        row(
            "CPU",
            "flash attention, with anchors",
            pairs(&CPU_ATTENTION_TYPES),
            list(CPU_ATTENTION_HEAD_DIMS),
            "run: AVX2; emulated: AVX-512, NEON",
        ),
        row(
            "CPU",
            "flash attention, with anchors",
            "turbo with any other of ggml's types".to_owned(),
            any(),
            "run: ggml's own, row by row",
        ),
        row("CUDA", "set_rows, get_rows, copies", turbo(), any(), "emulated, compiled"),
        row(
            "CUDA",
            "flash attention of up to 32 queries to a KV head, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES) + " with a turbo type in it",
            list(DEVICE_ATTENTION_HEAD_DIMS),
            "emulated, compiled",
        ),
        row(
            "CUDA",
            "flash attention by conversion to f16, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES),
            "those of ggml's f16 attention".to_owned(),
            "conversion: emulated, compiled",
        ),
        row("Metal", "set_rows, get_rows, copies", turbo(), any(), "emulated"),
        row(
            "Metal",
            "flash attention of up to 19 queries, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES),
            list(DEVICE_ATTENTION_HEAD_DIMS),
            "emulated",
        ),
        row(
            "Metal",
            "flash attention by conversion to f16, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES),
            "those of ggml's f16 attention".to_owned(),
            "emulated",
        ),
        row("Vulkan", "set_rows, get_rows, copies", turbo(), any(), "run: llvmpipe"),
        row(
            "Vulkan",
            "flash attention of up to 32 queries to a KV head, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES) + " with a turbo type in it",
            "those of ggml's scalar attention, multiples of 64".to_owned(),
            VULKAN_HEADS,
        ),
        row(
            "Vulkan",
            "flash attention by conversion to f16, with anchors",
            pairs(&DEVICE_ATTENTION_TYPES),
            "those of ggml's f16 attention".to_owned(),
            "run: llvmpipe, at 64",
        ),
    ]
}

/// The whole page.
pub fn page() -> String {
    let mut text = "\
# What runs where, and how that was checked

<!-- written by `cargo run --no-default-features --example support_doc`; tests/support_doc.rs fails where it is stale -->

| back end | operator | types | head_dim | checked |
|---|---|---|---|---|
"
    .to_owned();
    for Row { back_end, operator, types, head_dims, checked } in rows() {
        text += &format!("| {back_end} | {operator} | {types} | {head_dims} | {checked} |\n");
    }
    text += "
Types and sizes are those that the tests run over (tests/support/coverage.rs).

- *run*: on such a device, against the Rust core or an oracle in f64.
- *emulated*: the code that devices run, on another machine: for AVX-512 and NEON the instructions, under an emulator; for
  CUDA and Metal the sources, compiled for the host, thread by thread, with what threads exchange (docs/cuda.md,
  docs/metal.md). Not how fast it is, and not what only the device's compiler and memory do.
- *llvmpipe*: Mesa's Vulkan driver for the processor, which compiles and runs the shaders as a GPU's driver does
  (docs/vulkan.md). Cooperative matrices, which it has not, are upstream's alone.
- *compiled*: by the device's compiler, without warnings and without spilled registers.

No back end but the CPU's has run on a GPU yet: none was at hand. An operator that a back end lacks runs on the CPU, with
copies in between: true, and slow. Where K has anchors and a device's flash attention does not know of them, anchors are off,
and the log says so.
";
    text
}
