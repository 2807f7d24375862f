//! What the values of heads take that no whole blocks of turbo types fit.

use std::collections::BTreeSet;

use llama_turboquant::llama::{CachePolicy, CacheType, Model};
use serde_json::{Value, json};

/// Types that are told, the padded ones first.
const TYPES: [CacheType; 5] =
    [CacheType::Turbo4, CacheType::Turbo3, CacheType::Turbo2, CacheType::Q8_0, CacheType::Q4_0];

/// The sizes of heads, of K or V of any layer, that turbo types pad; none where they cannot be.
fn padded(model: &Model) -> BTreeSet<u32> {
    let turbo = CachePolicy::new(CacheType::Turbo4);
    if model.check_cache(&turbo, &CachePolicy::new(CacheType::F16), true).is_err()
        && model.check_cache(&turbo, &turbo, true).is_err()
    {
        return BTreeSet::new();
    }
    let sizes = model.kv_layers().iter().flat_map(|layer| [layer.head_dim_k, layer.head_dim_v]);
    sizes.filter(|size| !size.is_multiple_of(CacheType::Turbo4.block())).collect()
}

/// A line for each such size: what a value takes, beside upstream's types.
pub fn lines(model: &Model) -> String {
    let line = |size: u32| {
        let bits = TYPES.map(|t| format!("{t} {:.2}", t.bits_at(size))).join(", ");
        let whole = size.next_multiple_of(CacheType::Turbo4.block());
        format!(
            "turbo types pad heads of {size} values to {whole}; bits per value are then {bits}\n"
        )
    };
    padded(model).into_iter().map(line).collect()
}

pub fn json(model: &Model) -> Value {
    let of = |size: u32| {
        let bits = TYPES.map(|t| (t.to_string(), json!(t.bits_at(size))));
        json!({
            "head_dim": size,
            "padded": size.next_multiple_of(CacheType::Turbo4.block()),
            "bits_per_value": bits.into_iter().collect::<serde_json::Map<_, _>>(),
        })
    };
    padded(model).into_iter().map(of).collect()
}
