//! What of upstream no anchor sees: numbers that ours must not share, and switches over types that ours have to be in or
//! can be left out of. Of the sources of all pins; vendor/README.md says what to do about a failure.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::build::edit;
use super::build::env::Env;
use super::build::{fetch, overlay};
use super::pins;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The source of a pin, and what becomes of it.
struct Source {
    pin: String,
    dir: PathBuf,
    plan: edit::Plan,
    _lock: fetch::Source,
}

impl Source {
    fn upstream(&self, file: &str) -> String {
        let path = self.dir.join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn edited(&self, file: &str) -> String {
        let change = self.plan.changes.iter().find(|change| change.file == file);
        change.map_or_else(
            || self.upstream(file),
            |change| String::from_utf8(change.new.clone()).unwrap(),
        )
    }

    /// The files below a folder whose names end so.
    fn files(&self, folder: &str, ends: &[&str]) -> Vec<String> {
        let (mut todo, mut found) = (vec![self.dir.join(folder)], Vec::new());
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                    let name = path.strip_prefix(&self.dir).unwrap();
                    found.push(name.to_string_lossy().replace('\\', "/"));
                }
            }
        }
        found.sort();
        found
    }
}

fn sources() -> Vec<Source> {
    let env = Env { root: ROOT.into(), ..Env::from_process().unwrap() };
    let edits = overlay::read(&env.root).unwrap();
    let ext = env.root.join(overlay::FOLDER);
    let source = |pin: &super::Pin| {
        let env = Env { llama_src: None, llama_sdist: None, ..env.clone() };
        let source = fetch::source(&env, pin).unwrap();
        let plan = edit::plan(&source.dir, &edits, &[&pin.name], &|from| fs::read(ext.join(from)));
        let (pin, dir) = (pin.name.clone(), source.dir.clone());
        Source { pin, dir, plan: plan.unwrap(), _lock: source }
    };
    pins().all().map(source).collect()
}

/// The numbers that stand behind `prefix`.
fn numbers(text: &str, prefix: &str) -> BTreeSet<u32> {
    let of = |(at, _): (usize, &str)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    text.match_indices(prefix).filter_map(of).collect()
}

/// From a line that begins with `head` to the next that begins with a brace. Panics: there is none.
fn function<'a>(text: &'a str, head: &str) -> &'a str {
    let from = text.find(&format!("\n{head}")).unwrap_or_else(|| panic!("there is no {head}"));
    let end = text[from..].find("\n}").unwrap_or_else(|| panic!("{head} does not end"));
    &text[from..from + end]
}

