//! ggml's q8_0 block, the other side of every dot product.

use half::f16;

/// Values in a q8_0 block; two of them face one turbo block.
pub const QK8_0: usize = 32;

/// 32 values in 34 bytes: `value = d * qs`. ggml's `block_q8_0`, read at any alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// f16 scale, little-endian.
    pub d: [u8; 2],
    /// Quants. Every q8_0 quantizer writes -127..=127.
    pub qs: [i8; QK8_0],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34 && align_of::<BlockQ8_0>() == 1);

impl BlockQ8_0 {
    /// The scale as a float.
    pub fn d(&self) -> f32 {
        f16::from_le_bytes(self.d).to_f32()
    }

    /// Quantizes 32 values: `d` is the largest magnitude over 127. Values must be finite.
    pub fn quantize(x: &[f32; QK8_0]) -> Self {
        let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let d = largest / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let qs = x.map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8);
        Self { d: f16::from_f32(d).to_le_bytes(), qs }
    }
}
