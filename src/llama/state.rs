//! States: what a context or one of its sequences remembers, as bytes and in files.
//!
//! A state is the memory alone, without logits: decode a token before sampling. It is restored by a context of
//! the same model and cache types, with anchors and scales if it was saved with them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Context;
use super::error::StateError;
use super::ffi::{fenced, path_to_c};
use super::sys::{self, fence};
use super::{SeqId, Token, log};

/// What of a context is saved.
#[derive(Debug, Clone, Copy)]
enum Part {
    Whole,
    Sequence(i32),
}

impl Part {
    const fn raw(self) -> i32 {
        match self {
            Self::Whole => -1,
            Self::Sequence(seq) => seq,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Whole => "state of a context",
            Self::Sequence(_) => "state of a sequence",
        }
    }

    /// How files begin: magic and version, of those without checksums.
    const fn head(self) -> [u32; 2] {
        match self {
            Self::Whole => [sys::LLAMA_SESSION_MAGIC, sys::LLAMA_SESSION_VERSION],
            Self::Sequence(_) => [sys::LLAMA_STATE_SEQ_MAGIC, sys::LLAMA_STATE_SEQ_VERSION],
        }
    }

    /// Bytes of the state in a file, given those in memory, where a sequence has a head of its own.
    const fn file_size(self, size: usize) -> u64 {
        match self {
            Self::Whole => size as u64,
            Self::Sequence(_) => size as u64 - 8,
        }
    }
}

/// Set in the version of files whose states have checksums: `LLAMA_STATE_SEALED` of `llama-state-seal.h`.
const SEALED: u32 = 0x7471_0000;

/// Bytes of a file before its tokens: magic, version, number of tokens.
const HEAD: u64 = 12;

impl Context {
    /// Everything that the context remembers. Errors: [`StateError`].
    pub fn state(&mut self) -> Result<Vec<u8>, StateError> {
        self.get(Part::Whole)
    }

    /// Replaces everything that the context remembers.
    ///
    /// Errors: [`StateError::Restore`]; the context is then empty.
    pub fn set_state(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.set(Part::Whole, state)
    }

    /// What the context remembers of a sequence. Errors: [`StateError`].
    pub fn seq_state(&mut self, seq: SeqId) -> Result<Vec<u8>, StateError> {
        let part = self.part(seq)?;
        self.get(part)
    }

    /// Replaces a sequence by the state of one, whichever that was.
    ///
    /// Errors: [`StateError::Restore`]; the sequence is then empty.
    pub fn set_seq_state(&mut self, seq: SeqId, state: &[u8]) -> Result<(), StateError> {
        let part = self.part(seq)?;
        self.set(part, state)
    }

    /// Saves everything that the context remembers, and the tokens that it is of, if wanted.
    ///
    /// The file is llama.cpp's, as `--prompt-cache` has it. It is written beside, synced and renamed: what was
    /// there stays as it was unless all goes well. Errors: [`StateError`].
    pub fn save_state(
        &mut self,
        path: impl AsRef<Path>,
        tokens: &[Token],
    ) -> Result<(), StateError> {
        self.save(Part::Whole, path.as_ref(), tokens)
    }

    /// Replaces everything that the context remembers by a file of [`Context::save_state`]; returns the tokens that
    /// were saved with it.
    ///
    /// Errors: [`StateError`]; of [`StateError::Restore`], the context is then empty.
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<Vec<Token>, StateError> {
        self.load(Part::Whole, path.as_ref())
    }

    /// Saves a sequence: as [`Context::save_state`].
    pub fn save_seq_state(
        &mut self,
        seq: SeqId,
        path: impl AsRef<Path>,
        tokens: &[Token],
    ) -> Result<(), StateError> {
        let part = self.part(seq)?;
        self.save(part, path.as_ref(), tokens)
    }

    /// Replaces a sequence by a file of [`Context::save_seq_state`]: as [`Context::load_state`].
    pub fn load_seq_state(
        &mut self,
        seq: SeqId,
        path: impl AsRef<Path>,
    ) -> Result<Vec<Token>, StateError> {
        let part = self.part(seq)?;
        self.load(part, path.as_ref())
    }

    fn part(&self, seq: SeqId) -> Result<Part, StateError> {
        let n_seq_max = self.n_seq_max();
        if seq < n_seq_max {
            Ok(Part::Sequence(seq.cast_signed()))
        } else {
            Err(StateError::Sequence { seq, n_seq_max })
        }
    }

    fn size(&mut self, part: Part) -> Result<usize, StateError> {
        let mut size = 0;
        // SAFETY: the context lives, and the sequence is in range.
        let size_of = || unsafe { fence::tq_state_size(self.raw(), part.raw(), &raw mut size) };
        let (status, reason) = log::errors_of(size_of);
        fenced(status)?;
        if size == 0 { Err(StateError::Save { reason }) } else { Ok(size) }
    }

    fn get(&mut self, part: Part) -> Result<Vec<u8>, StateError> {
        let mut state = vec![0; self.size(part)?];
        let mut n = 0;
        // SAFETY: as above; the length is the buffer's own.
        let get = || unsafe {
            fence::tq_state_get(self.raw(), part.raw(), state.as_mut_ptr(), state.len(), &raw mut n)
        };
        let (status, reason) = log::errors_of(get);
        fenced(status)?;
        if n == 0 {
            return Err(StateError::Save { reason });
        }
        state.truncate(n);
        Ok(state)
    }

