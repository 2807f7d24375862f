//! What devices code and decode in tests.

use llama_turboquant::codec::encode::encode;
use llama_turboquant::codec::rng::SplitMix64;
use llama_turboquant::codec::{Block, QK, trellis};

/// Blocks with any bits, among them such as no encoder writes.
pub fn any_blocks<const K: usize>() -> Vec<Block<K>> {
    let mut rng = SplitMix64::new(11);
    let mut blocks = vec![Block::ZERO; 2000];
    for block in &mut blocks {
        // Neither infinite nor NaN.
        let scale = rng.next_u64() as u16;
        let scale = if scale & 0x7c00 == 0x7c00 { scale & !0x4000 } else { scale };
        *block = Block {
            scale: scale.to_le_bytes(),
            planes: std::array::from_fn(|_| rng.next_u64().to_le_bytes()),
        };
    }
    for (i, byte) in [0x00, 0xff, 0x55, 0xaa, 0x0f, 0x01, 0x80].into_iter().enumerate() {
        blocks[i] = Block { scale: [0x00, 0x3c], planes: [[byte; 8]; K] };
    }
    blocks
}

/// Gaussians of every magnitude, some with outliers, zeros, ties, what is not finite, and what was coded before.
pub fn rows() -> Vec<[f32; QK]> {
    let mut rng = SplitMix64::new(5);
    let mut rows: Vec<[f32; QK]> = (0..600)
        .map(|i| {
            let magnitude = (2.0f32).powi([0, 0, 0, 5, -5, 30, -26, -60, 120, -140][i % 10]);
            let mut row = std::array::from_fn(|_| rng.gaussian() as f32 * magnitude);
            if i % 7 == 0 {
                row[i % QK] *= 30.0;
            }
            row
        })
        .collect();
    rows.push([0.0; QK]);
    rows.push([1.0; QK]);
    rows.push(std::array::from_fn(|e| e as f32 - 31.5));
    rows.push(std::array::from_fn(|e| if e == 40 { -3.0 } else { 0.0 }));
    rows.push(std::array::from_fn(|e| [f32::NAN, 1.0, f32::INFINITY, -2.0, f32::MAX][e % 5]));
    rows.push(std::array::from_fn(|e| [f32::MIN_POSITIVE, 1e-40, -0.0, 1e-45][e % 4]));
    rows.extend((0..200).map(|_| std::array::from_fn(|_| f32::from_bits(rng.next_u64() as u32))));
    rows.extend((1..20).map(planted));
    for i in 0..20 {
        let gaussians = rows[i];
        rows.extend([coded::<2>(&gaussians), coded::<3>(&gaussians), coded::<4>(&gaussians)]);
    }
    rows
}

/// Small values that are all on one path, on which turbo2 has no level for the large one: an unbiased scale would be up to
/// ten times that of least squares, and is limited.
fn planted(n: usize) -> [f32; QK] {
    std::array::from_fn(|e| if e == 17 { 1.0 } else { n as f32 / 400.0 })
}

/// What a row is decoded to, which is encoded to the same block.
pub fn coded<const K: usize>(row: &[f32; QK]) -> [f32; QK] {
    let block = encode::<K>(row).block;
    trellis::decode(&block).map(|level| block.scale() * f32::from(level))
}

/// Their bytes.
pub fn bytes_of_blocks<const K: usize>(blocks: &[Block<K>]) -> Vec<u8> {
    let mut bytes = vec![0; blocks.len() * Block::<K>::BYTES];
    for (block, bytes) in blocks.iter().zip(bytes.chunks_exact_mut(Block::<K>::BYTES)) {
        block.write_to(bytes);
    }
    bytes
}

/// Their bytes.
pub fn bytes_of_rows(rows: &[[f32; QK]]) -> Vec<u8> {
    rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect()
}

/// Pairs of blocks, the last pair first.
pub fn backwards<T: Clone>(blocks: &[T]) -> Vec<T> {
    blocks.chunks(2).rev().flatten().cloned().collect()
}
