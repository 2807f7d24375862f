//! Rows of blocks as bytes, through the fastest kernels: the codec's front door.

use crate::codec::{Block, QK, TurboType};
use crate::kernels::{Kernels, Rows, active};
use rayon::prelude::*;

/// A buffer that does not fit its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A row that is not a whole number of blocks.
    #[error(
        "row length {len} is not a multiple of {QK}, the values of a block: pad the row or use q8_0"
    )]
    BadRowLength {
        /// Values in the row.
        len: usize,
    },
    /// Values that are not a whole number of rows.
    #[error("{len} values are not a whole number of rows of {row_len}")]
    BadRowCount {
        /// Values given.
        len: usize,
        /// Values in a row.
        row_len: usize,
    },
    /// A byte buffer of another size than the values need.
    #[error("{values} values of {name} take {expected} bytes, the buffer has {actual}", name = ty.name())]
    BadByteLength {
        /// The type.
        ty: TurboType,
        /// Values to code.
        values: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes of the buffer.
        actual: usize,
    },
}

/// Bytes of a row of `len` values. Errors: [`RowError::BadRowLength`].
pub const fn row_bytes(ty: TurboType, len: usize) -> Result<usize, RowError> {
    if !len.is_multiple_of(QK) {
        return Err(RowError::BadRowLength { len });
    }
    Ok(len / QK * ty.block_bytes())
}

/// Encodes a row: how many of its values were NaN or infinite, which are coded as 0.
///
/// Products with what is decoded are right on average, at the price of a squared error that is not the least (8% more
/// of it for turbo2, 2% and 0.5% for the others).
///
/// `x`: n values, `n % 64 == 0`; for attention, already rotated. `out`: [`row_bytes`] bytes.
pub fn quantize_row(ty: TurboType, x: &[f32], out: &mut [u8]) -> Result<u64, RowError> {
    check(ty, x.len(), out.len())?;
    Ok(match ty {
        TurboType::Turbo2 => quantize::<2>(x, out),
        TurboType::Turbo3 => quantize::<3>(x, out),
        TurboType::Turbo4 => quantize::<4>(x, out),
    })
}

/// Encodes rows of `row_len` values on all cores: how many values were not finite.
///
/// `x`: whole rows, one after the other. `out`: their bytes.
pub fn quantize_rows(
    ty: TurboType,
    row_len: usize,
    x: &[f32],
    out: &mut [u8],
) -> Result<u64, RowError> {
    let bytes = check_rows(ty, row_len, x.len(), out.len())?;
    if x.is_empty() {
        return Ok(0);
    }
    let rows = x.par_chunks_exact(row_len).zip(out.par_chunks_exact_mut(bytes));
    rows.map(|(x, out)| quantize_row(ty, x, out)).sum()
}

/// Decodes a row. `bytes`: any [`row_bytes`] bytes. `out`: n values, `n % 64 == 0`.
pub fn dequantize_row(ty: TurboType, bytes: &[u8], out: &mut [f32]) -> Result<(), RowError> {
    check(ty, out.len(), bytes.len())?;
    match ty {
        TurboType::Turbo2 => dequantize::<2>(bytes, out),
        TurboType::Turbo3 => dequantize::<3>(bytes, out),
        TurboType::Turbo4 => dequantize::<4>(bytes, out),
    }
    Ok(())
}

/// Decodes rows of `row_len` values on all cores.
pub fn dequantize_rows(
    ty: TurboType,
    row_len: usize,
    bytes: &[u8],
    out: &mut [f32],
) -> Result<(), RowError> {
    let row_bytes = check_rows(ty, row_len, out.len(), bytes.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let rows = bytes.par_chunks_exact(row_bytes).zip(out.par_chunks_exact_mut(row_len));
    rows.map(|(bytes, out)| dequantize_row(ty, bytes, out)).collect()
}

fn check(ty: TurboType, values: usize, actual: usize) -> Result<(), RowError> {
    let expected = row_bytes(ty, values)?;
    if actual != expected {
        return Err(RowError::BadByteLength { ty, values, expected, actual });
    }
    Ok(())
}

/// Bytes of a row.
fn check_rows(
    ty: TurboType,
    row_len: usize,
    values: usize,
    bytes: usize,
) -> Result<usize, RowError> {
    let row_bytes = row_bytes(ty, row_len)?;
    if row_len == 0 && values != 0 || row_len != 0 && !values.is_multiple_of(row_len) {
        return Err(RowError::BadRowCount { len: values, row_len });
    }
    check(ty, values, bytes)?;
    Ok(row_bytes)
}

fn quantize<const K: usize>(x: &[f32], out: &mut [u8]) -> u64
where
    Kernels: Rows<K>,
{
    debug_assert_eq!(out.len() % Block::<K>::BYTES, 0);
    // SAFETY: a `Block` is bytes alone, without padding or alignment, so any bytes are blocks; the
    // count is that of the bytes, and the borrow of `out` lasts as long as `blocks`.
    let blocks = unsafe {
        std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len() / Block::<K>::BYTES)
    };
    (active().rows().quantize_row)(x, blocks)
}

fn dequantize<const K: usize>(bytes: &[u8], out: &mut [f32])
where
    Kernels: Rows<K>,
{
    debug_assert_eq!(bytes.len() % Block::<K>::BYTES, 0);
    // SAFETY: as in `quantize`.
    let blocks = unsafe {
        std::slice::from_raw_parts(
            bytes.as_ptr().cast::<Block<K>>(),
            bytes.len() / Block::<K>::BYTES,
        )
    };
    (active().rows().dequantize_row)(blocks, out);
}
