//! Whether a model can have a cache of some types, before llama.cpp is asked: the error says what to use instead.

use super::cache_policy::CachePolicy;
use super::cache_type::{CacheType, KeysOrValues};
use super::error::CacheError;
use super::model::{KvLayer, Model};

/// Whether this llama.cpp rotates the keys of latent attention without a sliding window.
const ROTATES_LATENT: bool = !cfg!(tq_pin = "0.25.3");

/// The environment variable that switches llama.cpp's rotation off.
const ROTATION_OFF: &str = "LLAMA_ATTN_ROT_DISABLE";

impl Model {
    /// Whether contexts of this model can have K and V caches of these types, with flash attention or without.
    ///
    /// Creating a context checks this, too. Errors: [`CacheError`], which names the nearest type that works.
    pub fn check_cache(
        &self,
        k: &CachePolicy,
        v: &CachePolicy,
        flash_attention: bool,
    ) -> Result<(), CacheError> {
        let rotation_off = std::env::var(ROTATION_OFF).ok().filter(|v| is_nonzero(v));
        let request = Request { k, v, flash_attention, rotation_off };
        request.check(self.shape())
    }
}

/// C's `atoi`, as llama.cpp reads the variable.
fn is_nonzero(value: &str) -> bool {
    let digits = value.trim_start().trim_start_matches(['+', '-']);
    digits.bytes().take_while(u8::is_ascii_digit).any(|b| b != b'0')
}

/// What of a model decides which caches it can have.
#[derive(Debug, Clone, Default)]
pub(super) struct CacheShape {
    /// Layers with keys of their own.
    pub layers: Vec<KvLayer>,
    /// Multi-head latent attention.
    pub latent: bool,
    pub sliding_window: bool,
    /// The graph writes the cache by itself: one type for all layers.
    pub own_attention: bool,
    pub same_types: bool,
    /// The graph leaves flash attention, even where it is on.
    pub no_flash_attention: bool,
}

struct Request<'a> {
    k: &'a CachePolicy,
    v: &'a CachePolicy,
    flash_attention: bool,
    rotation_off: Option<String>,
}

