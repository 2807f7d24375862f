//! Coding rows through the C ABI allocates nothing once the tables are there, and neither do refusals.
#![cfg(feature = "capi")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

use llama_turboquant::capi::tq_status::*;
use llama_turboquant::capi::*;
use llama_turboquant::codec::rng::SplitMix64;

thread_local! {
    /// Allocations of this thread.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn rows_and_refusals_allocate_nothing() {
    let x = SplitMix64::new(1).gaussians(16 * 128);
    let mut y = x.clone();
    let mut bytes = vec![0u8; 32 * 34];
    let mut code = |ty: u32| {
        let (dst, n) = (bytes.as_mut_ptr().cast(), bytes.len());
        // SAFETY: live buffers with room for 32 blocks of any type.
        unsafe {
            let status = tq_quantize_rows(ty, x.as_ptr(), 16, 128, dst, n, null_mut());
            assert_eq!(status, TQ_OK);
            assert_eq!(tq_dequantize_rows(ty, dst, n, 16, 128, y.as_mut_ptr()), TQ_OK);
            let status = tq_quantize_rows(ty, x.as_ptr(), 16, 100, dst, n, null_mut());
            assert_eq!(status, TQ_ERROR_ROW_LENGTH);
        }
    };
    // The first call detects the processor and builds the tables.
    (2..=4).for_each(&mut code);
    let before = COUNT.get();
    assert!(before > 0, "the counter counts");
    (2..=4).for_each(&mut code);
    assert_eq!(COUNT.get() - before, 0);
}
