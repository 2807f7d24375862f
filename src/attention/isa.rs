//! The table of kernels of one instruction set, and the choice of a table.

use std::sync::OnceLock;

use super::anchors::{DOTS, Run, Runs, Terms};
use super::rows::Rows;
use super::softmax::{Hides, Logit};

/// Decodes block column 0 of `n` <= 64 cells: levels as `[64][64]` i8 in the table's order, scales as
/// `[64]` floats. `src`: the first cell's block; `stride`: bytes from cell to cell.
pub(super) type LevelsFn =
    unsafe fn(src: *const u8, stride: usize, n: usize, levels: *mut i8, scales: *mut f32);
/// Arranges `[64][64]` levels as a tile for `gemm::Int`.
pub(super) type PackFn = unsafe fn(levels: *const i8, tile: *mut i16);
/// Transposes a `[64][64]` matrix.
pub(super) type TransposeFn = unsafe fn(src: *const f32, dst: *mut f32);
/// `rows`, `a`, `lda`, tile, `out`, `ldo`, factors (of columns for logits, of rows for outputs), `first`.
pub(super) type GemmFn<T> =
    unsafe fn(usize, *const T, usize, *const T, *mut f32, usize, *const f32, bool);

/// The kernels of one instruction set.
pub struct Kernels {
    /// `scalar`, `avx2`, `avx512`, `avx512-vnni` or `neon`.
    pub name: &'static str,
    /// Where the decoder puts what: place `i` of 64 levels holds value `order[i]` of the block.
    pub(super) order: &'static [u8; 64],
    /// Decoders of turbo2, turbo3, turbo4.
    pub(super) levels: [LevelsFn; 3],
    /// Levels of 64 cells to pairs of values, `[32][64][2]`.
    pub(super) pack_k: PackFn,
    /// Levels of 64 cells to pairs of cells, `[32][64][2]`.
    pub(super) pack_v: PackFn,
    /// Cells of floats to `[values][cells]`.
    pub(super) transpose: TransposeFn,
    /// See `gemm::Logits`.
    pub(super) logits_i16: GemmFn<i16>,
    /// See `gemm::Logits`.
    pub(super) logits_f32: GemmFn<f32>,
    /// See `gemm::Outputs`.
    pub(super) outputs_i16: GemmFn<i16>,
    /// See `gemm::Outputs`.
    pub(super) outputs_f32: GemmFn<f32>,
    /// See `anchors::split`.
    pub(super) split: unsafe fn(&mut Runs, &[i32]),
    /// See `anchors::dots`.
    pub(super) dots: unsafe fn([*const f32; DOTS], *const u16, usize) -> [f32; DOTS],
    /// See `anchors::bias`.
    pub(super) bias: unsafe fn(*mut f32, &[Run], &Terms, f32) -> bool,
    /// See `softmax::logits`.
    pub(super) logits: unsafe fn(*mut f32, *const f32, &Logit) -> f32,
    /// See `softmax::exp_row`.
    pub(super) exp_row: unsafe fn(*mut f32, f32) -> f32,
    /// See `softmax::exp_slice`.
    pub(super) exp_slice: unsafe fn(*mut f32, usize),
    /// See `softmax::weigh`.
    pub(super) weigh: unsafe fn(*mut i16, *const f32, *const f32) -> f32,
    /// See `softmax::scale`.
    pub(super) scale: unsafe fn(*mut f32, usize, f32),
    /// See `softmax::mask_row`.
    pub(super) mask_row: unsafe fn(*mut f32, *const u16) -> Hides,
    /// See `softmax::finite`.
    pub(super) finite: unsafe fn(*const f32, usize) -> bool,
    /// See `rows::to_f32`.
    pub(super) to_f32: unsafe fn(&Rows, *mut f32) -> bool,
}

