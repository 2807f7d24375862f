//! Indices of 1 to 8 bits as bytes, low bits first, with no gaps but at the end.

/// Bytes of `n` indices.
pub fn bytes(bits: u32, n: usize) -> usize {
    (bits as usize * n).div_ceil(8)
}

/// Writes `indices`, each below `2^bits`, to `out`, which they fill.
pub fn pack(bits: u32, indices: impl Iterator<Item = usize>, out: &mut [u8]) {
    let mut out = out.iter_mut();
    let (mut word, mut held) = (0u32, 0);
    for index in indices {
        word |= (index as u32) << held;
        held += bits;
        while held >= 8 {
            *out.next().expect("as many bytes as `bytes` says") = word as u8;
            word >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        *out.next().expect("as many bytes as `bytes` says") = word as u8;
    }
}

/// The indices in `packed`, and perhaps some zeros after them.
pub fn unpack(bits: u32, packed: &[u8]) -> impl Iterator<Item = usize> {
    let mask = (1u32 << bits) - 1;
    (0..packed.len() * 8 / bits as usize).map(move |i| {
        let (byte, shift) = (i * bits as usize / 8, i * bits as usize % 8);
        let high = packed.get(byte + 1).copied().unwrap_or(0);
        (u32::from(u16::from_le_bytes([packed[byte], high])) >> shift & mask) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn low_bits_come_first() {
        let mut out = [0; 2];
        pack(3, [1, 2, 7, 5].into_iter(), &mut out);
        assert_eq!(out, [0b1101_0001, 0b1011]);
    }

    proptest! {
        #[test]
        fn unpack_undoes_pack(bits in 1u32..=8, raw: Vec<u8>) {
            let indices: Vec<_> = raw.iter().map(|v| usize::from(*v) & ((1 << bits) - 1)).collect();
            let mut packed = vec![0; bytes(bits, indices.len())];
            pack(bits, indices.iter().copied(), &mut packed);
            prop_assert_eq!(unpack(bits, &packed).take(indices.len()).collect::<Vec<_>>(), indices);
        }
    }
}
