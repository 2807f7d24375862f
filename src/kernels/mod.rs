//! Kernels: one folder per ISA, one table of functions for each, chosen once at run time.
//!
//! [`active`] is the table to use. `TQ_SIMD` forces one: `scalar`, `avx2`, `avx512` or `neon`, or one
//! exact name of [`available`]. The tables differ in speed only: levels and floats of
//! `dequantize_row` have the same bits everywhere, dot products differ by rounding.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod encode;
mod fold;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(crate) mod neon;
mod q8_0;
pub(crate) mod scalar;

use std::sync::OnceLock;

use crate::codec::encode::Encoded;
use crate::codec::{Block, QK};
pub use q8_0::{BlockQ8_0, QK8_0};

/// The kernels of one ISA.
#[derive(Debug)]
#[non_exhaustive]
pub struct Kernels {
    /// `scalar`, `avx2`, `avx2-vnni`, `avx512`, `avx512-vnni`, `neon` or `neon-dotprod`.
    pub name: &'static str,
    /// Row functions of turbo2.
    pub turbo2: RowKernels<2>,
    /// Row functions of turbo3.
    pub turbo3: RowKernels<3>,
    /// Row functions of turbo4.
    pub turbo4: RowKernels<4>,
}

/// Row functions of turbo`K`. They panic where lengths do not fit each other.
#[derive(Debug)]
#[non_exhaustive]
pub struct RowKernels<const K: usize> {
    /// Encodes a row, the same bits on every ISA: how many values were not finite (coded as 0).
    /// Shapes: n floats, n / 64 blocks.
    pub quantize_row: fn(&[f32], &mut [Block<K>]) -> u64,
    /// `out[64 i + e] = scale of block i * level e`, exact. Shapes: n / 64 blocks, n floats.
    pub dequantize_row: fn(&[Block<K>], &mut [f32]),
    /// `sum(x * y)`. Shapes: n / 64 blocks, n / 32 blocks with quants in -127..=127.
    ///
    /// Within `(n / 32 + 16) * 2^-23 * sum |x * y|` of the exact sum, where all scales are finite.
    pub vec_dot_q8_0: fn(&[Block<K>], &[BlockQ8_0]) -> f32,
}

/// The row functions of a `K` that is known at compile time.
pub trait Rows<const K: usize> {
    /// Row functions of turbo`K`.
    fn rows(&self) -> &RowKernels<K>;
}

impl Rows<2> for Kernels {
    fn rows(&self) -> &RowKernels<2> {
        &self.turbo2
    }
}

impl Rows<3> for Kernels {
    fn rows(&self) -> &RowKernels<3> {
        &self.turbo3
    }
}

impl Rows<4> for Kernels {
    fn rows(&self) -> &RowKernels<4> {
        &self.turbo4
    }
}

impl Kernels {
    /// The ISA's family: the name without its extension, `avx512` for `avx512-vnni`.
    pub fn family(&self) -> &'static str {
        self.name.split_once('-').map_or(self.name, |(family, _)| family)
    }
}

/// `TQ_SIMD` asks for what this processor cannot do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("TQ_SIMD={asked} is not possible here: use one of {possible}, or unset it")]
pub struct UnknownSimd {
    /// The value of `TQ_SIMD`.
    pub asked: String,
    /// Names of [`available`], comma-separated.
    pub possible: String,
}

/// The tables that this processor can run, fastest first; `scalar` is always the last.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    type Candidate = (fn() -> bool, &'static Kernels);
    #[cfg(target_arch = "x86_64")]
    const VECTOR: &[Candidate] = &[
        (avx512::has_avx512_vnni, &avx512::AVX512_VNNI),
        (avx512::has_avx512, &avx512::AVX512),
        (avx2::has_avx2_vnni, &avx2::AVX2_VNNI),
        (avx2::has_avx2, &avx2::AVX2),
    ];
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    const VECTOR: &[Candidate] =
        &[(neon::has_neon_dotprod, &neon::NEON_DOTPROD), (neon::has_neon, &neon::NEON)];
    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little")
    )))]
    const VECTOR: &[Candidate] = &[];

    let vector = VECTOR.iter().filter(|(detected, _)| detected()).map(|(_, kernels)| *kernels);
    vector.chain([&scalar::KERNELS])
}

/// The fastest table, or the one that `asked` names exactly or by its family.
pub fn select(asked: Option<&str>) -> Result<&'static Kernels, UnknownSimd> {
    let fits = |k: &&Kernels| asked.is_none_or(|asked| asked == k.name || asked == k.family());
    available().find(fits).ok_or_else(|| UnknownSimd {
        asked: asked.unwrap_or_default().to_owned(),
        possible: available().map(|k| k.name).collect::<Vec<_>>().join(", "),
    })
}

/// The table in use: the fastest one, or `TQ_SIMD`'s; read once.
///
/// # Panics
/// If `TQ_SIMD` asks for what this processor cannot do, with what it can.
pub fn active() -> &'static Kernels {
    static ACTIVE: OnceLock<&Kernels> = OnceLock::new();
    ACTIVE.get_or_init(|| {
        let asked = std::env::var_os("TQ_SIMD").map(|value| value.to_string_lossy().into_owned());
        let kernels = select(asked.as_deref()).unwrap_or_else(|error| panic!("{error}"));
        tracing::debug!(simd = kernels.name, forced = asked.is_some(), "kernels chosen");
        kernels
    })
}

fn check_row<const K: usize>(blocks: &[Block<K>], values: usize) {
    assert_eq!(values, blocks.len() * QK, "a row of {} turbo{K} blocks", blocks.len());
}

fn check_dot<const K: usize>(x: &[Block<K>], y: &[BlockQ8_0]) {
    assert_eq!(y.len() * QK8_0, x.len() * QK, "q8_0 values against {} turbo{K} blocks", x.len());
}

/// Encodes a row block by block with one ISA's `encode`.
#[inline(always)]
fn quantize_row_with<const K: usize>(
    x: &[f32],
    blocks: &mut [Block<K>],
    encode: impl Fn(&[f32; QK]) -> Encoded<K>,
) -> u64 {
    check_row(blocks, x.len());
    let mut nonfinite = 0;
    for (x, block) in x.as_chunks().0.iter().zip(blocks) {
        let encoded = encode(x);
        *block = encoded.block;
        nonfinite += u64::from(encoded.nonfinite);
    }
    nonfinite
}

/// Defines `const fn $rows`: an ISA's row functions (its `search`, `dequantize` and `dot::$dot`), with their
/// lengths checked.
///
/// They are safe because they are reached through tables that [`available`] hands out where the processor
/// was seen to have the ISA, and not otherwise: so must be the result of `$rows`.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
macro_rules! row_kernels {
    ($rows:ident, dot: $dot:ident) => {
        const fn $rows<const K: usize>() -> crate::kernels::RowKernels<K> {
            crate::kernels::RowKernels {
                quantize_row: |x, blocks| {
                    // SAFETY: the processor has the ISA, as said above.
                    unsafe { search::quantize_row(x, blocks) }
                },
                dequantize_row: |blocks, out| {
                    crate::kernels::check_row(blocks, out.len());
                    // SAFETY: as above.
                    unsafe { dequantize::dequantize_row(blocks, out) }
                },
                vec_dot_q8_0: |x, y| {
                    crate::kernels::check_dot(x, y);
                    // SAFETY: as above.
                    unsafe { dot::$dot(x, y) }
                },
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
use row_kernels;
