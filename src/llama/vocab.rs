//! Texts to tokens and back.

use std::borrow::Cow;
use std::ffi::CStr;

use super::Token;
use super::error::VocabError;
use super::ffi::fenced;
use super::model::Model;
use super::sys::{self, fence};

/// A model's vocabulary. Its functions may be called by several threads at once.
#[derive(Debug, Clone, Copy)]
pub struct Vocab<'m> {
    /// Keeps the vocabulary alive.
    model: &'m Model,
    raw: *const sys::llama_vocab,
}

// SAFETY: a vocabulary is only read; it lives as long as the model that is borrowed.
unsafe impl Send for Vocab<'_> {}
// SAFETY: as above.
unsafe impl Sync for Vocab<'_> {}

/// How a vocabulary splits texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VocabKind {
    /// The model came without one.
    None,
    /// SentencePiece, with a byte fallback.
    Spm,
    /// Byte-pair encoding.
    Bpe,
    /// WordPiece.
    Wpm,
    /// Unigram.
    Ugm,
    /// RWKV's.
    Rwkv,
    /// PLaMo 2's.
    Plamo2,
    /// One that this crate does not know.
    Other,
}

impl<'m> Vocab<'m> {
    pub(super) fn new(model: &'m Model, raw: *const sys::llama_vocab) -> Self {
        Self { model, raw }
    }

    /// The model that it is of.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// How many tokens there are; they are 0 to this.
    pub fn n_tokens(&self) -> u32 {
        // SAFETY: the vocabulary lives as long as 'm.
        unsafe { sys::llama_vocab_n_tokens(self.raw) }.unsigned_abs()
    }

    /// How it splits texts.
    pub fn kind(&self) -> VocabKind {
        // SAFETY: the vocabulary lives as long as 'm.
        match unsafe { sys::llama_vocab_type(self.raw) } {
            sys::LLAMA_VOCAB_TYPE_NONE => VocabKind::None,
            sys::LLAMA_VOCAB_TYPE_SPM => VocabKind::Spm,
            sys::LLAMA_VOCAB_TYPE_BPE => VocabKind::Bpe,
            sys::LLAMA_VOCAB_TYPE_WPM => VocabKind::Wpm,
            sys::LLAMA_VOCAB_TYPE_UGM => VocabKind::Ugm,
            sys::LLAMA_VOCAB_TYPE_RWKV => VocabKind::Rwkv,
            sys::LLAMA_VOCAB_TYPE_PLAMO2 => VocabKind::Plamo2,
            _ => VocabKind::Other,
        }
    }

    /// The tokens of a text.
    ///
    /// `add_special`: with those that the model wants at the beginning and the end. `parse_special`: what reads as
    /// a special token is one, as in the prompts of chat templates; false for text that users write.
    /// Errors: [`VocabError`], all but [`VocabError::Token`].
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, VocabError> {
        self.check()?;
        if add_special {
            self.check_added()?;
        }
        let text_len = length(text.len())?;
        let mut tokens: Vec<Token> = Vec::with_capacity(text.len() / 3 + 8);
        loop {
            let room = length(tokens.capacity())?;
            let mut n = 0;
            // SAFETY: the text is not terminated, its length is given; tokens have that much room.
            fenced(unsafe {
                fence::tq_tokenize(
                    self.raw,
                    text.as_ptr().cast(),
                    text_len,
                    tokens.as_mut_ptr(),
                    room,
                    add_special,
                    parse_special,
                    &raw mut n,
                )
            })?;
            if n == i32::MIN {
                return Err(VocabError::TooLong { len: text.len() });
            }
            let count = n.unsigned_abs() as usize;
            if n >= 0 {
                // SAFETY: that many were written.
                unsafe { tokens.set_len(count) };
                return Ok(tokens);
            }
            tokens.reserve(count);
        }
    }

    /// The text of some tokens, special ones left out if `special` is false. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// Errors: [`VocabError::Token`], [`VocabError::None`].
    pub fn detokenize(&self, tokens: &[Token], special: bool) -> Result<String, VocabError> {
        self.check()?;
        tokens.iter().try_for_each(|&token| self.check_token(token))?;
        let n_tokens = length(tokens.len())?;
        let mut text: Vec<u8> = vec![0; 8 * tokens.len() + 16];
        loop {
            let mut n = 0;
            // SAFETY: all tokens are in range; both lengths are the buffers' own.
            fenced(unsafe {
                fence::tq_detokenize(
                    self.raw,
                    tokens.as_ptr(),
                    n_tokens,
                    text.as_mut_ptr().cast(),
                    length(text.len())?,
                    false,
                    special,
                    &raw mut n,
                )
            })?;
            let count = n.unsigned_abs() as usize;
            if n >= 0 {
                text.truncate(count);
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            text.resize(count, 0);
        }
    }

    /// Appends the bytes of one token to `bytes`, nothing for a special one if `special` is false.
    ///
    /// A token may be part of a character: [`Utf8Stream`](super::Utf8Stream) joins them.
    /// Errors: [`VocabError::Token`], [`VocabError::None`].
    pub fn piece_into(
        &self,
        token: Token,
        special: bool,
        bytes: &mut Vec<u8>,
    ) -> Result<(), VocabError> {
        self.check()?;
        self.check_token(token)?;
        let start = bytes.len();
        let mut room = 32;
        loop {
            bytes.resize(start + room, 0);
            let mut n = 0;
            // SAFETY: the token is in range; there is that much room from `start`.
            let status = unsafe {
                let buf = bytes.as_mut_ptr().add(start).cast();
                fence::tq_token_to_piece(self.raw, token, buf, length(room)?, special, &raw mut n)
            };
            if let Err(e) = fenced(status) {
                bytes.truncate(start);
                return Err(e.into());
            }
            let count = n.unsigned_abs() as usize;
            if n >= 0 {
                bytes.truncate(start + count);
                return Ok(());
            }
            room = count;
        }
    }

    /// The bytes of one token: [`Vocab::piece_into`] a new vector.
    pub fn piece(&self, token: Token, special: bool) -> Result<Vec<u8>, VocabError> {
        let mut bytes = Vec::new();
        self.piece_into(token, special, &mut bytes)?;
        Ok(bytes)
    }

    /// A token as the vocabulary has it, which for most is not the text that it stands for.
    pub fn text(&self, token: Token) -> Option<Cow<'m, str>> {
        self.check().and_then(|()| self.check_token(token)).ok()?;
        // SAFETY: the token is in range; null or a terminated string that lives as long as 'm.
        let text = unsafe {
            let text = sys::llama_vocab_get_text(self.raw, token);
            (!text.is_null()).then(|| CStr::from_ptr(text))
        };
        text.map(CStr::to_string_lossy)
    }

