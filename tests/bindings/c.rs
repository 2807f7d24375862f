//! What a C header declares, as bindgen writes it: enough of C for llama.h.

use super::Declarations;

/// Without comments and lines of the preprocessor.
fn code(header: &str) -> String {
    let mut text = String::new();
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        text += &rest[..start];
        rest = rest[start..].split_once("*/").map_or("", |(_, after)| after);
    }
    text += rest;
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The functions of a prefix, the structs and the enumerators.
pub fn declarations(header: &str, prefix: &str) -> Declarations {
    let code = code(header);
    let mut all = Declarations::default();
    for statement in code.split([';', '{', '}']) {
        // DEPRECATED(LLAMA_API ..., "what to use instead"), or the other way round
        let mut statement = statement.trim();
        for _ in 0..2 {
            statement = statement.trim_start_matches("DEPRECATED(").trim();
            statement = statement.trim_start_matches("LLAMA_API").trim();
        }
        let Some((head, parameters)) = statement.split_once('(') else { continue };
        let (result, name) = variable(head);
        if !name.starts_with(prefix) || result.is_empty() || head.contains("typedef") {
            continue;
        }
        let parameters = &parameters[..super::closing(parameters)];
        let parameters = super::split(parameters, ',').into_iter().map(variable);
        let parameters = parameters.filter(|(t, name)| !(name == "void" && t.is_empty()));
        all.functions.insert(name, (parameters.map(|(t, n)| (n, t)).collect(), result));
    }
    for (start, _) in code.match_indices("struct ") {
        let Some((name, body)) = code[start + "struct ".len()..].split_once('{') else { continue };
        let name = name.trim();
        let body = &body[..super::closing(body)];
        // bindgen has names of its own for what is in unions.
        if name.chars().all(|c| c.is_alphanumeric() || c == '_') && !body.contains(['{', '(']) {
            let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
            let fields = fields.map(variable).map(|(t, name)| (name, t)).collect();
            all.structs.insert(name.into(), fields);
        }
    }
    for (start, _) in code.match_indices("enum ") {
        let Some((name, body)) = code[start..].split_once('{') else { continue };
        if name.contains([';', '(', ')', ',']) {
            continue;
        }
        let mut next = Some(0);
        for item in body[..super::closing(body)].split(',') {
            let (name, value) = item.split_once('=').map_or((item, None), |(n, v)| (n, Some(v)));
            let value = match value {
                Some(value) => value.trim().parse::<i64>().ok(),
                None => next,
            };
            next = value.map(|value| value + 1);
            if let Some(value) = value.filter(|_| !name.trim().is_empty()) {
                all.constants.insert(name.trim().into(), value);
            }
        }
    }
    all
}

/// The type and the name in `const char * path`. What Rust reserves gets an underscore.
fn variable(text: &str) -> (String, String) {
    let text = text.trim();
    let (text, array) = text.split_once('[').map_or((text, None), |(text, n)| (text, Some(n)));
    let end = text.rfind([' ', '*', '\n', '\t']).map_or(0, |at| at + 1);
    let (t, name) = text.split_at(end);
    let name =
        if ["type", "str", "pure"].contains(&name) { format!("{name}_") } else { name.into() };
    let t = type_of(t);
    let t = match array.and_then(|n| n.split(']').next()) {
        Some(n) => format!("[{t}; {n}usize]"),
        None => t,
    };
    (t, name)
}

/// `const char *` is `*const ::std::os::raw::c_char`.
fn type_of(text: &str) -> String {
    let spaced = text.replace('*', " * ");
    let (mut result, mut is_const) = (String::new(), false);
    for word in spaced.split_whitespace() {
        match word {
            "const" => is_const = true,
            "struct" | "enum" | "LLAMA_API" => (),
            "*" => {
                result = format!("{}{result}", if is_const { "*const " } else { "*mut " });
                is_const = false;
            }
            word => result = primitive(word).into(),
        }
    }
    if result == "void" { String::from("()") } else { result.replace("void", primitive("c_void")) }
}

fn primitive(name: &str) -> &str {
    match name {
        "int8_t" => "i8",
        "int32_t" => "i32",
        "int64_t" => "i64",
        "uint8_t" => "u8",
        "uint16_t" => "u16",
        "uint32_t" => "u32",
        "uint64_t" => "u64",
        "size_t" => "usize",
        "float" => "f32",
        "double" => "f64",
        "char" => "::std::os::raw::c_char",
        "int" => "::std::os::raw::c_int",
        "c_void" => "::std::os::raw::c_void",
        name => name,
    }
}
