//! Sequences in a context's memory: where they end, and copying, removing and moving them.

use std::ops::{Bound, RangeBounds, RangeInclusive};

use super::context::Context;
use super::error::SequenceError;
use super::ffi::fenced;
use super::sys::{self, fence};
use super::{Pos, SeqId};

impl Context {
    /// The positions that a sequence has in memory; None: it is empty. Those of layers with a sliding window may
    /// begin later than 0.
    pub fn seq_positions(&self, seq: SeqId) -> Option<RangeInclusive<Pos>> {
        self.check_seq(seq).ok()?;
        // SAFETY: the context lives, and the sequence is in range. A null memory is empty.
        let (min, max) = unsafe {
            let (memory, seq) = (self.memory(), seq.cast_signed());
            (sys::llama_memory_seq_pos_min(memory, seq), sys::llama_memory_seq_pos_max(memory, seq))
        };
        Some(u32::try_from(min).ok()?..=u32::try_from(max).ok()?)
    }

    /// The position behind the last token of a sequence: where its next token goes.
    pub fn seq_len(&self, seq: SeqId) -> Pos {
        self.seq_positions(seq).map_or(0, |range| range.end() + 1)
    }

    /// Removes the tokens of a sequence at some positions: `seq_remove(0, 10..)` rolls it back to 10 tokens.
    ///
    /// Errors: [`SequenceError::PartialRemove`] where the memory is a recurrent state; [`SequenceError::Sequence`].
    pub fn seq_remove(
        &mut self,
        seq: SeqId,
        range: impl RangeBounds<Pos>,
    ) -> Result<(), SequenceError> {
        self.check_seq(seq)?;
        let Some((p0, p1)) = to_c(range)? else { return Ok(()) };
        let mut removed = false;
        // SAFETY: the context lives, and the sequence is in range.
        fenced(unsafe {
            fence::tq_seq_rm(self.raw(), seq.cast_signed(), p0, p1, &raw mut removed)
        })?;
        if removed { Ok(()) } else { Err(SequenceError::PartialRemove { seq }) }
    }

    /// Makes sequence `to` a copy of `from` at some positions; what `to` had is removed.
    ///
    /// With [`kv_unified`](super::ContextParams::kv_unified) both share the memory. Otherwise it is copied, and
    /// `range` has to be `..`.
    /// Errors: [`SequenceError::PartialCopy`], [`SequenceError::Sequence`].
    pub fn seq_copy(
        &mut self,
        from: SeqId,
        to: SeqId,
        range: impl RangeBounds<Pos>,
    ) -> Result<(), SequenceError> {
        self.check_seq(from)?;
        self.check_seq(to)?;
        let range = to_c(range)?;
        if from == to {
            return Ok(());
        }
        let whole = match (range, self.seq_positions(from)) {
            (Some((p0, p1)), Some(has)) => {
                p0 <= has.start().cast_signed() && (p1 < 0 || p1 > has.end().cast_signed())
            }
            (None, Some(_)) => false,
            (_, None) => true,
        };
        let model = self.model();
        let parts = self.kv_unified() && !model.is_recurrent() && !model.shape().own_attention;
        if !whole && !parts {
            return Err(SequenceError::PartialCopy);
        }
        self.seq_remove(to, ..)?;
        let Some((p0, p1)) = range else { return Ok(()) };
        let (p0, p1) = if whole { (-1, -1) } else { (p0, p1) };
        let (from, to) = (from.cast_signed(), to.cast_signed());
        // SAFETY: the context lives, the sequences are in range, and parts are copied only where they can be.
        Ok(fenced(unsafe { fence::tq_seq_cp(self.raw(), from, to, p0, p1) })?)
    }

    /// Removes all sequences but one. Errors: [`SequenceError::Sequence`].
    pub fn seq_keep(&mut self, seq: SeqId) -> Result<(), SequenceError> {
        self.check_seq(seq)?;
        (0..self.n_seq_max())
            .filter(|&other| other != seq)
            .try_for_each(|other| self.seq_remove(other, ..))
    }

    /// Whether tokens can be moved to other positions, which [`Context::seq_shift`] does.
    pub fn can_shift(&self) -> bool {
        // SAFETY: the context lives. A null memory cannot.
        unsafe { sys::llama_memory_can_shift(self.memory()) }
    }

    /// Moves the tokens of a sequence at some positions by `delta`: after
    /// `seq_remove(0, 4..100)`, `seq_shift(0, 100.., -96)` closes the gap.
    ///
    /// Keys are turned at the next decode, and quantized keys coded again, at some cost in precision.
    /// Errors: [`SequenceError::CannotShift`]; [`SequenceError::Position`] if a token would get a position that
    /// is negative or too large; [`SequenceError::Sequence`].
    pub fn seq_shift(
        &mut self,
        seq: SeqId,
        range: impl RangeBounds<Pos>,
        delta: i32,
    ) -> Result<(), SequenceError> {
        self.check_seq(seq)?;
        if !self.can_shift() {
            return Err(SequenceError::CannotShift);
        }
        let (Some((p0, p1)), Some(has)) = (to_c(range)?, self.seq_positions(seq)) else {
            return Ok(());
        };
        let first = i64::from(*has.start()).max(i64::from(p0));
        let last = i64::from(*has.end()).min(if p1 < 0 { i64::MAX } else { i64::from(p1) - 1 });
        if first > last {
            return Ok(());
        }
        for pos in [first, last].map(|pos| pos + i64::from(delta)) {
            if !(0..=i64::from(i32::MAX)).contains(&pos) {
                return Err(SequenceError::Position { pos });
            }
        }
        // SAFETY: the context lives, the sequence is in range, and its memory can shift.
        Ok(fenced(unsafe { fence::tq_seq_add(self.raw(), seq.cast_signed(), p0, p1, delta) })?)
    }

    /// Removes all sequences. Errors: [`SequenceError::Exception`].
    pub fn clear(&mut self) -> Result<(), SequenceError> {
        // SAFETY: the context lives.
        Ok(fenced(unsafe { fence::tq_memory_clear(self.raw(), false) })?)
    }

    fn check_seq(&self, seq: SeqId) -> Result<(), SequenceError> {
        let n_seq_max = self.n_seq_max();
        if seq < n_seq_max { Ok(()) } else { Err(SequenceError::Sequence { seq, n_seq_max }) }
    }
}

/// From and to, one past the end; -1: to the end. None: no positions. Errors: [`SequenceError::Position`].
fn to_c(range: impl RangeBounds<Pos>) -> Result<Option<(i32, i32)>, SequenceError> {
    let position = |pos: i64| i32::try_from(pos).map_err(|_| SequenceError::Position { pos });
    let p0 = match range.start_bound() {
        Bound::Included(&p) => position(p.into())?,
        Bound::Excluded(&p) => position(i64::from(p) + 1)?,
        Bound::Unbounded => 0,
    };
    let p1 = match range.end_bound() {
        Bound::Included(&p) => position(i64::from(p) + 1)?,
        Bound::Excluded(&p) => position(p.into())?,
        Bound::Unbounded => return Ok(Some((p0, -1))),
    };
    Ok((p0 < p1).then_some((p0, p1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open() {
        assert_eq!(to_c(..), Ok(Some((0, -1))));
        assert_eq!(to_c(3..), Ok(Some((3, -1))));
        assert_eq!(to_c(3..=5), Ok(Some((3, 6))));
        assert_eq!(to_c(..5), Ok(Some((0, 5))));
        assert_eq!(to_c(5..5), Ok(None));
        assert_eq!(to_c(u32::MAX..), Err(SequenceError::Position { pos: u32::MAX.into() }));
    }
}
