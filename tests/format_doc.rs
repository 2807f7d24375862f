//! docs/format.md is enough to write a decoder from, and true: a decoder that takes its tables and its
//! formula from the page alone agrees with the page's example and with the codec.

mod format_page;

use format_page::{PAGE, REFRESH, example_bytes, example_values, levels_on_page};
use llama_turboquant::codec::{TurboType, levels};
use llama_turboquant::rows::dequantize_row;
use proptest::prelude::*;

/// Half precision by its definition: sign, five bits of exponent, ten of fraction.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// The page's formula, one bit at a time. It shares nothing with the codec.
fn decode(levels: &[i8], block: &[u8]) -> Vec<f32> {
    let planes = (block.len() - 2) / 8;
    let bit = |plane: usize, e: usize| block[2 + 8 * plane + e % 64 / 8] >> (e % 8) & 1;
    let u = |e: usize, before: usize| bit(0, e + 64 - before);
    let value = |e: usize| {
        let z1 = u(e, 0) ^ u(e, 1) ^ u(e, 6);
        let z0 = u(e, 2) ^ u(e, 4);
        let index: usize = (1..planes).map(|k| usize::from(bit(k, e)) << (k - 1)).sum();
        let number = 4 * index + 2 * usize::from(z1) + usize::from(z0);
        half(u16::from_le_bytes([block[0], block[1]])) * f32::from(levels[number])
    };
    (0..64).map(value).collect()
}

#[test]
fn the_tables_are_the_codecs() {
    for ty in TurboType::ALL {
        assert_eq!(levels_on_page(ty), levels(ty.index_bits()), "{REFRESH}");
    }
}

#[test]
fn the_sizes_are_the_codecs() {
    for ty in TurboType::ALL {
        let (name, bits) = (ty.name(), ty.index_bits());
        let row = format!("| {name} | {bits} | {} | {} |", ty.block_bytes(), ty.bits_per_value());
        assert!(PAGE.contains(&row), "no row `{row}` in docs/format.md");
    }
}

#[test]
fn the_example_decodes_to_its_values() {
    for ty in TurboType::ALL {
        let (bytes, values) = (example_bytes(ty), example_values(ty));
        assert_eq!(bytes.len(), ty.block_bytes(), "{REFRESH}");
        assert_eq!(decode(&levels_on_page(ty), &bytes), values, "{}: {REFRESH}", ty.name());

        let mut ours = vec![0.0; 64];
        dequantize_row(ty, &bytes, &mut ours).expect("one block");
        assert_eq!(ours, values, "{}: {REFRESH}", ty.name());
    }
}

proptest! {
    /// Any bytes at all: no panic, and the same bits as from the page.
    #[test]
    fn any_block_decodes_as_the_page_says(bytes in proptest::collection::vec(any::<u8>(), 34)) {
        for ty in TurboType::ALL {
            let block = &bytes[..ty.block_bytes()];
            let mut ours = vec![0.0; 64];
            dequantize_row(ty, block, &mut ours).expect("one block");
            for (ours, page) in ours.iter().zip(decode(&levels_on_page(ty), block)) {
                prop_assert!(ours.to_bits() == page.to_bits() || ours.is_nan() && page.is_nan());
            }
        }
    }
}
