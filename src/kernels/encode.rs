//! Rows to blocks: the portable encoder, compiled for an ISA around that ISA's Viterbi search.
//!
//! The order of the search is here ([`paths`]), the same for all; an ISA gives the steps ([`Viterbi`]).

use crate::codec::QK;
use crate::codec::encode::search::{CONTEXT, RENORMALIZE};
use crate::codec::encode::{Branch, Branches, SCALES};

/// Decisions after one value, of each search: from where the best path into each state comes.
pub(super) type Decisions = [[u64; SCALES]; QK];

/// The steps of a search. 64 path costs are saturating `u8`, which cannot overflow.
///
/// Every unsafe function needs a processor that has the ISA.
#[allow(clippy::missing_safety_doc)] // said above, once for all
pub(super) trait Viterbi {
    /// Path costs of 64 states.
    type Costs: Copy;
    /// Costs that allow every state alike.
    unsafe fn free() -> Self::Costs;
    /// Costs that allow one state alone.
    unsafe fn only(state: u64) -> Self::Costs;
    /// Costs after one more value, and its decisions.
    unsafe fn advance(costs: Self::Costs, branch: Branch) -> (Self::Costs, u64);
    /// Costs less the least of them.
    unsafe fn renormalize(costs: Self::Costs) -> Self::Costs;
    /// The lowest state of least cost.
    unsafe fn argmin(costs: Self::Costs) -> u64;
    /// 1 where the best path into `state` comes from the upper of its two predecessors, else 0.
    fn upper(decision: u64, state: u64) -> u64;

    /// Walks every search back from `ends` after value `values - 1` to before value 0:
    /// the states there and the path bits on the way. The lanes vectorise.
    #[inline(always)]
    unsafe fn trace(
        decisions: &Decisions,
        values: usize,
        ends: [u64; SCALES],
    ) -> ([u64; SCALES], [u64; SCALES]) {
        let mut state = ends;
        let mut path = [0; SCALES];
        for decisions in decisions[..values].iter().rev() {
            for i in 0..SCALES {
                path[i] = path[i] << 1 | state[i] & 1;
                state[i] = state[i] >> 1 | Self::upper(decisions[i], state[i]) << 5;
            }
        }
        (state, path)
    }
}

/// [`crate::codec::encode::search::paths`] by the steps of an ISA; the same paths, bit for bit.
///
/// No closures around vector instructions, here or in the steps: a closure does not have the ISA's features, and
/// keeps them from being inlined. `TOGETHER` searches run interleaved, because one alone waits for its own
/// latency: as many as fit the registers.
///
/// # Safety
/// The processor has the ISA.
#[inline(always)]
pub(super) unsafe fn paths<V: Viterbi, const TOGETHER: usize>(
    branches: &[Branches; SCALES],
) -> [u64; SCALES] {
    let mut decisions = [[0; SCALES]; QK];
    // SAFETY: the caller's.
    unsafe {
        let mut costs = [V::free(); SCALES];
        run::<V, TOGETHER>(&mut costs, &mut decisions, branches, QK - CONTEXT, 2 * CONTEXT);
        let mut ends = [0; SCALES];
        for (end, costs) in ends.iter_mut().zip(costs) {
            *end = V::argmin(costs);
        }
        let (wraps, _) = V::trace(&decisions, CONTEXT, ends);

        for (costs, wrap) in costs.iter_mut().zip(wraps) {
            *costs = V::only(wrap);
        }
        run::<V, TOGETHER>(&mut costs, &mut decisions, branches, 0, QK);
        V::trace(&decisions, QK, wraps).1
    }
}

/// Advances every search by `count` values (a multiple of [`RENORMALIZE`]) from value `first`.
///
/// # Safety
/// The processor has the ISA.
#[inline(always)]
unsafe fn run<V: Viterbi, const TOGETHER: usize>(
    costs: &mut [V::Costs; SCALES],
    decisions: &mut Decisions,
    branches: &[Branches; SCALES],
    first: usize,
    count: usize,
) {
    const { assert!(SCALES.is_multiple_of(TOGETHER)) };
    for (group, costs) in costs.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
        let search = group * TOGETHER;
        let mut now = *costs;
        for step in (0..count).step_by(RENORMALIZE) {
            for value in first + step..first + step + RENORMALIZE {
                let value = value % QK;
                for (i, now) in now.iter_mut().enumerate() {
                    let branch = branches[search + i][value];
                    // SAFETY: the caller's.
                    (*now, decisions[value][search + i]) = unsafe { V::advance(*now, branch) };
                }
            }
            for now in &mut now {
                // SAFETY: the caller's.
                *now = unsafe { V::renormalize(*now) };
            }
        }
        *costs = now;
    }
}

/// Defines `quantize_row`, the row encoder around the search of `$viterbi`.
macro_rules! row_encoder {
    ($viterbi:ty, together: $together:literal, $features:literal) => {
        /// Encodes a row; see [`crate::kernels::RowKernels::quantize_row`].
        #[target_feature(enable = $features)]
        pub(super) fn quantize_row<const K: usize>(
            x: &[f32],
            blocks: &mut [crate::codec::Block<K>],
        ) -> u64 {
            use crate::codec::encode::{Tables, encode_with};
            use crate::kernels::{encode::paths, quantize_row_with};

            let tables = Tables::of::<K>();
            // SAFETY: this function's own features are what the search needs.
            let search = |branches: &_| unsafe { paths::<$viterbi, $together>(branches) };
            quantize_row_with(x, blocks, |x| encode_with(x, tables, search))
        }
    };
}
pub(super) use row_encoder;
