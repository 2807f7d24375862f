//! What tests run: they take their types and sizes from here, and docs/support.md is written from it.
#![allow(dead_code, reason = "each test has its part")]

use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType::{Turbo2, Turbo3, Turbo4};

/// K and V of the CPU's attention, in every pair (tests/attention.rs).
pub const CPU_ATTENTION_TYPES: [KvType; 7] = [
    KvType::Turbo(Turbo2),
    KvType::Turbo(Turbo3),
    KvType::Turbo(Turbo4),
    KvType::Q8_0,
    KvType::F16,
    KvType::Bf16,
    KvType::F32,
];

/// Its head_dims.
pub const CPU_ATTENTION_HEAD_DIMS: [usize; 6] = [64, 128, 192, 256, 320, 512];

/// K and V of the devices' attention of a few queries, in every pair (tests/device_cuda_attention.rs, device_metal.rs).
pub const DEVICE_ATTENTION_TYPES: [KvType; 5] = [
    KvType::Turbo(Turbo2),
    KvType::Turbo(Turbo3),
    KvType::Turbo(Turbo4),
    KvType::Q8_0,
    KvType::F16,
];

/// Its head_dims.
pub const DEVICE_ATTENTION_HEAD_DIMS: [usize; 3] = [64, 128, 256];
