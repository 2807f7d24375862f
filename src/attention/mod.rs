//! Flash attention over turbo caches on the CPU.
//!
//! Matches `ggml_flash_attn_ext`: mask, ALiBi, softcap, sinks, grouped heads, batches, strides. Tiles of
//! 64 cells are decoded once for all queries of a unit, multiplied in i16 and accumulated in f32.
//! Beyond it: keys that were stored less an anchor, see [`Anchors`].
//!
//! Values that are not finite: a query that sees a key or a value with NaN or infinity in it, or whose logit for a
//! cell that it sees is NaN or +infinity, has a result of NaNs. A cell that the mask hides changes nothing, whatever
//! it holds. Both are so for every type and instruction set.

mod anchors;
mod gemm;
mod isa;
mod plan;
mod prefetch;
mod problem;
mod rows;
mod scratch;
mod simd;
mod softmax;
#[cfg(test)]
mod tests;
mod worker;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod scalar;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use anchors::Anchors;
pub use isa::{Kernels, active, available};
use plan::Plan;
pub(crate) use problem::alibi_slope;
pub use problem::{Args, AttentionError, KvType, Problem, Tensor, supported};
use worker::Worker;

/// Cells of a tile, and values of a block.
const TILE: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;

const _: () = assert!(TILE == crate::codec::QK);

/// One of the threads that compute a problem together.
pub struct Thread<'a> {
    /// Index, below `threads`.
    pub index: usize,
    /// Threads in all; each calls [`flash_attn`] with the same problem.
    pub threads: usize,
    /// Work buffer that the threads share.
    pub work: *mut u8,
    /// Its bytes: at least [`work_bytes`].
    pub work_bytes: usize,
    /// Returns when every thread has called it.
    pub barrier: &'a dyn Fn(),
}

/// Bytes of work buffer for `threads` threads, and enough for fewer.
pub fn work_bytes(problem: &Problem, threads: usize) -> usize {
    Plan::new(problem, threads.max(1)).work_bytes(threads.max(1))
}

/// Computes this thread's share of the problem; the result is complete when every thread has returned.
///
/// The same result to the bit for the same number of threads. Errors before any thread waits for another.
///
/// # Safety
/// The problem's tensors are valid for their shapes and strides, its `dst` for writes; `work` is valid for
/// `work_bytes` bytes and used by nothing else meanwhile.
pub unsafe fn flash_attn(
    problem: &Problem,
    thread: &Thread,
    kernels: &'static Kernels,
) -> Result<(), AttentionError> {
    let &Thread { index, threads, work_bytes: given, .. } = thread;
    if index >= threads {
        return Err(AttentionError::Thread { thread: index, threads });
    }
    problem.check_data()?;
    let plan = Plan::new(problem, threads);
    let needed = plan.work_bytes(threads);
    if thread.work.is_null() || given < needed {
        return Err(AttentionError::WorkBuffer { given, needed, threads });
    }
    // The first line is the counter's; then scratch, then partial results.
    let base = thread.work.wrapping_add(thread.work.align_offset(LINE));
    let scratch = base.wrapping_add(LINE + index * plan.layout.scratch_bytes);
    // SAFETY: pieces of threads are disjoint and within `needed`; units are finished by one worker each.
    unsafe {
        let mut worker = Worker::new(problem, &plan, kernels, scratch);
        if plan.split {
            let partials = base.wrapping_add(LINE + threads * plan.layout.scratch_bytes);
            split_units(problem, &plan, &mut worker, thread, partials);
        } else {
            whole_units(problem, &plan, &mut worker, thread, AtomicUsize::from_ptr(base.cast()));
        }
    }
    Ok(())
}

/// Takes units from the counter until none is left.
fn whole_units(
    problem: &Problem,
    plan: &Plan,
    worker: &mut Worker,
    thread: &Thread,
    counter: &AtomicUsize,
) {
    if thread.threads > 1 {
        if thread.index == 0 {
            counter.store(thread.threads, Ordering::Relaxed);
        }
        (thread.barrier)();
    }
    let mut index = thread.index;
    while index < plan.units {
        let unit = plan.unit(problem, index);
        worker.begin(&unit);
        for tile in 0..plan.tiles {
            worker.tile(&unit, tile);
        }
        worker.finish(&unit, 0..worker.rows(&unit));
        index = match thread.threads {
            1 => index + 1,
            _ => counter.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// An equal piece of the line of units x visible tiles, then a share of the rows of the units that were cut.
///
/// # Safety
/// `partials`: two partial results for every thread.
unsafe fn split_units(
    problem: &Problem,
    plan: &Plan,
    worker: &mut Worker,
    thread: &Thread,
    partials: *mut u8,
) {
    let &Thread { index, threads, .. } = thread;
    let tiles = worker.list_visible();
    let line = plan.units * tiles;
    let piece = |thread: usize| line * thread / threads..line * (thread + 1) / threads;
    // A piece cuts at most two units: the one it begins in has slot 0, another slot 1.
    let partial = |thread: usize, unit: usize| {
        let slot = usize::from(piece(thread).start / tiles != unit);
        partials.wrapping_add((2 * thread + slot) * plan.layout.partial_bytes()).cast::<f32>()
    };
    let mine = piece(index);
    let mut at = mine.start;
    while at < mine.end {
        let (index_of_unit, first) = (at / tiles, at % tiles);
        let last = tiles.min(first + mine.end - at);
        let unit = plan.unit(problem, index_of_unit);
        worker.begin(&unit);
        for tile in first..last {
            worker.tile(&unit, worker.visible(tile));
        }
        if last - first == tiles {
            worker.finish(&unit, 0..worker.rows(&unit));
        } else {
            // SAFETY: the slot is this thread's.
            unsafe { worker.save(&unit, partial(index, index_of_unit)) };
        }
        at += last - first;
    }
    (thread.barrier)();
    // The thread whose piece holds position `at`.
    let owner = |at: usize| ((at + 1) * threads - 1) / line;
    for index_of_unit in 0..plan.units {
        let unit = plan.unit(problem, index_of_unit);
        let rows = share(worker.rows(&unit), index, threads);
        let owners = match tiles {
            0 => 0..0,
            _ => owner(index_of_unit * tiles)..owner((index_of_unit + 1) * tiles - 1) + 1,
        };
        if owners.len() == 1 || rows.is_empty() {
            continue;
        }
        worker.reset(rows.end);
        worker.mark(&unit, rows.clone());
        for thread in owners.filter(|&thread| !piece(thread).is_empty()) {
            // SAFETY: saved before the barrier.
            unsafe { worker.merge(rows.clone(), partial(thread, index_of_unit)) };
        }
        worker.finish(&unit, rows);
    }
}

/// Thread `index`'s part of `n` rows.
fn share(n: usize, index: usize, threads: usize) -> Range<usize> {
    n * index / threads..n * (index + 1) / threads
}
