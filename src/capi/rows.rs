//! Rows for C and C++ programs: sizes, quantize, de-quantize.
//!
//! Every function checks what it is given before it reads or writes anything, allocates nothing, and
//! may be called from any number of threads at once.

use std::ffi::{CStr, CString, c_char, c_void};
use std::slice;
use std::sync::OnceLock;

use super::status::{Error, guard, tq_status};
use crate::codec::{QK, TurboType};
use crate::kernels::active;
use crate::rows;

/// Values in a block. A row is a whole number of blocks.
pub const TQ_BLOCK_VALUES: usize = 64;

const _: () = assert!(TQ_BLOCK_VALUES == QK);

/// The types, named by their index bits a value.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum tq_type {
    /// 2.25 bits a value: 18 bytes a block.
    TQ_TURBO2 = 2,
    /// 3.25 bits a value: 26 bytes a block.
    TQ_TURBO3 = 3,
    /// 4.25 bits a value: 34 bytes a block.
    TQ_TURBO4 = 4,
}

/// C may hand over any number, so types arrive as numbers and are looked up.
fn turbo_type(id: u32) -> Result<TurboType, Error> {
    TurboType::ALL.into_iter().find(|ty| *ty as u32 == id).ok_or(Error::UnknownType { id })
}

/// Version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn tq_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL in it"),
        };
    VERSION.as_ptr()
}

/// The instructions in use, such as "avx2" or "neon"; "scalar" where there are none to use.
///
/// The environment variable TQ_SIMD forces one. NULL if it asks for what the processor cannot do;
/// tq_last_error then says what it can.
#[unsafe(no_mangle)]
pub extern "C" fn tq_simd_name() -> *const c_char {
    static NAME: OnceLock<CString> = OnceLock::new();
    let mut name = std::ptr::null();
    guard(|| {
        let text = || CString::new(active().name).expect("names of kernels have no NUL in them");
        name = NAME.get_or_init(text).as_ptr();
        Ok(())
    });
    name
}

/// Name of a type, such as "turbo4", as in llama.cpp's -ctk and -ctv. NULL if there is no such type.
#[unsafe(no_mangle)]
pub extern "C" fn tq_type_name(r#type: u32) -> *const c_char {
    let name = match turbo_type(r#type) {
        Ok(TurboType::Turbo2) => c"turbo2",
        Ok(TurboType::Turbo3) => c"turbo3",
        Ok(TurboType::Turbo4) => c"turbo4",
        Err(_) => return std::ptr::null(),
    };
    name.as_ptr()
}

