//! The checked-in bindings of ggml-ext/turbo-api.h are those of the header.
#![cfg(feature = "llama")]

use std::collections::BTreeMap;

/// Names of functions, and of their parameters.
type Functions = BTreeMap<String, Vec<String>>;

/// Functions `tq_*` of a text; `name` finds the name in a parameter.
fn functions(text: &str, name: fn(&str) -> Option<&str>) -> Functions {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut functions = Functions::new();
    for (start, _) in code.match_indices("tq_") {
        let Some((function, rest)) = code[start..].split_once('(') else { break };
        let function = function.trim_end();
        if !function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let (parameters, _) = rest.split_once(')').expect("parameters end");
        let names = parameters.split(',').filter_map(|parameter| name(parameter.trim()));
        functions.insert(function.into(), names.map(String::from).collect());
    }
    functions
}

/// `const char * path`
fn in_c(parameter: &str) -> Option<&str> {
    let name = parameter.rsplit([' ', '*']).next()?;
    Some(name).filter(|name| !["", "void"].contains(name))
}

/// `path: *const c_char`
fn in_rust(parameter: &str) -> Option<&str> {
    parameter.split_once(':').map(|(name, _)| name)
}

#[test]
fn bindings_have_the_functions_of_the_header() {
    let header = functions(include_str!("../ggml-ext/turbo-api.h"), in_c);
    let bindings = functions(include_str!("../src/llama/sys/fence.rs"), in_rust);
    assert!(header.len() > 30 && header["tq_api_error"].is_empty(), "{header:?}");
    assert_eq!(header["tq_model_load"], ["path", "params", "model"]);
    assert_eq!(bindings, header, "run script/bindings");
}