/// Function constants, buffers, flags and operands that we have taken are free upstream, and are ours.
#[test]
fn numbers_of_ours_are_free_upstream() {
    for source in sources() {
        let pin = &source.pin;
        for (what, files, prefix, ours) in [
            (
                "function constants of Metal's flash attention",
                source.files("ggml/src/ggml-metal", &[".metal", ".cpp"]),
                "FC_FLASH_ATTN_EXT_VEC + ",
                6,
            ),
            (
                "flags of Vulkan's flash attention",
                source.files("ggml/src/ggml-vulkan/vulkan-shaders", &[".glsl", ".comp"]),
                "(Flags & ",
                32,
            ),
        ] {
            let mut theirs = BTreeSet::new();
            for file in &files {
                theirs.extend(numbers(&source.upstream(file), prefix));
            }
            assert!(!theirs.is_empty(), "{pin}: {what}: there is no {prefix:?}");
            assert!(!theirs.contains(&ours), "{pin}: {what}: upstream has {ours}, too: {theirs:?}");
            let texts = source.plan.changes.iter().map(|c| String::from_utf8_lossy(&c.new));
            let used = texts.into_iter().any(|text| numbers(&text, prefix).contains(&ours));
            assert!(used, "{pin}: {what}: {ours} is not ours any more");
        }

        // Of upstream's functions that make the operator, add sinks, or set its precision.
        let ggml = source.upstream("ggml/src/ggml.c");
        for head in
            ["struct ggml_tensor * ggml_flash_attn_ext(", "void ggml_flash_attn_ext_add_sinks("]
        {
            let theirs = numbers(function(&ggml, head), "src[");
            let last = theirs.last().copied().unwrap_or_default();
            assert!(last < 5, "{pin}: {head}: upstream takes src[{last}]: ours are 5 and 6");
        }

        // The parameters of the kernel for few queries: ours are behind the last of upstream's, number 8.
        let kernel = source.upstream("ggml/src/ggml-metal/kernels/fa_vec_common.metal");
        let kernel = &kernel[kernel.find("kernel void kernel_flash_attn_ext_vec(").unwrap()..];
        let kernel = &kernel[..kernel.find("[[threadgroup(0)]]").unwrap()];
        let buffers = kernel.lines().filter(|l| l.contains("device ") || l.contains("constant "));
        assert_eq!(buffers.count(), 9, "{pin}: ours are 9, 10 and 11: {kernel}");

        let ops = source.upstream("ggml/src/ggml-metal/ggml-metal-ops.cpp");
        let ops = function(&ops, "int ggml_metal_op_flash_attn_ext(");
        let place = |line: &str| {
            line.trim_end().strip_suffix(");")?.rsplit(", ").next()?.trim().parse().ok()
        };
        let set = |line: &&str| {
            line.contains("_encoder_set_buffer") || line.contains("_encoder_set_bytes")
        };
        let places: BTreeSet<u32> = ops.lines().filter(set).filter_map(place).collect();
        // Ours are bound at the function's beginning, and are to stay.
        assert_eq!(places.last(), Some(&8), "{pin}: ours are 9, 10 and 11: {places:?}");
        // Of the memory behind the result, ours takes what upstream has for K and V as f16.
        let mut rest = ops;
        for (name, before, size) in [
            ("pad", "dst", "nbytes"),
            ("blk", "pad", "extra_pad"),
            ("tmp", "blk", "extra_blk"),
            ("kv_f16", "tmp", "extra_tmp"),
        ] {
            let line = format!("ggml_metal_buffer_id bid_{name} = bid_{before};");
            let at = rest.find(&line).unwrap_or_else(|| panic!("{pin}: there is no {line}"));
            rest = &rest[at + line.len()..];
            let next = rest.lines().nth(1).unwrap_or_default();
            assert!(
                next.contains(&format!("bid_{name}.offs += "))
                    && next.contains(&format!("{size}(op)")),
                "{pin}: what is behind the result is laid out in another way: {next}"
            );
        }
    }
}

/// Ids of types are in files, and ours are far above upstream's.
#[test]
fn ids_of_types_are_free_upstream() {
    for source in sources() {
        let text = source.upstream("ggml/include/ggml.h");
        let count = *numbers(&text, "GGML_TYPE_COUNT   = ").first().expect("the number of types");
        assert!(count < 120, "{}: upstream has {count} types: ours are 120, 121, 122", source.pin);
        let taken = text.lines().map(str::trim).filter(|l| l.starts_with("GGML_TYPE_"));
        let taken: Vec<_> = taken.flat_map(|line| numbers(line, "= ")).collect();
        assert!(taken.iter().all(|id| *id <= count), "{}: {taken:?}", source.pin);
    }
}

/// What is to be done about a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    /// Ours are in it.
    Edited,
    /// It need not know them.
    Without(&'static str),
}
use Switch::{Edited, Without};

/// Every switch that lists types of blocks, in the library, the CPU back end and the programs. Other back ends ask first
/// whether an operator is ours.
const SWITCHES: &[(&str, &str, Switch)] = &[
    ("ggml/src/ggml-quants.c", "ggml_validate_row_data", Edited),
    ("ggml/src/ggml.c", "ggml_quantize_chunk", Edited),
    ("ggml/src/ggml.c", "ggml_quantize_init", Without("types that need tables")),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_acc", Without("all types of blocks abort")),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_add", Edited),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_add1", Edited),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_clamp", Edited),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_get_rows", Edited),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_out_prod", Edited),
    ("ggml/src/ggml-cpu/ops.cpp", "ggml_compute_forward_set", Without("all types of blocks abort")),
    (
        "src/llama-model-loader.cpp",
        "llama_model_loader",
        Without("what weights are; a cache's types are none"),
    ),
    ("src/llama-quant.cpp", "tensor_requires_imatrix", Without("what weights are quantized to")),
    ("src/llama-quant.cpp", "tensor_type_fallback", Without("what weights are quantized to")),
];

