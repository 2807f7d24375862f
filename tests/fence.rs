//! The checked-in bindings are those of the headers: the edited llama.h, and ggml-ext's.
#![cfg(feature = "llama")]

#[path = "bindings/c.rs"]
mod c;
#[path = "bindings/rust.rs"]
mod rust;
#[path = "common/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;

/// Names with their types, in order.
type Variables = Vec<(String, String)>;

/// What a header or its bindings declare, with types as bindgen writes them.
#[derive(Debug, Default)]
struct Declarations {
    /// Parameters, and the result: `()` for none.
    functions: BTreeMap<String, (Variables, String)>,
    /// Fields.
    structs: BTreeMap<String, Variables>,
    /// Values of enumerators.
    constants: BTreeMap<String, i64>,
}

/// Where the bracket closes that a text follows.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    let end = text.find(|c: char| {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => (),
        }
        depth == 0
    });
    end.unwrap_or(text.len())
}

/// Parts of a text between separators that are in no brackets, without empty ones.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut depth = 0;
    let parts = text.split(|c: char| {
        match c {
            '(' | '{' | '[' | '<' => depth += 1,
            ')' | '}' | ']' | '>' => depth -= 1,
            _ => (),
        }
        c == separator && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Of the functions with a prefix, the bindings have those of the headers and no others; what both know of structs and constants
/// is the same.
#[track_caller]
fn assert_same(header: &Declarations, bindings: &Declarations, prefix: &str, n: [usize; 3]) {
    let functions = bindings.functions.iter().filter(|(name, _)| name.starts_with(prefix));
    let functions: BTreeMap<_, _> = functions.collect();
    let none = (Vec::new(), String::from("nothing"));
    for (name, declared) in &header.functions {
        let bound = *functions.get(name).unwrap_or(&&none);
        assert_eq!(bound, declared, "{name}: run script/bindings");
    }
    for name in functions.keys() {
        assert!(
            header.functions.contains_key(*name),
            "no {name} in the headers: run script/bindings"
        );
    }
    let structs = header.structs.iter().filter(|(name, _)| bindings.structs.contains_key(*name));
    let constants =
        header.constants.iter().filter(|(name, _)| bindings.constants.contains_key(*name));
    let counts = [functions.len(), structs.clone().count(), constants.clone().count()];
    for (name, fields) in structs {
        assert_eq!(&bindings.structs[name], fields, "{name}: run script/bindings");
    }
    for (name, value) in constants {
        assert_eq!(bindings.constants[name], *value, "{name}: run script/bindings");
    }
    // What is compared has been found.
    assert!(counts.iter().zip(n).all(|(count, n)| *count >= n), "{counts:?} of {n:?} at least");
}

#[test]
fn bindings_have_what_turbo_api_h_declares() {
    let header = c::declarations(include_str!("../ggml-ext/tools/turboquant/turbo-api.h"), "tq_");
    let bindings = rust::declarations(include_str!("../src/llama/sys/fence.rs"));
    assert!(header.functions["tq_api_error"].0.is_empty(), "{header:?}");
    assert_same(&header, &bindings, "tq_", [35, 3, 0]);
}

#[test]
fn bindings_have_what_the_edited_llama_h_declares() {
    let mut header = Declarations::default();
    for name in ["llama.h", "llama-kv-calib.h"] {
        let path = tree::tree().join("src/include").join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let of_file = c::declarations(&text, "llama_");
        header.functions.extend(of_file.functions);
        header.structs.extend(of_file.structs);
        header.constants.extend(of_file.constants);
    }
    // FILE is left out: it differs between systems.
    header.functions.retain(|name, _| !name.ends_with("_from_file_ptr"));
    let bindings = rust::declarations(match cfg!(tq_pin = "0.25.3") {
        true => include_str!("../src/llama/sys/bindings_0.25.3.rs"),
        false => include_str!("../src/llama/sys/bindings_b12032.rs"),
    });
    assert_same(&header, &bindings, "llama_", [200, 15, 100]);
}

/// A change of a name, a type, the order or a value is seen.
#[test]
fn a_change_is_seen() {
    const HEADER: &str = "enum llama_kind { LLAMA_A, LLAMA_B = 4, LLAMA_C };\n\
        struct llama_pair { const char * name; // the name\n enum llama_kind type; float x[3]; };\n\
        LLAMA_API struct llama_pair * llama_get(const struct llama_pair ** from, size_t n);\n";
    const BINDINGS: &str = "pub const LLAMA_C: llama_kind = 5;\n#[repr(C)]\npub struct llama_pair {\n    \
        pub name: *const ::std::os::raw::c_char,\n    pub type_: llama_kind,\n    pub x: [f32; 3usize],\n}\n\
        unsafe extern \"C\" {\n    pub fn llama_get(\n        from: *mut *const llama_pair,\n        n: usize,\n    ) -> *mut llama_pair;\n}\n";
    let same = |header: &str| {
        let (header, bindings) = (c::declarations(header, "llama_"), rust::declarations(BINDINGS));
        std::panic::catch_unwind(|| assert_same(&header, &bindings, "llama_", [1, 1, 1])).is_ok()
    };
    assert!(same(HEADER));
    for (old, new) in [
        ("LLAMA_B = 4", "LLAMA_B = 3"),
        ("* name", "* text"),
        ("float x[3]", "float x[4]"),
        ("float x[3];", "float x[3]; bool y;"),
        ("const char", "char"),
        ("size_t n", "int32_t n"),
        ("from, size_t n", "from"),
        ("llama_get", "llama_set"),
        ("LLAMA_API struct llama_pair *", "LLAMA_API void"),
    ] {
        let changed = HEADER.replacen(old, new, 1);
        assert_ne!(changed, HEADER);
        assert!(!same(&changed), "{new} was not seen");
    }
}
