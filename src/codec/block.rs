//! The blocks: 64 values in `2 + 8 K` bytes, for K = 2, 3 and 4 bits a value.

use half::f16;

/// Values in a block.
pub const QK: usize = 64;

/// One block of [`QK`] values at `K` index bits a value; ggml's `block_turbo{K}`.
///
/// Little-endian bytes with no padding and no alignment, as they lie in a KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block<const K: usize> {
    /// f16 scale. Finite in every block that the encoder writes.
    pub scale: [u8; 2],
    /// `K` planes of 64 bits; bit `e` of a plane belongs to value `e`.
    /// Plane 0 is the trellis path, planes 1 to K-1 are the index within the subset, low bit first.
    pub planes: [[u8; 8]; K],
}

/// 2.25 bits a value.
pub type Turbo2Block = Block<2>;
/// 3.25 bits a value.
pub type Turbo3Block = Block<3>;
/// 4.25 bits a value.
pub type Turbo4Block = Block<4>;

const _: () = assert!(size_of::<Turbo2Block>() == 18 && align_of::<Turbo2Block>() == 1);
const _: () = assert!(size_of::<Turbo3Block>() == 26 && align_of::<Turbo3Block>() == 1);
const _: () = assert!(size_of::<Turbo4Block>() == 34 && align_of::<Turbo4Block>() == 1);

impl<const K: usize> Block<K> {
    /// Bytes of a block.
    pub const BYTES: usize = 2 + 8 * K;

    /// The block that decodes to 64 zeros.
    pub const ZERO: Self = Self { scale: [0; 2], planes: [[0; 8]; K] };

    /// Reads a block from its bytes. `bytes`: exactly [`Self::BYTES`] of them.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), Self::BYTES, "a turbo{K} block has {} bytes", Self::BYTES);
        let (scale, planes) = bytes.split_at(2);
        let mut block = Self::ZERO;
        block.scale.copy_from_slice(scale);
        for (plane, bytes) in block.planes.iter_mut().zip(planes.chunks_exact(8)) {
            plane.copy_from_slice(bytes);
        }
        block
    }

    /// Writes the block's bytes. `bytes`: exactly [`Self::BYTES`] of them.
    pub fn write_to(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), Self::BYTES, "a turbo{K} block has {} bytes", Self::BYTES);
        let (scale, planes) = bytes.split_at_mut(2);
        scale.copy_from_slice(&self.scale);
        for (plane, bytes) in self.planes.iter().zip(planes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(plane);
        }
    }

    /// The scale as a float.
    pub fn scale(&self) -> f32 {
        f16::from_le_bytes(self.scale).to_f32()
    }

    /// Plane `k` as 64 bits, bit `e` for value `e`.
    pub fn plane(&self, k: usize) -> u64 {
        u64::from_le_bytes(self.planes[k])
    }
}

/// The three types, by their index bits a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TurboType {
    /// 2.25 bits a value.
    Turbo2 = 2,
    /// 3.25 bits a value.
    Turbo3 = 3,
    /// 4.25 bits a value.
    Turbo4 = 4,
}

impl TurboType {
    /// Every type, fewest bits first.
    pub const ALL: [Self; 3] = [Self::Turbo2, Self::Turbo3, Self::Turbo4];

    /// Index bits a value: 2, 3 or 4.
    pub const fn index_bits(self) -> usize {
        self as usize
    }

    /// Bytes of a block of [`QK`] values.
    pub const fn block_bytes(self) -> usize {
        2 + 8 * self.index_bits()
    }

    /// Stored bits a value, scale included: 2.25, 3.25 or 4.25.
    pub const fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / QK as f64
    }

    /// ggml's name of the type: `turbo2`, `turbo3` or `turbo4`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turbo2 => "turbo2",
            Self::Turbo3 => "turbo3",
            Self::Turbo4 => "turbo4",
        }
    }
}
