//! States that are damaged: refused, and nobody else sees a difference.

use std::fs;
use std::process::Command;

use llama_turboquant::llama::CacheType::{self, F16, Q8_0, Turbo3, Turbo4};
use llama_turboquant::llama::{Context, ContextParams, FlashAttention, StateError, Token};

use crate::common::api::tiny;
use crate::common::state::{HEAD, reseal, xxh64};

fn prompt(n: i32) -> Vec<Token> {
    (0..n).map(|i| 3 + i * 29 % 250).collect()
}

fn params(k: CacheType, v: CacheType) -> ContextParams {
    ContextParams::default()
        .n_ctx(256)
        .n_batch(256)
        .n_threads(1)
        .n_seq_max(2)
        .kv_unified(true)
        .cache_types(k, v)
}

/// A context in whose cache two sequences lie.
fn filled(params: &ContextParams) -> Context {
    let mut context = Context::new(tiny(), params).expect("a context");
    context.append(&prompt(90), 0).expect("it decodes");
    context.append(&prompt(40), 1).expect("it decodes");
    context
}

/// The logits of sequence 0 after one token more, which is taken out again.
fn look(context: &mut Context) -> Vec<f32> {
    let n = context.seq_len(0);
    context.append(&[7], 0).expect("it decodes");
    let logits = context.last_logits().expect("logits").to_vec();
    context.seq_remove(0, n..).expect("it is removed");
    logits
}

/// The same but for rounding: cells that are free again are used for the next token, and sums have another order.
/// Values that are not finite are unlike all.
fn assert_same(logits: &[f32], expected: &[f32], what: &str) {
    assert_eq!(logits.len(), expected.len());
    let same = logits.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(same, "{what}: {:?} for {:?}", &logits[..4], &expected[..4]);
}

fn refused(result: Result<(), StateError>) -> String {
    let error = result.expect_err("it is refused");
    assert!(matches!(&error, StateError::Restore { reason } if !reason.is_empty()), "{error}");
    error.to_string()
}

/// The first byte of what follows the only occurrence of some bytes.
fn behind(state: &[u8], bytes: &[u8], last: bool) -> usize {
    let mut found = state.windows(bytes.len()).enumerate().filter(|(_, w)| *w == bytes);
    let (at, _) = if last { found.next_back() } else { found.next() }.expect("it is there");
    at + bytes.len()
}

/// Where the rows of K or of V of a state begin: type and size of a row come before them.
fn rows(state: &[u8], type_id: i32, row: usize, is_k: bool) -> usize {
    let head = [&type_id.to_le_bytes()[..], &(row as u64).to_le_bytes()].concat();
    behind(state, &head, !is_k)
}

/// Bytes of a row of 2 x 64 values, and the type's id.
fn row_of(cache_type: CacheType) -> (i32, usize) {
    match cache_type {
        F16 => (1, 256),
        Q8_0 => (8, 136),
        Turbo3 => (121, 2 * 26),
        Turbo4 => (122, 2 * 34),
        _ => unreachable!("not tested here"),
    }
}

#[test]
fn a_row_that_is_not_finite_is_refused_and_moves_no_other_sequence() {
    for (k, v) in [(F16, F16), (Turbo4, Turbo3), (Turbo3, Turbo4), (Q8_0, Q8_0), (Turbo4, F16)] {
        for is_k in [true, false] {
            let mut context = filled(&params(k, v));
            let expected = look(&mut context);
            assert_eq!(look(&mut context), expected, "a look leaves nothing");

            let (type_id, row) = row_of(if is_k { k } else { v });
            let mut state = context.seq_state(1).expect("a state");
            let start = rows(&state, type_id, row, is_k) + 11 * row;
            // NaN as f16, and as every block's scale, wherever that lies.
            state[start..start + row].fill(0xff);
            reseal(&mut state);
            let result = context.set_seq_state(1, &state);
            assert_same(&look(&mut context), &expected, &format!("{k}/{v}, keys {is_k}"));
            let error = refused(result);
            let side = if is_k { "K of layer 0" } else { "V of layer 0" };
            assert!(error.contains(side) && error.contains("cell "), "{error}");
            assert_eq!(context.seq_len(1), 0);
        }
    }
}

