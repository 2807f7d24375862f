//! Saved states and shifts of a context.

use llama_turboquant::llama::sys;

use super::engine::{Context, logged};
use super::gguf::tokens;

pub fn save(context: &Context) -> Vec<u8> {
    // SAFETY: the buffer is as long as the context says.
    unsafe {
        let mut state = vec![0; sys::llama_state_get_size(context.raw())];
        let n = sys::llama_state_get_data(context.raw(), state.as_mut_ptr(), state.len());
        assert!(n > 0 && n <= state.len(), "saved {n} bytes of {}", state.len());
        state.truncate(n);
        state
    }
}

pub fn save_seq(context: &Context, seq: i32) -> Vec<u8> {
    // SAFETY: the buffer is as long as the context says.
    unsafe {
        let mut state = vec![0; sys::llama_state_seq_get_size(context.raw(), seq)];
        let n = sys::llama_state_seq_get_data(context.raw(), state.as_mut_ptr(), state.len(), seq);
        assert_eq!(n, state.len());
        state
    }
}

/// Bytes read, 0 if the state was refused; and what was logged.
pub fn restore(context: &mut Context, state: &[u8]) -> (usize, String) {
    // SAFETY: the buffer is as long as stated.
    logged(|| unsafe { sys::llama_state_set_data(context.raw(), state.as_ptr(), state.len()) })
}

pub fn restore_seq(context: &mut Context, state: &[u8], seq: i32) -> (usize, String) {
    // SAFETY: the buffer is as long as stated.
    logged(|| unsafe {
        sys::llama_state_seq_set_data(context.raw(), state.as_ptr(), state.len(), seq)
    })
}

/// After a refusal: the context of a tiny model, emptied, serves.
pub fn serves(context: &mut Context) {
    // SAFETY: the memory belongs to the context.
    unsafe { sys::llama_memory_clear(context.memory(), true) };
    assert!(context.prefill(&tokens(100), 0, 0).iter().all(|x| x.is_finite()));
}

/// Removes `n` cells behind the first `keep` and moves the others to the front.
pub fn shift(context: &mut Context, keep: usize, n: usize) {
    let at = |pos: usize| pos as sys::llama_pos;
    // SAFETY: the memory belongs to the context.
    unsafe {
        assert!(sys::llama_memory_can_shift(context.memory()));
        assert!(sys::llama_memory_seq_rm(context.memory(), 0, at(keep), at(keep + n)));
        sys::llama_memory_seq_add(context.memory(), 0, at(keep + n), -1, -at(n));
    }
}

/// Bytes of the head of a state in memory: magic, length, checksum of the rest, checksum of the head.
pub const HEAD: usize = 32;

/// Makes the checksums of a state in memory match what it now has.
pub fn reseal(state: &mut [u8]) {
    if state.len() < HEAD || !state.starts_with(b"tqstate1") {
        return;
    }
    let (len, body) = ((state.len() - HEAD) as u64, xxh64(&state[HEAD..]));
    state[8..16].copy_from_slice(&len.to_le_bytes());
    state[16..24].copy_from_slice(&body.to_le_bytes());
    let head = xxh64(&state[..24]);
    state[24..HEAD].copy_from_slice(&head.to_le_bytes());
}

/// XXH64 with seed 0, after its specification (xxhash_spec.md).
pub fn xxh64(data: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];
    let round = |acc: u64, lane: u64| {
        acc.wrapping_add(lane.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0])
    };
    let u64_at = |at: &[u8]| u64::from_le_bytes(at[..8].try_into().expect("8 bytes"));
    let stripes = data.chunks_exact(32);
    let mut rest = stripes.remainder();
    let mut hash = P[4];
    if data.len() >= 32 {
        let mut acc = [P[0].wrapping_add(P[1]), P[1], 0, P[0].wrapping_neg()];
        for stripe in stripes {
            for (acc, lane) in acc.iter_mut().zip(stripe.chunks_exact(8)) {
                *acc = round(*acc, u64_at(lane));
            }
        }
        hash = [1, 7, 12, 18]
            .into_iter()
            .zip(acc)
            .fold(0u64, |hash, (by, acc)| hash.wrapping_add(acc.rotate_left(by)));
        for acc in acc {
            hash = (hash ^ round(0, acc)).wrapping_mul(P[0]).wrapping_add(P[3]);
        }
    }
    hash = hash.wrapping_add(data.len() as u64);
    while rest.len() >= 8 {
        hash =
            (hash ^ round(0, u64_at(rest))).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        let lane = u64::from(u32::from_le_bytes(rest[..4].try_into().expect("4 bytes")));
        hash =
            (hash ^ lane.wrapping_mul(P[0])).rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        rest = &rest[4..];
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(P[4])).rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P[2]);
    hash ^ (hash >> 32)
}
