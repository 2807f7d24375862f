//! Vector kernels: one folder per ISA.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod fold;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

#[cfg(all(test, target_arch = "x86_64"))]
mod decoder_tests {
    use crate::codec::{Block, trellis};

    fn check<const K: usize>(planes: [[u8; 8]; K]) {
        #[target_feature(enable = "avx2")]
        fn avx2<const K: usize>(b: &Block<K>) -> [i8; 64] {
            // SAFETY: two registers of 32 bytes are 64 bytes, and any byte is an i8.
            unsafe { std::mem::transmute(super::avx2::decode::levels(b)) }
        }
        let block = Block {
            scale: [0; 2],
            planes,
        };
        // SAFETY: the caller has checked for AVX2.
        assert_eq!(unsafe { avx2(&block) }, trellis::decode(&block));
    }

    #[test]
    fn avx2_levels() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            eprintln!("SKIPPED: no AVX2");
            return;
        }
        for seed in 0..64u64 {
            let word = |k: u64| {
                (seed * 4 + k + 1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .to_le_bytes()
            };
            check([word(0), word(1)]);
            check([word(0), word(1), word(2)]);
            check([word(0), word(1), word(2), word(3)]);
        }
    }
}
