//! ggml-ext/ggml/src/turbo-tables.h as it has to be.

use llama_turboquant::codec::encode::{
    EXTENT_PEAK, EXTENT_RMS, MAX_COST, MAX_INDEX, SCALE_LIMIT, SCALES, STEPS_PER_UNIT, Tables,
    cost_unit, search,
};
use llama_turboquant::codec::{TurboType, levels};

/// Where it is.
pub const PATH: &str = "ggml-ext/ggml/src/turbo-tables.h";

/// The whole file.
pub fn header() -> String {
    let mut text = "\
// The numbers of turbo-codec.h, from the Rust core.
//
// Written by `cargo run --no-default-features --example device_tables`.

#ifndef TURBO_TABLES_H
#define TURBO_TABLES_H
"
    .to_owned();
    let mut define = |comment: &str, name: &str, value: String| {
        if !comment.is_empty() {
            text += &format!("\n// {comment}\n");
        }
        text += &format!("#define {name} {value}\n");
    };

    let float = |x: f32| format!("{x:?}f");
    let scales = |ty: TurboType| match ty {
        TurboType::Turbo2 => Tables::of::<2>().scales,
        TurboType::Turbo3 => Tables::of::<3>().scales,
        TurboType::Turbo4 => Tables::of::<4>().scales,
    };
    for ty in TurboType::ALL {
        let k = ty.index_bits();
        let list = levels(k).iter().map(i8::to_string).collect::<Vec<_>>().join(", ");
        define(&format!("turbo{k}"), &format!("TQ_LEVELS_{k}"), list);
        let list = scales(ty).map(float).join(", ");
        define("", &format!("TQ_SCALES_{k}"), list);
        define("", &format!("TQ_COST_UNIT_{k}"), cost_unit(k).to_string());
    }
    define("the encoder's scales, and what they are multiples of", "TQ_SCALES", SCALES.to_string());
    define("", "TQ_EXTENT_RMS", float(EXTENT_RMS));
    define("", "TQ_EXTENT_PEAK", float(EXTENT_PEAK));
    let comment = "the most that an unbiased scale is, in scales of least squares";
    define(comment, "TQ_SCALE_LIMIT", float(SCALE_LIMIT));
    let comment =
        "the grid on which branches are looked up: its places, and its steps in a level's unit";
    define(comment, "TQ_GRID_LEN", (MAX_INDEX + 1).to_string());
    define("", "TQ_GRID_STEPS", STEPS_PER_UNIT.to_string());
    let comment = "the search: its largest cost, values on either side of the wrap, steps from subtraction to subtraction";
    define(comment, "TQ_COST_MAX", MAX_COST.to_string());
    define("", "TQ_CONTEXT", search::CONTEXT.to_string());
    define("", "TQ_RENORMALIZE", search::RENORMALIZE.to_string());
    text += "\n#endif\n"; // GLSL knows no `#pragma once`
    text
}
