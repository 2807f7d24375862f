//! The turbo types' ids are free in the pin and in the known forks, and nothing breaks over the gap
//! of unnamed ids below them.
#![cfg(feature = "llama")]

#[path = "common/tree.rs"]
mod tree;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;

// Links the library that brings llama.cpp.
use llama_turboquant as _;

unsafe extern "C" {
    fn ggml_type_name(ty: c_int) -> *const c_char;
    fn ggml_blck_size(ty: c_int) -> i64;
    fn ggml_type_size(ty: c_int) -> usize;
    fn gguf_init_from_file(path: *const c_char, params: GgufInitParams) -> *mut c_void;
    fn gguf_free(ctx: *mut c_void);
    fn ggml_validate_row_data(ty: c_int, data: *const c_void, nbytes: usize) -> bool;
}

#[repr(C)]
struct GgufInitParams {
    no_alloc: bool,
    ctx: *mut *mut c_void,
}

/// The first id that the built llama.cpp has no type for.
const FREE: i32 = if cfg!(tq_pin = "b12032") { 44 } else { 43 };

const OURS: [(&str, i64); 3] = [("TURBO2", 120), ("TURBO3", 121), ("TURBO4", 122)];

/// Every `GGML_TYPE_X = n` of the edited ggml.h.
fn enumerators() -> Vec<(String, i64)> {
    let text = fs::read_to_string(tree::tree().join("src/ggml/include/ggml.h")).unwrap();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| l.starts_with("GGML_TYPE_")) {
        if let Some((name, value)) = line.split_once('=') {
            let value = value.split(',').next().unwrap().trim().parse().unwrap();
            found.push((name.trim().trim_start_matches("GGML_TYPE_").to_string(), value));
        }
    }
    found
}

#[test]
fn ids_are_free() {
    let all = enumerators();
    for (name, id) in OURS {
        assert!(all.contains(&(name.to_string(), id)));
    }
    let upstream: Vec<_> =
        all.iter().filter(|(n, _)| n != "COUNT" && !OURS.iter().any(|(o, _)| o == n)).collect();
    assert!(upstream.len() > 30, "the enum was not parsed");
    for (name, id) in upstream {
        assert!(*id < 64, "upstream's {name} = {id} comes close to ours");
    }
    // TheTom, buun, AmesianX: different types under the same numbers.
    for (_, id) in OURS {
        assert!(!(42..=46).contains(&id) && !(201..=203).contains(&id));
    }
    assert!(all.contains(&("COUNT".to_string(), 123)));
}

#[test]
fn traits_are_registered_and_the_gap_is_harmless() {
    for id in 0..123 {
        // SAFETY: ids below GGML_TYPE_COUNT are valid, and names are static strings.
        let (name, block, size) = unsafe {
            let name = ggml_type_name(id);
            assert!(!name.is_null(), "type {id} has no name");
            (CStr::from_ptr(name).to_str().unwrap(), ggml_blck_size(id), ggml_type_size(id))
        };
        match id {
            FREE..120 => assert_eq!((name, block, size), ("unknown", 0, 0)),
            120 => assert_eq!((name, block, size), ("turbo2", 64, 18)),
            121 => assert_eq!((name, block, size), ("turbo3", 64, 26)),
            122 => assert_eq!((name, block, size), ("turbo4", 64, 34)),
            _ => assert!(!name.starts_with("turbo")),
        }
    }
}

#[test]
fn row_validation() {
    let valid = |id, bytes: &[u8]| {
        // SAFETY: `bytes` is readable and its length is passed with it.
        unsafe { ggml_validate_row_data(id, bytes.as_ptr().cast(), bytes.len()) }
    };
    for (id, size) in [(120, 18), (121, 26), (122, 34)] {
        let mut row = vec![0xff; 2 * size];
        row[..2].copy_from_slice(&[0x00, 0x3c]); // 1.0
        row[size..size + 2].copy_from_slice(&[0xff, 0x7b]); // the largest f16
        assert!(valid(id, &row));
        row[size..size + 2].copy_from_slice(&[0x00, 0x7c]); // infinity
        assert!(!valid(id, &row));
        row[size..size + 2].copy_from_slice(&[0x01, 0x7e]); // NaN
        assert!(!valid(id, &row));
        assert!(!valid(id, &row[1..]));
    }
    assert!(!valid(50, &[0; 4]), "a type without a size is invalid, not a division by zero");
}

/// A GGUF file with one tensor of 64 values of the given type.
fn gguf(ty: u32, data: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(1u64.to_le_bytes()); // tensors
    file.extend(0u64.to_le_bytes()); // metadata
    file.extend(1u64.to_le_bytes());
    file.extend(b"t");
    file.extend(1u32.to_le_bytes()); // dimensions
    file.extend(64u64.to_le_bytes());
    file.extend(ty.to_le_bytes());
    file.extend(0u64.to_le_bytes()); // offset
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file.resize(file.len().next_multiple_of(32), 0);
    file
}

fn gguf_opens(ty: u32, data: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), gguf(ty, data)).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    let params = GgufInitParams { no_alloc: true, ctx: std::ptr::null_mut() };
    // SAFETY: the path is a C string; the context is freed once, if there is one.
    unsafe {
        let ctx = gguf_init_from_file(path.as_ptr(), params);
        if !ctx.is_null() {
            gguf_free(ctx);
        }
        !ctx.is_null()
    }
}

#[test]
fn gguf_refuses_types_of_the_gap() {
    assert!(gguf_opens(0, &[0; 256]), "the file itself is good");
    assert!(gguf_opens(122, &[0; 34]));
    for ty in [FREE as u32, 44, 46, 50, 119, 123, 201, 203] {
        assert!(!gguf_opens(ty, &[0; 256]), "type {ty} was taken");
    }
}