    /// Whether the token ends a generation.
    pub fn is_eog(&self, token: Token) -> bool {
        // SAFETY: the vocabulary lives as long as 'm; any token may be asked for.
        unsafe { sys::llama_vocab_is_eog(self.raw, token) }
    }

    /// Whether the token is a control token, not text.
    pub fn is_control(&self, token: Token) -> bool {
        // SAFETY: the token is in range, and the vocabulary is not of the type without tokens.
        self.check().is_ok()
            && self.check_token(token).is_ok()
            && unsafe { sys::llama_vocab_is_control(self.raw, token) }
    }

    /// Beginning of a sequence.
    pub fn bos(&self) -> Option<Token> {
        self.special(sys::llama_vocab_bos)
    }

    /// End of a sequence.
    pub fn eos(&self) -> Option<Token> {
        self.special(sys::llama_vocab_eos)
    }

    /// End of a turn.
    pub fn eot(&self) -> Option<Token> {
        self.special(sys::llama_vocab_eot)
    }

    /// Separator of sentences.
    pub fn sep(&self) -> Option<Token> {
        self.special(sys::llama_vocab_sep)
    }

    /// Next line.
    pub fn nl(&self) -> Option<Token> {
        self.special(sys::llama_vocab_nl)
    }

    /// Padding.
    pub fn pad(&self) -> Option<Token> {
        self.special(sys::llama_vocab_pad)
    }

    /// Mask.
    pub fn mask(&self) -> Option<Token> {
        self.special(sys::llama_vocab_mask)
    }

    /// Fill-in-the-middle: what comes before the middle.
    pub fn fim_pre(&self) -> Option<Token> {
        self.special(sys::llama_vocab_fim_pre)
    }

    /// Fill-in-the-middle: what comes behind the middle.
    pub fn fim_suf(&self) -> Option<Token> {
        self.special(sys::llama_vocab_fim_suf)
    }

    /// Fill-in-the-middle: the middle begins.
    pub fn fim_mid(&self) -> Option<Token> {
        self.special(sys::llama_vocab_fim_mid)
    }

    /// Whether [`Vocab::tokenize`] with `add_special` begins with [`Vocab::bos`].
    pub fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as 'm.
        unsafe { sys::llama_vocab_get_add_bos(self.raw) }
    }

    /// Whether [`Vocab::tokenize`] with `add_special` ends with [`Vocab::eos`].
    pub fn adds_eos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as 'm.
        unsafe { sys::llama_vocab_get_add_eos(self.raw) }
    }

    /// The raw vocabulary, for functions that are not wrapped.
    pub fn raw(&self) -> *const sys::llama_vocab {
        self.raw
    }

    /// Errors: [`VocabError::Token`] if it is out of range.
    pub(super) fn check_token(&self, token: Token) -> Result<(), VocabError> {
        let n_tokens = self.n_tokens();
        match u32::try_from(token) {
            Ok(id) if id < n_tokens => Ok(()),
            _ => Err(VocabError::Token { token, n_tokens }),
        }
    }

    fn check(&self) -> Result<(), VocabError> {
        if self.kind() == VocabKind::None { Err(VocabError::None) } else { Ok(()) }
    }

    /// Errors: [`VocabError::NoSpecial`] if the model wants tokens added that it does not have: llama.cpp would abort.
    fn check_added(&self) -> Result<(), VocabError> {
        let wpm = self.kind() == VocabKind::Wpm;
        for (wanted, token, name) in [
            (self.adds_bos() || wpm, self.bos(), "bos"),
            (self.adds_eos(), self.eos(), "eos"),
            (wpm, self.sep(), "sep"),
        ] {
            if wanted && token.is_none() {
                return Err(VocabError::NoSpecial { name });
            }
        }
        Ok(())
    }

    fn special(
        &self,
        get: unsafe extern "C" fn(*const sys::llama_vocab) -> sys::llama_token,
    ) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as 'm.
        let token = unsafe { get(self.raw) };
        (token != sys::LLAMA_TOKEN_NULL).then_some(token)
    }
}

/// A length as llama.cpp takes it. Errors: [`VocabError::TooLong`].
fn length(len: usize) -> Result<i32, VocabError> {
    i32::try_from(len).map_err(|_| VocabError::TooLong { len })
}
