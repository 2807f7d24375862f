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
