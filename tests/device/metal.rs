//! Metal sources to C++ for tests/device/metal/metal_stdlib.
//!
//! Includes are put in place, as the Metal back end does where it compiles from source. Then what
//! C++ cannot say is rewritten: attributes of arguments, function constants, and the names under
//! which instances of kernels are found.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The source with its quoted includes in place, each once.
pub fn flatten(file: &Path, folders: &[PathBuf]) -> String {
    fn add(out: &mut String, file: &Path, folders: &[PathBuf], seen: &mut Vec<PathBuf>) {
        if seen.iter().any(|f| f == file) {
            return;
        }
        seen.push(file.into());
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for line in text.lines() {
            if line.trim() == "#pragma once" {
                continue;
            }
            let include = line.trim().strip_prefix("#include \"").and_then(|l| l.split_once('"'));
            match include {
                Some((name, _)) => {
                    let found = folders.iter().map(|f| f.join(name)).find(|f| f.is_file());
                    let found =
                        found.unwrap_or_else(|| panic!("{}: {name} is missing", file.display()));
                    add(out, &found, folders, seen);
                }
                None => writeln!(out, "{line}").expect("a string"),
            }
        }
    }
    let mut out = String::new();
    add(&mut out, file, folders, &mut Vec::new());
    out
}

/// The C++ of a flattened source, with those of its kernels that are wanted.
pub fn translate(source: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut out = String::from("#include <metal_stdlib>\n");
    let mut calls: HashMap<&str, String> = HashMap::new();
    let mut plain: Vec<&str> = Vec::new();
    let mut entries = 0;
    let mut entry = |out: &mut String, name: &str, function: &str, arguments: &str| {
        writeln!(
            out,
            "static const fibers::kernel_entry entry_{entries}(\"{name}\", [] {{ {function}({arguments}); }});"
        )
        .expect("a string");
        entries += 1;
    };

    let mut rest = source;
    let mut before = "";
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |i| i + 1);
        let line = &rest[..end];
        if let Some(signature) = line.strip_prefix("kernel void ") {
            let (name, _) = signature.split_once('(').expect("a kernel has arguments");
            let open = "kernel void ".len() + name.len();
            let close = open + closing(&rest[open..]);
            let (parameters, arguments) = parameters(&rest[open + 1..close]);
            writeln!(out, "static void {name}({parameters})").expect("a string");
            calls.insert(name, arguments);
            if !before.trim_end().ends_with('>') {
                plain.push(name);
            }
            rest = &rest[close + 1..];
        } else if let Some(instance) = line.strip_prefix("template [[host_name(\"") {
            let (name, instance) = instance.split_once('"').expect("a name");
            let (_, instance) = instance.split_once(")]]").expect("the attribute's end");
            if wanted(name) {
                let instance = instance.trim().strip_prefix("kernel ").expect("a kernel");
                let (_, function) = instance.split_once(' ').expect("a type");
                let function = function.trim().trim_end_matches(';');
                let template = function.split('<').next().unwrap_or(function);
                entry(&mut out, name, function, &calls[template]);
            }
            rest = &rest[end..];
        } else if let Some((declared, index)) = line.split_once("[[function_constant(")
            && declared.starts_with("constant ")
        {
            let index = index.rsplit_once(")]]").expect("an index").0;
            let mut words = declared.split_whitespace().skip(1);
            let (kind, name) = (words.next().expect("a type"), words.next().expect("a name"));
            writeln!(out, "static {kind} {name}; static const fibers::function_constant {name}_entry({index}, &{name}, sizeof({name}));").expect("a string");
            rest = &rest[end..];
        } else {
            // Unrolled loops are slow to compile, and no faster here.
            if !line.trim_start().starts_with("#pragma unroll") {
                let line = line.replace("_Pragma(\"clang loop unroll(full)\")", "");
                out.push_str(&divisors(&line));
            }
            rest = &rest[end..];
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    for name in plain {
        if wanted(name) {
            entry(&mut out, name, name, &calls[name]);
        }
    }
    out
}

/// Remainders by a kernel's arguments, of which upstream's kernels take some by 0 where there is no
/// mask: a GPU goes on, and the result is not used.
fn divisors(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("%args.") {
        let name = &rest[at + "%".len()..];
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
        let (name, tail) = name.split_at(end.unwrap_or(name.len()));
        out += &format!("{}%metal::divisor({name})", &rest[..at]);
        rest = tail;
    }
    out + rest
}

/// Where the parenthesis with which the text begins is closed.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    panic!("no closing parenthesis: {}", text.lines().next().unwrap_or_default());
}

/// The parameters without attributes, and the arguments for them.
fn parameters(text: &str) -> (String, String) {
    let mut parameters = Vec::new();
    let mut arguments = Vec::new();
    let mut buffer = 0;
    for parameter in text.split(',') {
        let (plain, attribute) = match parameter.split_once("[[") {
            Some((plain, attribute)) => (plain.trim(), attribute.trim().strip_suffix("]]")),
            None => (parameter.trim(), None),
        };
        let name = plain.rsplit([' ', '&', '*']).next().unwrap_or_default();
        let kind = plain[..plain.len() - name.len()].trim();
        arguments.push(match attribute {
            Some(a) if a.starts_with("threadgroup(") => {
                format!("({kind}) fibers::current().shared")
            }
            Some(a) => format!("metal::{a}<{kind}>()"),
            None => {
                buffer += 1;
                let at = format!("fibers::current().buffers[{}]", buffer - 1);
                match kind.strip_suffix('&') {
                    Some(of) => format!("*({of} *) {at}"),
                    None => format!("({kind}) {at}"),
                }
            }
        });
        parameters.push(plain);
    }
    (parameters.join(", "), arguments.join(", "))
}
