//! Types of K and V caches, by layer if need be, and key anchors and scales.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::sys::{self, ggml_type};

/// The type of a K or V cache. Its name is ggml's.
///
/// ```
/// use llama_turboquant::llama::CacheType;
///
/// let k: CacheType = "turbo4".parse()?;
/// assert_eq!((k, k.bits_per_value()), (CacheType::Turbo4, 4.25));
/// # Ok::<(), llama_turboquant::llama::ParseCacheTypeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CacheType {
    F32,
    #[default]
    F16,
    Bf16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    Iq4Nl,
    Turbo4,
    Turbo3,
    Turbo2,
}

impl CacheType {
    /// All of them, the largest first.
    pub const ALL: [Self; 12] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
        Self::Iq4Nl,
        Self::Turbo4,
        Self::Turbo3,
        Self::Turbo2,
    ];

    /// ggml's name.
    pub const fn name(self) -> &'static str {
        self.properties().1
    }

    /// Values per block: a head_dim has to be a multiple of it.
    pub const fn block(self) -> u32 {
        self.properties().2
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> u32 {
        self.properties().3
    }

    /// Bits per value, scales included, key anchors (0.25 for K of a turbo type) not.
    pub const fn bits_per_value(self) -> f32 {
        (8 * self.block_bytes()) as f32 / self.block() as f32
    }

    /// Bits that a value takes in heads of this many: where no whole blocks of a turbo type fit, a head is padded.
    pub fn bits_at(self, head_dim: u32) -> f32 {
        if !self.is_turbo() || head_dim == 0 {
            return self.bits_per_value();
        }
        self.bits_per_value() * head_dim.next_multiple_of(self.block()) as f32 / head_dim as f32
    }

    /// Whether it is turbo2, turbo3 or turbo4.
    pub const fn is_turbo(self) -> bool {
        matches!(self, Self::Turbo4 | Self::Turbo3 | Self::Turbo2)
    }

    /// Whether it is not a float.
    pub const fn is_quantized(self) -> bool {
        self.block() > 1
    }

    /// The type nearest in size that is not turbo and has this head_dim, the larger of two.
    pub fn nearest(self, head_dim: u32) -> Self {
        let works = |t: &Self| !t.is_turbo() && head_dim.is_multiple_of(t.block());
        let distance = |t: &Self| (t.bits_per_value() - self.bits_per_value()).abs();
        let all = Self::ALL.into_iter().filter(works);
        all.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(Self::F16)
    }

    pub(super) const fn ggml(self) -> ggml_type {
        self.properties().0
    }

    const fn properties(self) -> (ggml_type, &'static str, u32, u32) {
        match self {
            Self::F32 => (ggml_type::GGML_TYPE_F32, "f32", 1, 4),
            Self::F16 => (ggml_type::GGML_TYPE_F16, "f16", 1, 2),
            Self::Bf16 => (ggml_type::GGML_TYPE_BF16, "bf16", 1, 2),
            Self::Q8_0 => (ggml_type::GGML_TYPE_Q8_0, "q8_0", 32, 34),
            Self::Q5_1 => (ggml_type::GGML_TYPE_Q5_1, "q5_1", 32, 24),
            Self::Q5_0 => (ggml_type::GGML_TYPE_Q5_0, "q5_0", 32, 22),
            Self::Q4_1 => (ggml_type::GGML_TYPE_Q4_1, "q4_1", 32, 20),
            Self::Q4_0 => (ggml_type::GGML_TYPE_Q4_0, "q4_0", 32, 18),
            Self::Iq4Nl => (ggml_type::GGML_TYPE_IQ4_NL, "iq4_nl", 32, 18),
            Self::Turbo4 => (ggml_type::GGML_TYPE_TURBO4, "turbo4", 64, 34),
            Self::Turbo3 => (ggml_type::GGML_TYPE_TURBO3, "turbo3", 64, 26),
            Self::Turbo2 => (ggml_type::GGML_TYPE_TURBO2, "turbo2", 64, 18),
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CacheType {
    type Err = ParseCacheTypeError;

    /// ggml's names. Errors: [`ParseCacheTypeError::Type`].
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|t| t.name() == name);
        found.ok_or_else(|| ParseCacheTypeError::Type { name: name.into() })
    }
}

/// Why a text is no [`CacheType`] or [`CachePolicy`](super::CachePolicy).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCacheTypeError {
    /// Not a type that caches can have.
    #[error(
        "unknown cache type {name:?}: there are f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, turbo4, turbo3, \
         turbo2"
    )]
    Type { name: String },
    /// Not `SELECTOR=TYPE`.
    #[error("{text:?} is no exception: expected SELECTOR=TYPE, as first2=q8_0")]
    Exception { text: String },
    /// Not layers.
    #[error("{text:?} selects no layers: expected firstN, lastN, N or N-M")]
    Selector { text: String },
}

/// Which of the two caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysOrValues {
    Keys,
    Values,
}

impl fmt::Display for KeysOrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if *self == Self::Keys { "K" } else { "V" })
    }
}

/// Whether keys are stored relative to means of the keys around, which is exact and makes quantized keys more
/// precise (docs/keys.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KvAnchors {
    /// Where K is of a turbo type and the model and its devices can have them.
    #[default]
    Auto,
    Off,
    /// For K of any type; an error where they cannot be.
    On,
}

impl KvAnchors {
    pub(super) const fn raw(self) -> sys::llama_kv_anchors_type {
        match self {
            Self::Auto => sys::LLAMA_KV_ANCHORS_AUTO,
            Self::Off => sys::LLAMA_KV_ANCHORS_OFF,
            Self::On => sys::LLAMA_KV_ANCHORS_ON,
        }
    }
}

/// Where key scales come from (docs/keys.md).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvCalibration {
    /// A file of [`calibrate`](super::calibrate::calibrate).
    File(PathBuf),
    /// The scales that the user's cache folder has for the model, for K of any type. If it has none, they are fitted first,
    /// in seconds (a quick fit), and kept there. An error where they cannot be.
    Auto,
    /// As [`KvCalibration::Auto`], but without scales where they cannot be, as the log then says.
    IfPossible,
    /// No scales.
    Off,
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn names_and_sizes_are_those_of_ggml() {
        for t in CacheType::ALL {
            // SAFETY: all of these are types with traits; names are static strings.
            let (name, block, bytes) = unsafe {
                let name = CStr::from_ptr(sys::ggml_type_name(t.ggml()));
                (name, sys::ggml_blck_size(t.ggml()), sys::ggml_type_size(t.ggml()))
            };
            assert_eq!(name.to_str(), Ok(t.name()));
            assert_eq!((block, bytes), (i64::from(t.block()), t.block_bytes() as usize), "{t}");
            assert_eq!(t.name().parse(), Ok(t));
        }
    }

    #[test]
    fn the_nearest_type_has_the_head_dim() {
        assert_eq!(CacheType::Turbo4.nearest(96), CacheType::Q4_0);
        assert_eq!(CacheType::Turbo2.nearest(80), CacheType::F16);
        assert_eq!(CacheType::Q8_0.nearest(80), CacheType::F16);
        assert_eq!(CacheType::Q5_1.nearest(128), CacheType::Q5_1);
    }

    #[test]
    fn unknown_types_are_errors_that_say_which_there_are() {
        let error = "turbo5".parse::<CacheType>().expect_err("no such type").to_string();
        assert!(error.contains("turbo5") && error.contains("turbo4"), "{error}");
    }
}
