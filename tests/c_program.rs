//! A C program on libturboquant.a: the archive that users build holds the public C ABI and nothing of
//! llama.cpp, the header is clean C11 and C++17, and examples/c/rows.c compiles, links and runs.
//!
//! Needs a C and a C++ compiler (`CC`, `CXX`, else `cc` and `c++`) and `nm`.
#![cfg(all(feature = "capi", unix))]

#[path = "common/archive.rs"]
mod archive;
mod format_page;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use archive::archive;
use format_page::{PAGE, example_bytes, example_values, levels_on_page};
use llama_turboquant::codec::TurboType;

const STRICT: [&str; 7] =
    ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wcast-qual", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn compiler(variable: &str, default: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| OsString::from(default)))
}

/// Runs a command to its end; its stdout. A failure shows everything it said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/turboquant.h")).expect("the header");
    let code = header.lines().filter(|line| !line.starts_with("//"));
    let names = code.filter_map(|line| line.split_once('(').map(|(before, _)| before));
    let names = names.filter_map(|before| before.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("tq_")).map(str::to_owned).collect()
}

#[test]
fn the_archive_holds_the_c_abi_and_nothing_of_llama_cpp() {
    let listing = run(Command::new("nm").args(["-g", "-P"]).arg(archive()));
    let symbols = listing.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        // macOS puts an underscore before C names.
        let name = fields.next()?;
        Some((
            name.strip_prefix('_').filter(|name| !name.starts_with('_')).unwrap_or(name),
            fields.next()?,
        ))
    });
    let mut defined = BTreeSet::new();
    for (name, kind) in symbols {
        assert!(!name.starts_with("ggml_") && !name.starts_with("llama_"), "{name} in the archive");
        if kind == "T" {
            defined.insert(name.to_owned());
        }
    }
    let declared = declared();
    assert!(declared.len() >= 9, "the header declares {declared:?}");
    let missing: Vec<_> = declared.difference(&defined).collect();
    assert!(missing.is_empty(), "declared but not in the archive: {missing:?}");
}

#[test]
fn the_header_is_clean_c11_and_cpp17() {
    let header = root().join("include/turboquant.h");
    run(compiler("CC", "cc")
        .args(["-std=c11", "-fsyntax-only", "-x", "c"])
        .args(STRICT)
        .arg(&header));
    run(compiler("CXX", "c++")
        .args(["-std=c++17", "-fsyntax-only", "-x", "c++"])
        .args(STRICT)
        .arg(&header));
}

/// examples/c/rows.c as a program called `name`.
fn example(name: &str, variable: &str, default: &str, language: [&str; 2]) -> PathBuf {
    let program = scratch(name);
    run(compiler(variable, default)
        .args(["-O1", "-I"])
        .arg(root().join("include"))
        .args(STRICT)
        .args(language)
        .arg(root().join("examples/c/rows.c"))
        .arg("-xnone")
        .arg(archive())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program));
    program
}

#[test]
fn the_c_example_compiles_links_and_runs_as_c_and_as_cpp() {
    for program in [
        example("rows-c", "CC", "cc", ["-std=c11", "-xc"]),
        example("rows-cpp", "CXX", "c++", ["-std=c++17", "-xc++"]),
    ] {
        check_output(&run(&mut Command::new(program)));
    }
}

#[test]
fn a_simd_that_the_processor_lacks_is_refused() {
    let output = Command::new(example("rows-refused", "CC", "cc", ["-std=c11", "-xc"]))
        .env("TQ_SIMD", "abacus")
        .output()
        .expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: TQ_SIMD=abacus is not possible here: use one of "), "{stderr}");
}

/// The page's decoder in C, with the page's tables, on the page's blocks.
#[test]
fn the_decoder_in_the_format_page_decodes_its_examples() {
    let decoder = PAGE.split("```c\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut source = decoder.expect("a decoder in C in docs/format.md").to_owned();
    source += "#include <stdio.h>\nint main(void) {\n    float value[64];\n";
    for ty in TurboType::ALL {
        let list = |items: Vec<String>| items.join(", ");
        let levels = list(levels_on_page(ty).iter().map(i8::to_string).collect());
        let bytes = example_bytes(ty);
        let scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
        let block = list(bytes.iter().map(u8::to_string).collect());
        source += &format!(
            "    {{\n        const int8_t levels[] = {{{levels}}};\n        \
             const uint8_t block[] = {{{block}}};\n        \
             decode_block({}, levels, (float) {scale:?}, block, value);\n    }}\n    \
             for (int e = 0; e < 64; e++) printf(\"%.9g\\n\", value[e]);\n",
            ty.index_bits()
        );
    }
    let (file, program) = (scratch("format.c"), scratch("format"));
    std::fs::write(&file, source + "    return 0;\n}\n").expect("writing the decoder");
    run(compiler("CC", "cc")
        .args(["-std=c11", "-Wall", "-Werror"])
        .arg(&file)
        .arg("-o")
        .arg(&program));

    let output = run(&mut Command::new(&program));
    let decoded: Vec<f32> = output.lines().map(|line| line.parse().expect("a float")).collect();
    let values: Vec<f32> = TurboType::ALL.into_iter().flat_map(example_values).collect();
    assert_eq!(decoded, values);
}

/// The program's lines: a rate and an error for each type, the counter, and every kind of misuse.
fn check_output(output: &str) {
    for (ty, bits, error) in
        [("turbo2", "2.25", 0.0852), ("turbo3", "3.25", 0.0200), ("turbo4", "4.25", 0.0052)]
    {
        let start = format!("{ty}: {bits} bits per value, relative error ");
        let rest = output.lines().find_map(|line| line.strip_prefix(&start));
        let rest = rest.unwrap_or_else(|| panic!("no line `{start}` in\n{output}"));
        let (measured, rest) = rest.split_once(',').expect("a comma after the error");
        let measured: f64 = measured.parse().expect("an error");
        assert!(measured > 0.9 * 0.0039 && measured < error, "{ty}: {measured}");
        assert_eq!(rest, " 0 values not finite");
    }
    for part in [
        "turbo4: 2 values not finite, every value decodes to a finite one",
        "type 9 is unknown: use TQ_TURBO2 (2), TQ_TURBO3 (3) or TQ_TURBO4 (4)",
        "row length 80 is not a multiple of 64: pad the row to 128 values",
        "row_bytes is null, but 1 values",
        "x is null, but 64 values",
        "dst is null, but 26 values",
        "dst has 51 bytes, but the rows take 52",
        "src has 25 bytes, but the rows take 26",
        "do not fit the address space",
        "x is at address 0x",
    ] {
        assert!(output.contains(part), "no `{part}` in\n{output}");
    }
}
