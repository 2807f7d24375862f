//! Checks every kernel that this processor runs against the codec, on a few hundred blocks.
//!
//! `cargo run --release --no-default-features --example check_kernels [NAME...]`: fails where a NAME (`avx2`,
//! `neon-dotprod`, ..) is not among them. Needs no threads, files or dependencies, so that it also runs
//! where the test suite does not: on an emulated processor (`script/test-avx512`) or a new machine.

use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::{Block, QK, trellis};
use llama_turboquant::kernels::{self, BlockQ8_0, Kernels, QK8_0, Rows};

/// Rows checked for each type and function.
const ROWS: usize = 24;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In -1..1, denser around 0.
    fn value(&mut self) -> f32 {
        let unit = |bits: u64| bits as u32 as f32 / u32::MAX as f32;
        unit(self.word()) - unit(self.word())
    }

    fn block<const K: usize>(&mut self, scale: u16) -> Block<K> {
        let mut block = Block { scale: scale.to_le_bytes(), planes: [[0; 8]; K] };
        block.planes = block.planes.map(|_| self.word().to_le_bytes());
        block
    }
}

fn check_decoders<const K: usize>(kernels: &Kernels, random: &mut Random)
where
    Kernels: Rows<K>,
{
    for row in 0..ROWS {
        // 1, any, infinity, NaN, the least subnormal, -0.
        let scales = [0x3c00, random.word() as u16, 0x7c00, 0xfe01, 0x0001, 0x8000];
        let blocks: Vec<Block<K>> =
            scales[..1 + row % 6].iter().map(|&scale| random.block(scale)).collect();
        let mut out = vec![0.0; blocks.len() * QK + 1];
        (kernels.rows().dequantize_row)(&blocks, &mut out[1..]);
        for (block, out) in blocks.iter().zip(out[1..].as_chunks::<QK>().0) {
            for (level, out) in trellis::decode(block).into_iter().zip(out) {
                let expected = block.scale() * f32::from(level);
                let same = out.to_bits() == expected.to_bits() || out.is_nan() && expected.is_nan();
                assert!(same, "{}: {out:e} instead of {expected:e} in {block:?}", kernels.name);
            }
        }
    }
}

fn check_dots<const K: usize>(kernels: &Kernels, random: &mut Random)
where
    Kernels: Rows<K>,
{
    for row in 0..ROWS {
        let x: Vec<Block<K>> = (0..row).map(|i| random.block(0x2e66 + 99 * i as u16)).collect();
        let quants = |_| {
            let values: [f32; QK8_0] = std::array::from_fn(|_| random.value());
            // One full-scale block in a while: all quants 127 or -127.
            BlockQ8_0::quantize(&if row % 5 == 4 { values.map(f32::signum) } else { values })
        };
        let y: Vec<BlockQ8_0> = (0..2 * row).map(quants).collect();
        let (mut exact, mut magnitude) = (0.0, 0.0);
        for (x, [y0, y1]) in x.iter().zip(y.as_chunks::<2>().0) {
            let y = [y0, y1].map(|y| y.qs.map(|q| f64::from(q) * f64::from(y.d())));
            for (level, y) in trellis::decode(x).into_iter().zip(y.concat()) {
                exact += f64::from(x.scale()) * f64::from(level) * y;
                magnitude += (f64::from(x.scale()) * f64::from(level) * y).abs();
            }
        }
        let dot = f64::from((kernels.rows().vec_dot_q8_0)(&x, &y));
        let bound = (2 * row + 16) as f64 * f64::from(f32::EPSILON) * magnitude;
        assert!((dot - exact).abs() <= bound, "{}: {dot} instead of {exact}", kernels.name);
    }
}

fn check_encoder<const K: usize>(kernels: &Kernels, random: &mut Random)
where
    Kernels: Rows<K>,
{
    for row in 0..ROWS {
        let factor = [1.0, 1e-6, 3e4, 1e30][row % 4];
        let mut x: [f32; QK] = std::array::from_fn(|_| factor * random.value());
        let broken = [f32::NAN, f32::INFINITY, f32::MAX, 1e-42, 0.0];
        x[row] = broken[row % 5];
        let mut block = [Block::<K>::ZERO];
        let nonfinite = (kernels.rows().quantize_row)(&x, &mut block);
        let expected = encode(&x);
        assert_eq!(block[0], expected.block, "{} encodes {x:?}", kernels.name);
        assert_eq!(nonfinite, u64::from(expected.nonfinite), "{} of {x:?}", kernels.name);
    }
}

fn check<const K: usize>(kernels: &Kernels, random: &mut Random)
where
    Kernels: Rows<K>,
{
    check_decoders(kernels, random);
    check_dots(kernels, random);
    check_encoder(kernels, random);
}

fn main() {
    let names: Vec<_> = kernels::available().map(|kernels| kernels.name).collect();
    for asked in std::env::args().skip(1) {
        assert!(names.contains(&&*asked), "this processor has no {asked}, only {names:?}");
    }
    let mut random = Random(20_260_101);
    for kernels in kernels::available() {
        check::<2>(kernels, &mut random);
        check::<3>(kernels, &mut random);
        check::<4>(kernels, &mut random);
        println!(
            "{}: turbo2, turbo3, turbo4 decode, dot and encode as the codec does",
            kernels.name
        );
    }
}