/// Bytes of a block: 18, 26 or 34. 0 if there is no such type.
#[unsafe(no_mangle)]
pub extern "C" fn tq_block_bytes(r#type: u32) -> usize {
    turbo_type(r#type).map_or(0, TurboType::block_bytes)
}

/// Bytes of a row of row_len values.
///
/// type: a tq_type, here and below.
/// row_len: a multiple of TQ_BLOCK_VALUES.
/// row_bytes: where the number goes; left alone on an error.
///
/// # Safety
/// `row_bytes` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_row_bytes(
    r#type: u32,
    row_len: usize,
    row_bytes: *mut usize,
) -> tq_status {
    guard(|| {
        let shape = Shape::new(turbo_type(r#type)?, 1, row_len)?;
        // SAFETY: the caller's promise.
        let row_bytes = unsafe { values_mut("row_bytes", row_bytes, 1) }?;
        row_bytes[0] = shape.bytes;
        Ok(())
    })
}

/// Quantizes n_rows rows of row_len floats, one after the other at x, to blocks at dst.
///
/// Nothing is rotated here. The error is least for values whose energy is spread evenly, as a rotation
/// leaves them.
/// Any floats can be coded: NaNs and infinities count as 0, and the scale of a block of huge values
/// is cut at the largest that half precision holds.
/// One thread does the work; give it ranges of rows to use more.
///
/// row_len: a multiple of TQ_BLOCK_VALUES.
/// x: n_rows * row_len floats. Must not overlap dst.
/// dst: at least n_rows * tq_row_bytes bytes, of any alignment; dst_bytes says how many there are.
/// nonfinite: raised by the number of NaNs and infinities in x. May be NULL.
///
/// # Safety
/// Pointers are null or valid for what is said above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_quantize_rows(
    r#type: u32,
    x: *const f32,
    n_rows: usize,
    row_len: usize,
    dst: *mut c_void,
    dst_bytes: usize,
    nonfinite: *mut u64,
) -> tq_status {
    guard(|| {
        let shape = Shape::new(turbo_type(r#type)?, n_rows, row_len)?;
        shape.check_bytes("dst", dst_bytes)?;
        // SAFETY: the caller's promise, for all three.
        let (x, dst, counter) = unsafe {
            let counter = if nonfinite.is_null() { 0 } else { 1 };
            (
                values("x", x, shape.values)?,
                values_mut("dst", dst.cast::<u8>(), shape.bytes)?,
                values_mut("nonfinite", nonfinite, counter)?,
            )
        };
        let count = rows::quantize_row(shape.ty, x, dst).expect("lengths that `Shape` made");
        counter.iter_mut().for_each(|counter| *counter += count);
        Ok(())
    })
}

/// De-quantizes n_rows rows of row_len values, one after the other at src, to floats at x.
///
/// Any bytes decode to something; only bytes that no encoder writes (a scale of NaN or infinity)
/// decode to floats that are not finite.
///
/// row_len: a multiple of TQ_BLOCK_VALUES.
/// src: at least n_rows * tq_row_bytes bytes, of any alignment; src_bytes says how many there are.
/// x: room for n_rows * row_len floats. Must not overlap src.
///
/// # Safety
/// Pointers are null or valid for what is said above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tq_dequantize_rows(
    r#type: u32,
    src: *const c_void,
    src_bytes: usize,
    n_rows: usize,
    row_len: usize,
    x: *mut f32,
) -> tq_status {
    guard(|| {
        let shape = Shape::new(turbo_type(r#type)?, n_rows, row_len)?;
        shape.check_bytes("src", src_bytes)?;
        // SAFETY: the caller's promise, for both.
        let (src, x) = unsafe {
            (values("src", src.cast::<u8>(), shape.bytes)?, values_mut("x", x, shape.values)?)
        };
        rows::dequantize_row(shape.ty, src, x).expect("lengths that `Shape` made");
        Ok(())
    })
}

/// Rows of a type that fit the address space, floats and blocks.
struct Shape {
    ty: TurboType,
    /// Values of all rows.
    values: usize,
    /// Bytes of all rows' blocks.
    bytes: usize,
}

impl Shape {
    fn new(ty: TurboType, rows: usize, len: usize) -> Result<Self, Error> {
        if !len.is_multiple_of(QK) {
            let padded = len.checked_next_multiple_of(QK).unwrap_or(usize::MAX);
            return Err(Error::RowLength { len, block: QK, padded });
        }
        // Floats take more bytes than blocks; slices take at most isize::MAX bytes.
        let values = rows.checked_mul(len);
        let fits = |values: &usize| *values <= isize::MAX as usize / size_of::<f32>();
        let values = values.filter(fits).ok_or(Error::TooLarge { rows, len })?;
        Ok(Self { ty, values, bytes: values / QK * ty.block_bytes() })
    }

    fn check_bytes(&self, name: &'static str, bytes: usize) -> Result<(), Error> {
        let needed = self.bytes;
        if bytes >= needed { Ok(()) } else { Err(Error::BufferTooSmall { name, bytes, needed }) }
    }
}

fn check_pointer<T>(name: &'static str, data: *const T, values: usize) -> Result<(), Error> {
    if data.is_null() {
        return Err(Error::NullPointer { name, values });
    }
    if !data.is_aligned() {
        return Err(Error::Misaligned { name, address: data.addr(), align: align_of::<T>() });
    }
    Ok(())
}

/// `len` values at `data`. None are read where there are none, so `data` may then be anything.
///
/// # Safety
/// `data` is null, misaligned, or valid for reads of `len` values for as long as `'a`.
pub(super) unsafe fn values<'a, T>(
    name: &'static str,
    data: *const T,
    len: usize,
) -> Result<&'a [T], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    check_pointer(name, data, len)?;
    // SAFETY: not null and aligned, as checked; valid by the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// `len` values at `data`, to write.
///
/// # Safety
/// As [`values`], for reads and writes, and nothing else refers to them.
pub(super) unsafe fn values_mut<'a, T>(
    name: &'static str,
    data: *mut T,
    len: usize,
) -> Result<&'a mut [T], Error> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_pointer(name, data, len)?;
    // SAFETY: not null and aligned, as checked; valid by the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(data, len) })
}