impl Request<'_> {
    fn check(&self, shape: &CacheShape) -> Result<(), CacheError> {
        let (k, v) = (self.k.base(), self.v.base());
        // Each side first: a type that the model cannot have is no way out of what they must be together.
        for (side, policy) in [(KeysOrValues::Keys, self.k), (KeysOrValues::Values, self.v)] {
            self.check_side(shape, side, &policy.types(shape.layers.len())?)?;
        }
        if (self.k.has_exceptions() || self.v.has_exceptions())
            && (shape.latent || shape.own_attention)
        {
            return Err(CacheError::OneType);
        }
        if shape.same_types && k != v {
            return Err(CacheError::TypesDiffer { k, v });
        }
        Ok(())
    }

    /// `types`: by KV layer.
    fn check_side(
        &self,
        shape: &CacheShape,
        side: KeysOrValues,
        types: &[CacheType],
    ) -> Result<(), CacheError> {
        let head_dim = |layer: &KvLayer| match side {
            KeysOrValues::Keys => layer.head_dim_k,
            KeysOrValues::Values => layer.head_dim_v,
        };
        let layers = || shape.layers.iter().zip(types.iter().copied());
        // Heads of turbo types are padded, where the graph does not read and write the cache by itself.
        let padded = |of: CacheType| of.is_turbo() && !shape.latent && !shape.own_attention;
        for (layer, cache_type) in layers() {
            if !head_dim(layer).is_multiple_of(cache_type.block()) && !padded(cache_type) {
                return Err(CacheError::HeadDim {
                    side,
                    cache_type,
                    block: cache_type.block(),
                    layer: layer.layer,
                    head_dim: head_dim(layer),
                    instead: cache_type.nearest(head_dim(layer)),
                });
            }
        }
        for (layer, cache_type) in layers() {
            let quantized_values = side == KeysOrValues::Values && cache_type.is_quantized();
            if quantized_values && shape.no_flash_attention {
                return Err(CacheError::NoFlashAttention { cache_type, instead: CacheType::F16 });
            }
            // Values of latent attention are a part of keys.
            let read_as_values = quantized_values || (shape.latent && cache_type.is_turbo());
            if read_as_values && !self.flash_attention {
                return Err(CacheError::FlashAttentionOff { cache_type, instead: CacheType::F16 });
            }
            if !cache_type.is_turbo() {
                continue;
            }
            let instead = cache_type.nearest(head_dim(layer));
            if let Some(value) = self.rotation_off.clone() {
                return Err(CacheError::RotationOff { cache_type, value, instead });
            }
            if shape.latent && !shape.sliding_window && !ROTATES_LATENT {
                return Err(CacheError::Latent { cache_type, instead });
            }
            // Layers with a sliding window have a cache of their own.
            let mut same_cache =
                shape.layers.iter().filter(|l| l.sliding_window == layer.sliding_window);
            if let Some(other) = same_cache.find(|l| head_dim(l) != head_dim(layer)) {
                let (first, other) = (head_dim(layer), head_dim(other));
                return Err(CacheError::HeadDimsDiffer { side, cache_type, first, other, instead });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::CacheType::{F16, Q4_0, Q8_0, Turbo2, Turbo4};
    use super::*;

    fn shape(head_dims: &[u32]) -> CacheShape {
        let layer = |(layer, &head_dim): (u32, &u32)| KvLayer {
            layer,
            n_head_kv: 1,
            head_dim_k: head_dim,
            head_dim_v: head_dim,
            sliding_window: false,
        };
        CacheShape { layers: (0..).zip(head_dims).map(layer).collect(), ..CacheShape::default() }
    }

    fn check(shape: &CacheShape, k: CacheType, v: CacheType) -> Result<(), CacheError> {
        check_with(shape, &k.into(), &v.into(), true, None)
    }

    fn check_with(
        shape: &CacheShape,
        k: &CachePolicy,
        v: &CachePolicy,
        flash_attention: bool,
        rotation_off: Option<&str>,
    ) -> Result<(), CacheError> {
        let rotation_off = rotation_off.map(String::from);
        Request { k, v, flash_attention, rotation_off }.check(shape)
    }

    #[test]
    fn head_dims_have_to_be_of_whole_blocks() {
        assert_eq!(check(&shape(&[128, 128]), Turbo4, Turbo2), Ok(()));
        assert_eq!(check(&shape(&[96, 96]), Q8_0, Turbo2), Ok(()), "it is padded");
        let own_attention = CacheShape { own_attention: true, ..shape(&[128, 96]) };
        assert_eq!(
            check(&own_attention, Q8_0, Turbo2),
            Err(CacheError::HeadDim {
                side: KeysOrValues::Values,
                cache_type: Turbo2,
                block: 64,
                layer: 1,
                head_dim: 96,
                instead: Q4_0,
            })
        );
        assert_eq!(check(&shape(&[80]), F16, F16), Ok(()));
    }

    #[test]
    fn layers_of_one_cache_have_one_head_dim() {
        let mut shape = shape(&[128, 256]);
        let error = check(&shape, Turbo4, Turbo4).expect_err("they differ");
        assert!(
            matches!(error, CacheError::HeadDimsDiffer { first: 128, other: 256, .. }),
            "{error}"
        );
        shape.layers[1].sliding_window = true;
        assert_eq!(check(&shape, Turbo4, Turbo4), Ok(()));
    }

    #[test]
    fn quantized_values_need_flash_attention() {
        let (shape, k) = (shape(&[64]), Turbo4.into());
        let error = check_with(&shape, &k, &Q8_0.into(), false, None).expect_err("it is off");
        assert_eq!(error, CacheError::FlashAttentionOff { cache_type: Q8_0, instead: F16 });
        assert_eq!(check_with(&shape, &k, &F16.into(), false, None), Ok(()));
    }

    #[test]
    fn models_without_flash_attention_have_no_quantized_values() {
        let shape = CacheShape { no_flash_attention: true, ..shape(&[64]) };
        let error = check(&shape, F16, Q8_0).expect_err("they are read by it alone");
        assert_eq!(error, CacheError::NoFlashAttention { cache_type: Q8_0, instead: F16 });
        // Also in one layer, and where it is off: switching it on would not help.
        let v = CachePolicy::new(F16).first(1, Turbo2);
        let error = check_with(&shape, &Turbo4.into(), &v, false, None).expect_err("as above");
        assert_eq!(error, CacheError::NoFlashAttention { cache_type: Turbo2, instead: F16 });
        assert_eq!(check(&shape, Turbo4, F16), Ok(()));
    }

    #[test]
    fn latent_attention_has_one_type_and_needs_flash_attention() {
        let shape = CacheShape { latent: true, same_types: true, ..shape(&[576]) };
        assert_eq!(check(&shape, Q8_0, Q8_0), Ok(()));
        let rotated = match ROTATES_LATENT {
            true => Ok(()),
            false => Err(CacheError::Latent { cache_type: Turbo4, instead: Q4_0 }),
        };
        assert_eq!(check(&shape, Turbo4, Turbo4), rotated);
        let (k, v) = (Turbo4.into(), Turbo4.into());
        let error =
            check_with(&shape, &k, &v, false, None).expect_err("values are read by it alone");
        assert_eq!(error, CacheError::FlashAttentionOff { cache_type: Turbo4, instead: F16 });
        assert_eq!(check(&shape, Q8_0, F16), Err(CacheError::TypesDiffer { k: Q8_0, v: F16 }));
        let k = CachePolicy::new(Q8_0).first(1, F16);
        assert_eq!(check_with(&shape, &k, &Q8_0.into(), true, None), Err(CacheError::OneType));
    }

    #[test]
    fn turbo_needs_the_rotation() {
        let error = check_with(&shape(&[64]), &Turbo4.into(), &F16.into(), true, Some("1"));
        let error = error.expect_err("it is off").to_string();
        assert!(error.contains("LLAMA_ATTN_ROT_DISABLE=1"), "{error}");
        assert!(is_nonzero("1") && is_nonzero(" -2x") && !is_nonzero("0") && !is_nonzero("off"));
    }
}