#[test]
fn a_transposed_value_that_is_not_finite_is_refused() {
    for k in [F16, Turbo4] {
        let params = params(k, F16).flash_attention(FlashAttention::Off);
        let mut context = filled(&params);
        let expected = look(&mut context);
        let mut state = context.seq_state(1).expect("a state");
        // Its 128 channels of 40 cells are at the end: +inf in cell 9 of the last.
        let at = state.len() - 2 * (40 - 9);
        state[at..at + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
        reseal(&mut state);
        let result = context.set_seq_state(1, &state);
        assert_same(&look(&mut context), &expected, "after it");
        let error = refused(result);
        assert!(error.contains("V of layer 0") && error.contains("cell "), "{error}");
    }
}

#[test]
fn an_anchor_that_is_not_finite_is_refused() {
    let mut context = filled(&params(Turbo4, F16));
    let expected = look(&mut context);
    let mut state = context.seq_state(1).expect("a state");
    // The last anchor comes before V: type, size of a row, 40 rows.
    let end = state.len() - (4 + 8 + 40 * 256);
    state[end - 2..end].copy_from_slice(&0xfe00u16.to_le_bytes());
    reseal(&mut state);
    let result = context.set_seq_state(1, &state);
    assert_same(&look(&mut context), &expected, "after it");
    let error = refused(result);
    assert!(error.contains("k_anchors_l0") && error.contains("key anchor"), "{error}");
}

#[test]
fn any_flipped_bit_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.bin");
    let tokens = prompt(40);
    let mut seed = 1u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    for (k, v) in [(F16, F16), (Turbo4, Turbo3)] {
        let params = params(k, v);
        let mut context = filled(&params);
        let expected = look(&mut context);
        context.save_seq_state(1, &path, &tokens).expect("it is saved");
        let file = fs::read(&path).expect("the file");
        context.save_state(&path, &tokens).expect("it is saved");
        let whole_file = fs::read(&path).expect("the file");
        let state = context.seq_state(1).expect("a state");
        let whole = context.state().expect("a state");
        for round in 0..120 {
            let flip = |bytes: &[u8], at: usize| {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1 << (round % 8);
                bytes
            };
            // The head and what comes before it, byte by byte; then anywhere.
            let mut place = |n: usize| if round < 60 { round } else { random(n) };
            let at = place(state.len());
            refused(context.set_seq_state(1, &flip(&state, at)));
            assert_same(&look(&mut context), &expected, &format!("byte {at} of a sequence"));

            let at = place(file.len());
            fs::write(&path, flip(&file, at)).expect("a file");
            context.load_seq_state(1, &path).expect_err("it is refused");
            assert_same(&look(&mut context), &expected, &format!("byte {at} of a file"));

            let mut other = Context::new(tiny(), &params).expect("a context");
            let at = place(whole.len());
            refused(other.set_state(&flip(&whole, at)));
            let at = place(whole_file.len());
            fs::write(&path, flip(&whole_file, at)).expect("a file");
            other.load_state(&path).expect_err("it is refused");
        }
        context.set_seq_state(1, &state).expect("the context is still good");
    }
}

