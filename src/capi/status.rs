//! How the C ABI fails: a status for the program, and a sentence with the numbers in it for its user.
//!
//! Neither allocates: messages go to a fixed buffer of the calling thread. No panic reaches C.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of a call. 0 is success; numbers never change their meaning.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum tq_status {
    /// Done.
    TQ_OK = 0,
    /// A pointer is NULL although there is something to read or write.
    TQ_ERROR_NULL_POINTER = 1,
    /// A pointer is not aligned for what it points to.
    TQ_ERROR_MISALIGNED = 2,
    /// The type is none of tq_type.
    TQ_ERROR_UNKNOWN_TYPE = 3,
    /// The length of a row is not a multiple of TQ_BLOCK_VALUES.
    TQ_ERROR_ROW_LENGTH = 4,
    /// A buffer has too few bytes.
    TQ_ERROR_BUFFER_TOO_SMALL = 5,
    /// The rows would not fit the address space.
    TQ_ERROR_TOO_LARGE = 6,
    /// A defect in this library, or TQ_SIMD asks for what the processor cannot do.
    TQ_ERROR_INTERNAL = 7,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("{name} is null, but {values} values are to be read or written there")]
    NullPointer { name: &'static str, values: usize },
    #[error("{name} is at address {address:#x}, which is not a multiple of {align}")]
    Misaligned { name: &'static str, address: usize, align: usize },
    #[error("type {id} is unknown: use TQ_TURBO2 (2), TQ_TURBO3 (3) or TQ_TURBO4 (4)")]
    UnknownType { id: u32 },
    #[error("row length {len} is not a multiple of {block}: pad the row to {padded} values")]
    RowLength { len: usize, block: usize, padded: usize },
    #[error("{name} has {bytes} bytes, but the rows take {needed}")]
    BufferTooSmall { name: &'static str, bytes: usize, needed: usize },
    #[error("{rows} rows of {len} values do not fit the address space")]
    TooLarge { rows: usize, len: usize },
}

impl Error {
    fn status(&self) -> tq_status {
        match self {
            Self::NullPointer { .. } => tq_status::TQ_ERROR_NULL_POINTER,
            Self::Misaligned { .. } => tq_status::TQ_ERROR_MISALIGNED,
            Self::UnknownType { .. } => tq_status::TQ_ERROR_UNKNOWN_TYPE,
            Self::RowLength { .. } => tq_status::TQ_ERROR_ROW_LENGTH,
            Self::BufferTooSmall { .. } => tq_status::TQ_ERROR_BUFFER_TOO_SMALL,
            Self::TooLarge { .. } => tq_status::TQ_ERROR_TOO_LARGE,
        }
    }
}

/// Runs `call`; a refusal or a panic becomes a status, and its text this thread's last error.
pub(super) fn guard(call: impl FnOnce() -> Result<(), Error>) -> tq_status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => tq_status::TQ_OK,
        Ok(Err(error)) => {
            record(format_args!("{error}"));
            error.status()
        }
        Err(panic) => {
            record(format_args!("{}", panic_text(panic.as_ref())));
            tq_status::TQ_ERROR_INTERNAL
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic without a text")
}

/// As many of the first characters of `text` as take at most `room` bytes.
pub(super) fn cut(text: &str, room: usize) -> &str {
    let fits = |end: &usize| *end <= room && text.is_char_boundary(*end);
    &text[..(0..=text.len()).rev().find(fits).unwrap_or(0)]
}

/// Text of a thread's last error, always with a NUL at its end.
struct Message {
    bytes: [u8; Self::SIZE],
    len: usize,
}

impl Message {
    /// The longest message above takes some 150 bytes; what is longer is cut.
    const SIZE: usize = 512;
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = cut(text, Self::SIZE - 1 - self.len);
        self.bytes[self.len..][..text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

thread_local! {
    static LAST: RefCell<Message> =
        const { RefCell::new(Message { bytes: [0; Message::SIZE], len: 0 }) };
}

fn record(text: fmt::Arguments) {
    LAST.with_borrow_mut(|message| {
        message.len = 0;
        // Writing to the fixed buffer cannot fail; a Display that does leaves a shorter text.
        let _ = message.write_fmt(text);
        message.bytes[message.len] = 0;
    });
}

const MESSAGES: [(tq_status, &CStr); 8] = [
    (tq_status::TQ_OK, c"success"),
    (
        tq_status::TQ_ERROR_NULL_POINTER,
        c"a pointer is null although there is something to read or write",
    ),
    (tq_status::TQ_ERROR_MISALIGNED, c"a pointer is not aligned for what it points to"),
    (tq_status::TQ_ERROR_UNKNOWN_TYPE, c"the type is none of turbo2, turbo3 and turbo4"),
    (tq_status::TQ_ERROR_ROW_LENGTH, c"the length of a row is not a multiple of 64"),
    (tq_status::TQ_ERROR_BUFFER_TOO_SMALL, c"a buffer has too few bytes"),
    (tq_status::TQ_ERROR_TOO_LARGE, c"the rows do not fit the address space"),
    (tq_status::TQ_ERROR_INTERNAL, c"internal error"),
];

/// What a status means, in English, without the numbers of a particular call; never NULL.
///
/// status: any number; one that is no tq_status gives "unknown status".
#[unsafe(no_mangle)]
pub extern "C" fn tq_status_message(status: i32) -> *const c_char {
    let known = MESSAGES.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

/// Why this thread's latest failed call failed, with the offending numbers and the way out.
///
/// "" before the first failure; never NULL. A success leaves it as it is. The text is valid until
/// the thread's next failing call or its end.
#[unsafe(no_mangle)]
pub extern "C" fn tq_last_error() -> *const c_char {
    LAST.with(|message| message.borrow().bytes.as_ptr().cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the pointer is this thread's buffer, whose last byte is always 0.
        unsafe { CStr::from_ptr(tq_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_and_its_text() {
        assert_eq!(last(), "");
        assert_eq!(guard(|| panic!("broken at {}", 7)), tq_status::TQ_ERROR_INTERNAL);
        assert_eq!(last(), "broken at 7");
        assert_eq!(guard(|| panic!("broken")), tq_status::TQ_ERROR_INTERNAL);
        assert_eq!(guard(|| Ok(())), tq_status::TQ_OK);
        assert_eq!(last(), "broken");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        record(format_args!("{}", "ä".repeat(400)));
        assert_eq!(last(), "ä".repeat(255));
        record(format_args!("short"));
        assert_eq!(last(), "short");
    }

    #[test]
    fn messages_of_threads_do_not_mix() {
        record(format_args!("here"));
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
        assert_eq!(last(), "here");
    }
}
