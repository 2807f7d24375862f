// The numbers of turbo-codec.h, from the Rust core.
//
// Written by `cargo run --no-default-features --example device_tables`.

#ifndef TURBO_TABLES_H
#define TURBO_TABLES_H

// turbo2
#define TQ_LEVELS_2 -127, -70, -38, -12, 12, 38, 70, 127
#define TQ_SCALES_2 0.0124785695f, 0.013608293f, 0.014840294f, 0.016183833f
#define TQ_COST_UNIT_2 160

// turbo3
#define TQ_LEVELS_3 -127, -91, -68, -51, -38, -26, -16, -5, 5, 16, 26, 38, 51, 68, 91, 127
#define TQ_SCALES_3 0.016208645f, 0.017676065f, 0.019276334f, 0.02102148f
#define TQ_COST_UNIT_3 34

// turbo4
#define TQ_LEVELS_4 -127, -106, -91, -80, -70, -61, -54, -47, -40, -34, -28, -23, -18, -13, -8, -2, 2, 8, 13, 18, 23, 28, 34, 40, 47, 54, 61, 70, 80, 91, 106, 127
#define TQ_SCALES_4 0.017696902f, 0.019299056f, 0.02104626f, 0.022951644f
#define TQ_COST_UNIT_4 6

// the encoder's scales, and what they are multiples of
#define TQ_SCALES 4
#define TQ_EXTENT_RMS 0.35f
#define TQ_EXTENT_PEAK 0.26f

// the most that an unbiased scale is, in scales of least squares
#define TQ_SCALE_LIMIT 2.0f

// the grid on which branches are looked up: its places, and its steps in a level's unit
#define TQ_GRID_LEN 881
#define TQ_GRID_STEPS 2

// the search: its largest cost, values on either side of the wrap, steps from subtraction to subtraction
#define TQ_COST_MAX 31
#define TQ_CONTEXT 48
#define TQ_RENORMALIZE 8

#endif