/// llama_file reads what is there, and says nothing of the rest: the server ended here.
#[test]
fn a_file_that_lost_its_end_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.bin");
    for (k, v) in [(F16, F16), (Turbo4, Turbo3)] {
        let mut context = filled(&params(k, v));
        let expected = look(&mut context);
        context.save_seq_state(1, &path, &prompt(40)).expect("it is saved");
        let good = fs::read(&path).expect("the file");
        for lost in [1, 100, good.len() / 2, good.len() - 200, good.len() - 30] {
            fs::write(&path, &good[..good.len() - lost]).expect("a file");
            let error = context.load_seq_state(1, &path).expect_err("it is refused");
            assert_same(&look(&mut context), &expected, &format!("{lost} bytes are lost"));
            let text = error.to_string();
            assert!(text.contains("cut off"), "{text}");
        }
        fs::write(&path, [&good[..], b"more"].concat()).expect("a file");
        context.load_seq_state(1, &path).expect_err("it is refused");
        fs::write(&path, &good).expect("a file");
        assert_eq!(context.load_seq_state(1, &path).expect("it is good"), prompt(40));
    }
}

/// Whether upstream's states have the sizes of rotations, and ours have no flags of them.
fn upstream_tells_rotations() -> bool {
    !cfg!(tq_pin = "0.25.3")
}

/// A state as upstream's llama.cpp writes it: without a head, and without our flags.
fn as_of_upstream(state: &[u8], flags: u32) -> Vec<u8> {
    let mut old = state[HEAD..].to_vec();
    // Of one layer: V is not transposed, the layers with the flags.
    let layers = [0u32.to_le_bytes(), (flags | 1).to_le_bytes()].concat();
    let at = behind(&old, &layers, false) - 4;
    old[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
    old
}

#[test]
fn a_state_of_upstream_is_taken_unless_its_rotation_is_unknown() {
    let mut context = filled(&params(F16, F16));
    let expected = look(&mut context);
    let state = context.seq_state(0).expect("a state");
    let flags = |ours| if upstream_tells_rotations() { 0 } else { ours };
    let old = as_of_upstream(&state, flags(0x2000_0000));
    context.seq_remove(0, ..).expect("it is removed");
    context.set_seq_state(0, &old).expect("it is taken");
    assert_eq!(look(&mut context), expected);

    // Its rows are looked at all the same.
    let mut bad = old;
    let n = bad.len();
    bad[n - 256..].fill(0xff);
    let error = refused(context.set_seq_state(0, &bad));
    assert!(error.contains("V of layer 0"), "{error}");

    let mut context = filled(&params(Q8_0, Q8_0));
    let expected = look(&mut context);
    let state = context.seq_state(0).expect("a state");
    let old = as_of_upstream(&state, flags(0x3800_0000));
    if upstream_tells_rotations() {
        context.seq_remove(0, ..).expect("it is removed");
        context.set_seq_state(0, &old).expect("it is taken");
        assert_same(&look(&mut context), &expected, "a quantized state");
    } else {
        let error = refused(context.set_seq_state(0, &old));
        assert!(error.contains("rotated") && error.contains("process the prompt again"), "{error}");
    }
}

/// In a process of its own, whose environment has it.
#[test]
#[ignore = "run by the test below"]
fn load_without_rotation() {
    let path = std::env::var_os("TQ_TEST_STATE").expect("set by the test below");
    let mut context = Context::new(tiny(), &params(Q8_0, Q8_0)).expect("a context");
    let error = context.load_seq_state(0, &path).expect_err("it is refused").to_string();
    for word in ["K rotated: yes", "rotates it: no", "unset LLAMA_ATTN_ROT_DISABLE"] {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    assert_eq!(context.seq_len(0), 0);
}

#[test]
fn a_rotated_state_is_refused_where_nothing_is_rotated() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.bin");
    let mut context = filled(&params(Q8_0, Q8_0));
    context.save_seq_state(0, &path, &prompt(90)).expect("it is saved");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "damage::load_without_rotation", "--ignored"])
        .env("TQ_TEST_STATE", &path)
        .env("LLAMA_ATTN_ROT_DISABLE", "1")
        .output()
        .expect("this program");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn the_checksum_is_xxh64() {
    // Of the reference implementation's own tests.
    assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
    assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
    let text = b"Nobody inspects the spammish repetition";
    assert_eq!(xxh64(text), 0xFBCE_A83C_8A37_8BF1);
}
