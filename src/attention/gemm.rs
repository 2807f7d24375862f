//! Products of query rows with a 64 x 64 tile, in registers.
//!
//! One kernel serves both halves of attention: logits (rows of Q times a tile of K, 64 values by
//! 64 cells) and outputs (rows of P times a tile of V, 64 cells by 64 values). It comes in floats and
//! in i16 with i32 sums. A sum of 64 products of i16 with i8 levels is at most 64 * 32767 * 128
//! < 2^28.1, so that the sums cannot overflow.

use super::TILE;
use super::simd::Simd;

/// How elements multiply: i16 in pairs, or floats.
pub(super) trait Product<S: Simd> {
    /// Element of both factors.
    type Elem: Copy;
    /// Elements of a row that one step takes.
    const STEP: usize;
    /// `LANES` columns of a step.
    type Factor: Copy;
    /// `LANES` sums.
    type Acc: Copy;
    /// Nothing summed yet.
    unsafe fn zero() -> Self::Acc;
    /// `LANES` columns of a step, from the tile.
    unsafe fn load(src: *const Self::Elem) -> Self::Factor;
    /// One step of a row, for every column.
    unsafe fn splat(src: *const Self::Elem) -> Self::Factor;
    /// `acc + a * b`
    unsafe fn step(acc: Self::Acc, a: Self::Factor, b: Self::Factor) -> Self::Acc;
    /// The sums as floats.
    unsafe fn finish(acc: Self::Acc) -> S::F;
}

/// i16 pairs, exact sums.
pub(super) enum Int {}
/// Floats.
pub(super) enum Float {}

macro_rules! product {
    ($name:ty: $elem:ty, $step:literal, $factor:ident, $acc:ident, $zero:expr, $load:ident,
     |$src:ident| $splat:expr, |$a:ident, $b:ident, $sum:ident| $mac:expr, |$x:ident| $finish:expr) => {
        impl<S: Simd> Product<S> for $name {
            type Elem = $elem;
            const STEP: usize = $step;
            type Factor = S::$factor;
            type Acc = S::$acc;
            #[inline(always)]
            unsafe fn zero() -> Self::Acc {
                // SAFETY: the caller upholds `Simd`'s contract.
                unsafe { $zero }
            }
            #[inline(always)]
            unsafe fn load(src: *const $elem) -> Self::Factor {
                // SAFETY: the caller upholds `Simd`'s contract.
                unsafe { S::$load(src) }
            }
            #[inline(always)]
            unsafe fn splat($src: *const $elem) -> Self::Factor {
                // SAFETY: the caller upholds `Simd`'s contract.
                unsafe { $splat }
            }
            #[inline(always)]
            unsafe fn step($sum: Self::Acc, $a: Self::Factor, $b: Self::Factor) -> Self::Acc {
                // SAFETY: the caller upholds `Simd`'s contract.
                unsafe { $mac }
            }
            #[inline(always)]
            unsafe fn finish($x: Self::Acc) -> S::F {
                // SAFETY: the caller upholds `Simd`'s contract.
                unsafe { $finish }
            }
        }
    };
}
product!(Int: i16, 2, Pairs, Sums, S::no_sums(), load_pairs, |src| S::splat_pair(src),
    |a, b, sum| S::add_products(sum, a, b), |x| S::sums(x));
product!(Float: f32, 1, F, F, S::splat(0.0), load, |src| S::splat(*src),
    |a, b, sum| S::fma(a, b, sum), |x| S::add(x, S::splat(0.0)));

/// What becomes of a product: see [`Logits`] and [`Outputs`].
pub(super) trait Sink<S: Simd> {
    /// Takes `LANES` products of row `row` from column `col` on. `out`: where they belong.
    unsafe fn put(&self, out: *mut f32, row: usize, col: usize, product: S::F);
}

/// `out = product * columns[col]`, added to what is there unless `first`.
pub(super) struct Logits {
    /// 64 factors.
    pub columns: *const f32,
    /// Whether `out` holds nothing yet.
    pub first: bool,
}

/// `out += product * rows[row]`.
pub(super) struct Outputs {
    /// One factor a row.
    pub rows: *const f32,
}

impl<S: Simd> Sink<S> for Logits {
    #[inline(always)]
    unsafe fn put(&self, out: *mut f32, _: usize, col: usize, product: S::F) {
        // SAFETY: `columns` has a factor and `out` a place for every column.
        unsafe {
            let factor = S::load(self.columns.add(col));
            let sum = if self.first {
                S::mul(product, factor)
            } else {
                S::fma(product, factor, S::load(out))
            };
            S::store(out, sum);
        }
    }
}