    fn set(&mut self, part: Part, state: &[u8]) -> Result<(), StateError> {
        let mut n = 0;
        // SAFETY: the context lives, the sequence is in range, the length is the buffer's own.
        let set = || unsafe {
            fence::tq_state_set(self.raw(), part.raw(), state.as_ptr(), state.len(), &raw mut n)
        };
        let (status, reason) = log::errors_of(set);
        let result = match fenced(status) {
            Err(e) => Err(e.into()),
            Ok(()) if n == 0 => Err(StateError::Restore { reason }),
            Ok(()) if n < state.len() => {
                Err(StateError::Restore { reason: format!("{} bytes too many", state.len() - n) })
            }
            Ok(()) => Ok(()),
        };
        self.or_empty(part, result)
    }

    fn save(&mut self, part: Part, path: &Path, tokens: &[Token]) -> Result<(), StateError> {
        let state = part.file_size(self.size(part)?);
        let expected = HEAD + size_of_val(tokens) as u64 + state;
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |error| StateError::Io { path, error }
        };
        let temporary = Temporary::beside(path)?;
        let file = path_to_c(&temporary.path)?;
        let mut saved = false;
        // SAFETY: the context lives, the sequence is in range; path and tokens live during the call.
        let save = || unsafe {
            let (tokens, n) = (tokens.as_ptr(), tokens.len());
            fence::tq_state_save(self.raw(), part.raw(), file.as_ptr(), tokens, n, &raw mut saved)
        };
        let (status, reason) = log::errors_of(save);
        fenced(status)?;
        // llama.cpp does not look at what closing the file returns: its size tells.
        let written = fs::metadata(&temporary.path).map_err(io(&temporary.path))?.len();
        if written != expected && (saved || written < expected) {
            return Err(StateError::Short { path: path.into(), written, expected });
        }
        if !saved {
            return Err(StateError::Save { reason });
        }
        let file = OpenOptions::new().write(true).open(&temporary.path);
        file.and_then(|file| file.sync_all()).map_err(io(&temporary.path))?;
        temporary.rename(path).map_err(io(path))
    }

    fn load(&mut self, part: Part, path: &Path) -> Result<Vec<Token>, StateError> {
        let file = path_to_c(path)?;
        let mut tokens: Vec<Token> = vec![0; n_tokens(path, part)?];
        let (mut n, mut loaded) = (0, false);
        // SAFETY: the context lives, the sequence is in range; the length is the buffer's own. It is not null.
        let load = || unsafe {
            let (buf, room) = (tokens.as_mut_ptr(), tokens.len());
            let (n, loaded) = (&raw mut n, &raw mut loaded);
            fence::tq_state_load(self.raw(), part.raw(), file.as_ptr(), buf, room, n, loaded)
        };
        let (status, reason) = log::errors_of(load);
        let result = match fenced(status) {
            Err(e) => Err(e.into()),
            Ok(()) if !loaded => Err(StateError::Restore { reason }),
            Ok(()) => Ok(()),
        };
        self.or_empty(part, result)?;
        tokens.truncate(n);
        Ok(tokens)
    }

    /// Empties what an error left half restored.
    fn or_empty(&mut self, part: Part, result: Result<(), StateError>) -> Result<(), StateError> {
        if result.is_err() {
            let emptied = match part {
                Part::Whole => self.clear(),
                Part::Sequence(seq) => self.seq_remove(seq.unsigned_abs(), ..),
            };
            if let Err(e) = emptied {
                tracing::warn!("after a state that was not restored: {e}");
            }
        }
        result
    }
}

/// How many tokens a file has. Errors: [`StateError::Format`] if it is no such state, [`StateError::Io`].
fn n_tokens(path: &Path, part: Part) -> Result<usize, StateError> {
    let io = |error| StateError::Io { path: path.into(), error };
    let format = |reason| StateError::Format { path: path.into(), what: part.name(), reason };
    let mut file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    if len < HEAD {
        return Err(format("it is too short"));
    }
    let mut head = [[0u8; 4]; 3];
    file.read_exact(head.as_flattened_mut()).map_err(io)?;
    let [magic, version, n] = head.map(u32::from_ne_bytes);
    if magic != part.head()[0] {
        return Err(format("it begins with other bytes"));
    }
    if version != part.head()[1] && version != part.head()[1] | SEALED {
        return Err(format("it was saved by another version of llama.cpp"));
    }
    if u64::from(n) > (len - HEAD) / size_of::<Token>() as u64 {
        return Err(format("it is cut off"));
    }
    Ok(n as usize)
}

/// A file that is removed unless it is renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// An empty file in the same folder. Errors: [`StateError::Io`].
    fn beside(path: &Path) -> Result<Self, StateError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let io = |error| StateError::Io { path: path.into(), error };
        let invalid = || io(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
        let mut name = path.file_name().ok_or_else(invalid)?.to_os_string();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}-{count}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(io)?;
        Ok(Self { path: temporary })
    }

    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        // The file is there; that its name survives a power cut, too, is up to the folder, where it can be synced.
        let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(parent).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed, it is no longer there.
        let _ = fs::remove_file(&self.path);
    }
}