/// Comments, strings and characters become blanks, so that braces are what they look like.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let blank = |out: &mut String, what: &str| {
        out.extend(what.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    };
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if c == '"' || (c == '\'' && !out.ends_with(|c: char| c.is_ascii_alphanumeric())) {
            let mut escaped = true; // the quote itself
            let end = rest.char_indices().find(|(_, d)| {
                let ends = !escaped && (*d == c || *d == '\n');
                escaped = !escaped && *d == '\\';
                ends
            });
            end.map_or(rest.len(), |(at, d)| at + d.len_utf8())
        } else {
            0
        };
        if len == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            blank(&mut out, &rest[..len]);
            rest = &rest[len..];
        }
    }
    out
}

/// (line, function, body) of every switch that lists types of blocks. Of one within another, the inner is the outer's.
fn switches(text: &str) -> Vec<(usize, String, String)> {
    let text = code(text);
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find("switch (").map(|at| from + at) {
        let open = at + text[at..].find('{').expect("a body");
        let mut depth = 0;
        let close = text[open..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let body = &text[open..open + close.expect("its end")];
        from = at + 1;
        let blocks = |(i, case): (usize, &str)| {
            let name = &body[i + case.len()..];
            let name = name.strip_prefix('I').or(name.strip_prefix('T')).unwrap_or(name);
            name.starts_with('Q') || name.starts_with("MXFP") || name.starts_with("NVFP")
        };
        if body.match_indices("case GGML_TYPE_").any(blocks) {
            let heads = text[..at].lines().rev().filter(|l| {
                l.starts_with(|c: char| c.is_ascii_alphabetic())
                    && l.contains('(')
                    && !l.contains(';')
            });
            let head = heads.take(1).next().unwrap_or_default();
            let name = head[..head.find('(').unwrap_or(0)].trim_end();
            let name = name.rsplit([' ', ':', '*']).next().unwrap_or(name);
            let line = text[..at].matches('\n').count() + 1;
            found.push((line, name.to_owned(), body.to_owned()));
            from = open + body.len();
        }
    }
    found
}

#[test]
fn switches_are_found() {
    let text = "static int f(int type) { // switch (\n    switch (type) {\n        case GGML_TYPE_F32: return '{';\n    }\n}\n\
                void a::g(\n        int type) {\n    const char * s = \"{ \\\" }\";\n    switch (type) {\n        case GGML_TYPE_IQ4_NL: {\n        } break;\n    }\n}\n";
    let found = switches(text);
    let found: Vec<_> = found.iter().map(|(line, name, _)| (*line, name.as_str())).collect();
    assert_eq!(found, [(9, "g")]);
}

/// A new one, or one that is gone, is told with its file and line.
#[test]
fn every_switch_over_types_is_known() {
    for source in sources() {
        // Below ggml's folders are other back ends, and kernels that take what they list.
        let mut files = Vec::new();
        for folder in ["ggml/src", "ggml/src/ggml-cpu"] {
            let mut found = source.files(folder, &[".c", ".cpp", ".h"]);
            found.retain(|file| Path::new(file).parent() == Some(Path::new(folder)));
            files.append(&mut found);
        }
        for folder in ["src", "common", "tools"] {
            files.append(&mut source.files(folder, &[".c", ".cpp", ".h"]));
        }
        let mut missing: Vec<_> = SWITCHES.to_vec();
        let mut wrong = Vec::new();
        for file in files {
            for (line, name, _) in switches(&source.upstream(&file)) {
                let is = |known: &(&str, &str, Switch)| known.0 == file && known.1 == name;
                match missing.iter().position(is) {
                    Some(at) => {
                        let (_, _, what) = missing.remove(at);
                        let edited = switches(&source.edited(&file));
                        let ours = |(_, other, body): &(usize, String, String)| {
                            *other == name
                                && (body.contains("GGML_TURBO_CASES")
                                    || body.contains("GGML_TYPE_TURBO"))
                        };
                        if edited.iter().any(ours) != (what == Edited) {
                            wrong.push(format!("{file}:{line}: {name}: is not {what:?}"));
                        }
                    }
                    None => wrong.push(format!("{file}:{line}: {name}: is new")),
                }
            }
        }
        wrong.extend(missing.iter().map(|(file, name, _)| format!("{file}: {name}: is gone")));
        assert!(wrong.is_empty(), "{}: switches over types:\n{}", source.pin, wrong.join("\n"));
    }
}