impl<S: Simd> Sink<S> for Outputs {
    #[inline(always)]
    unsafe fn put(&self, out: *mut f32, row: usize, _: usize, product: S::F) {
        // SAFETY: `rows` has a factor and `out` a place for every row.
        unsafe { S::store(out, S::fma(product, S::splat(*self.rows.add(row)), S::load(out))) }
    }
}

/// Rows times a tile: `out[r][c]` takes `sum_k a[r][k] b[k][c]` for 64 `c` and 64 `k`.
///
/// `a`: `rows` rows, `lda` elements apart. `b`: 64 x 64, steps of a column next to each other.
/// `out`: `rows` rows, `ldo` floats apart.
///
/// # Safety
/// As [`Simd`]; `a`, `b`, `out` and the sink's factors are as large as said.
#[inline(always)]
pub(super) unsafe fn gemm<S: Simd, P: Product<S>>(
    rows: usize,
    a: *const P::Elem,
    lda: usize,
    b: *const P::Elem,
    out: *mut f32,
    ldo: usize,
    sink: &impl Sink<S>,
) {
    let mut row = 0;
    // SAFETY: the row blocks cover 0..rows.
    unsafe {
        while row + 6 <= rows {
            panels::<S, P, 6>(row, a, lda, b, out, ldo, sink);
            row += 6;
        }
        match rows - row {
            1 => panels::<S, P, 1>(row, a, lda, b, out, ldo, sink),
            2 => panels::<S, P, 2>(row, a, lda, b, out, ldo, sink),
            3 => panels::<S, P, 3>(row, a, lda, b, out, ldo, sink),
            4 => panels::<S, P, 4>(row, a, lda, b, out, ldo, sink),
            5 => panels::<S, P, 5>(row, a, lda, b, out, ldo, sink),
            _ => {}
        }
    }
}

/// `ROWS` rows times all columns, as many columns at a time as the registers hold sums.
#[inline(always)]
unsafe fn panels<S: Simd, P: Product<S>, const ROWS: usize>(
    row: usize,
    a: *const P::Elem,
    lda: usize,
    b: *const P::Elem,
    out: *mut f32,
    ldo: usize,
    sink: &impl Sink<S>,
) {
    // SAFETY: as `gemm`.
    unsafe {
        let (a, out) = (a.add(row * lda), out.add(row * ldo));
        // 32 registers of 16 lanes hold 6 x 4 sums, 16 of 8 lanes 6 x 2 or 3 x 4; NEON's i32 sums take two each.
        if S::LANES == 16 {
            columns::<S, P, ROWS, 4>(row, a, lda, b, out, ldo, sink);
        } else if ROWS == 1 {
            columns::<S, P, ROWS, 8>(row, a, lda, b, out, ldo, sink);
        } else if ROWS <= 3 {
            columns::<S, P, ROWS, 4>(row, a, lda, b, out, ldo, sink);
        } else {
            columns::<S, P, ROWS, 2>(row, a, lda, b, out, ldo, sink);
        }
    }
}

/// `ROWS` rows times all columns, `COLS` vectors at a time.
#[allow(clippy::needless_range_loop)] // indices keep the sums in registers, and legible
#[inline(always)]
unsafe fn columns<S: Simd, P: Product<S>, const ROWS: usize, const COLS: usize>(
    row: usize,
    a: *const P::Elem,
    lda: usize,
    b: *const P::Elem,
    out: *mut f32,
    ldo: usize,
    sink: &impl Sink<S>,
) {
    assert!(TILE.is_multiple_of(COLS * S::LANES));
    // SAFETY: as `gemm`.
    unsafe {
        for col in (0..TILE).step_by(COLS * S::LANES) {
            let mut sums = [[P::zero(); COLS]; ROWS];
            let mut b = b.add(col * P::STEP);
            for k in (0..TILE).step_by(P::STEP) {
                // What there is more of is not kept in registers.
                if ROWS > COLS {
                    for r in 0..ROWS {
                        let left = P::splat(a.add(r * lda + k));
                        for c in 0..COLS {
                            let right = P::load(b.add(c * S::LANES * P::STEP));
                            sums[r][c] = P::step(sums[r][c], left, right);
                        }
                    }
                } else {
                    for c in 0..COLS {
                        let right = P::load(b.add(c * S::LANES * P::STEP));
                        for r in 0..ROWS {
                            let left = P::splat(a.add(r * lda + k));
                            sums[r][c] = P::step(sums[r][c], left, right);
                        }
                    }
                }
                b = b.add(TILE * P::STEP);
            }
            for r in 0..ROWS {
                for c in 0..COLS {
                    let col = col + c * S::LANES;
                    sink.put(out.add(r * ldo + col), row + r, col, P::finish(sums[r][c]));
                }
            }
        }
    }
}