/// Wraps the generic kernels for one implementation of `Simd`, each with its target features.
macro_rules! kernels {
    ($vis:vis static $table:ident = $name:literal, $simd:ty, $([$feature:literal],)? order: $order:expr,
     levels: $levels:expr, pack_k: $pack_k:expr, pack_v: $pack_v:expr, transpose: $transpose:expr) => {
        $vis static $table: $crate::attention::isa::Kernels = {
            use $crate::attention::{anchors, gemm, isa, rows, softmax};
            use anchors::{DOTS, Run, Runs, Terms};
            use gemm::{Float, Int, Logits, Outputs};
            use rows::Rows;
            use softmax::{Hides, Logit};

            kernels!(@gemm $simd, $($feature)?; logits_i16, i16, Int, |f, first| Logits { columns: f, first });
            kernels!(@gemm $simd, $($feature)?; logits_f32, f32, Float, |f, first| Logits { columns: f, first });
            kernels!(@gemm $simd, $($feature)?; outputs_i16, i16, Int, |f, _first| Outputs { rows: f });
            kernels!(@gemm $simd, $($feature)?; outputs_f32, f32, Float, |f, _first| Outputs { rows: f });
            kernels!(@wrap $($feature)?; anchors::split::<$simd>, split(runs: &mut Runs, ids: &[i32]) -> ());
            kernels!(@wrap $($feature)?; anchors::dots::<$simd>, dots(q: [*const f32; DOTS], m: *const u16, len: usize) -> [f32; DOTS]);
            kernels!(@wrap $($feature)?; anchors::bias::<$simd>, bias(dst: *mut f32, runs: &[Run], terms: &Terms, scale: f32) -> bool);
            kernels!(@wrap $($feature)?; softmax::logits::<$simd>, logits(row: *mut f32, mask: *const f32, logit: &Logit) -> f32);
            kernels!(@wrap $($feature)?; softmax::exp_row::<$simd>, exp_row(row: *mut f32, shift: f32) -> f32);
            kernels!(@wrap $($feature)?; softmax::exp_slice::<$simd>, exp_slice(x: *mut f32, n: usize) -> ());
            kernels!(@wrap $($feature)?; softmax::weigh::<$simd>, weigh(dst: *mut i16, row: *const f32, scales: *const f32) -> f32);
            kernels!(@wrap $($feature)?; softmax::scale::<$simd>, scale(x: *mut f32, n: usize, factor: f32) -> ());
            kernels!(@wrap $($feature)?; softmax::mask_row::<$simd>, mask_row(dst: *mut f32, src: *const u16) -> Hides);
            kernels!(@wrap $($feature)?; softmax::finite::<$simd>, finite(x: *const f32, n: usize) -> bool);
            kernels!(@wrap $($feature)?; rows::to_f32::<$simd>, to_f32(rows: &Rows, dst: *mut f32) -> bool);
            isa::Kernels {
                name: $name,
                order: $order,
                levels: $levels,
                pack_k: $pack_k,
                pack_v: $pack_v,
                transpose: $transpose,
                logits_i16, logits_f32, outputs_i16, outputs_f32,
                split, dots, bias, logits, exp_row, exp_slice, weigh, scale, mask_row, finite, to_f32,
            }
        };
    };
    (@gemm $simd:ty, $($feature:literal)?; $name:ident, $elem:ty, $product:ty, |$f:ident, $first:ident| $sink:expr) => {
        $(#[target_feature(enable = $feature)])?
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name(
            rows: usize, a: *const $elem, lda: usize, tile: *const $elem,
            out: *mut f32, ldo: usize, $f: *const f32, $first: bool,
        ) {
            // SAFETY: the caller upholds `gemm`'s contract; the table is used where the CPU has the feature.
            unsafe { gemm::gemm::<$simd, $product>(rows, a, lda, tile, out, ldo, &$sink) }
        }
    };
    (@wrap $($feature:literal)?; $kernel:expr, $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller upholds the kernel's contract; the table is used where the CPU has the feature.
            unsafe { $kernel($($arg),*) }
        }
    };
}
pub(super) use kernels;

/// The tables that this CPU runs, best first. Scalar is always the last.
pub fn available() -> &'static [&'static Kernels] {
    static AVAILABLE: OnceLock<Vec<&'static Kernels>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let mut tables: Vec<&'static Kernels> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if super::avx512::detected_vnni() {
                tables.push(&super::avx512::KERNELS_VNNI);
            }
            if super::avx512::detected() {
                tables.push(&super::avx512::KERNELS);
            }
            if super::avx2::detected() {
                tables.push(&super::avx2::KERNELS);
            }
        }
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        if std::arch::is_aarch64_feature_detected!("neon") {
            tables.push(&super::neon::KERNELS);
        }
        tables.push(&super::scalar::KERNELS);
        tables
    })
}

/// The table that goes with `kernels::active`: the same name, else the same family.
pub fn active() -> &'static Kernels {
    static ACTIVE: OnceLock<&'static Kernels> = OnceLock::new();
    ACTIVE.get_or_init(|| {
        let chosen = crate::kernels::active();
        let find = |name| available().iter().find(|table| table.name == name).copied();
        // Every family has a table; the detection asks for a little more (F16C, FMA) than the rows' kernels do.
        find(chosen.name).or_else(|| find(chosen.family())).unwrap_or(&super::scalar::KERNELS)
    })
}
