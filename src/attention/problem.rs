//! The operator's operands, checked once: shapes, strides, and where a row of each lies.

use std::ptr;

use thiserror::Error;

use super::anchors::{Anchors, HeadAnchors};
use crate::codec::{QK, TurboType};

/// Element type of a K or V cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml's `block_q8_0`: 32 values in 34 bytes.
    Q8_0,
    /// A block of 64 values.
    Turbo(TurboType),
}

impl KvType {
    /// Values in a block: 1, 32 or 64.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 => 32,
            Self::Turbo(_) => QK,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Turbo(turbo) => turbo.block_bytes(),
        }
    }

    /// ggml's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Turbo(turbo) => turbo.name(),
        }
    }
}

/// A 4-dimensional tensor in ggml's order: `ne[0]` runs fastest.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// First element.
    pub data: *const u8,
    /// Elements in each dimension.
    pub ne: [usize; 4],
    /// Stride of each dimension in bytes; `nb[0]` is the size of an element or block.
    pub nb: [usize; 4],
}

impl Tensor {
    /// Row `(i1, i2, i3)`; a pointer, not yet a promise that it may be read.
    pub(super) fn row(&self, i1: usize, i2: usize, i3: usize) -> *const u8 {
        self.data.wrapping_add(i1 * self.nb[1] + i2 * self.nb[2] + i3 * self.nb[3])
    }
}

/// The operands of `ggml_flash_attn_ext`.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// f32, `[dk, n_tokens, n_head, n_batch]`.
    pub q: Tensor,
    /// `[dk, n_kv, n_head_k, n_batch_k]`; heads and batches divide those of `q`.
    pub k: Tensor,
    /// Type of `k`.
    pub type_k: KvType,
    /// `[dv, n_kv, n_head_v, n_batch_v]`; heads and batches divide those of `q`.
    pub v: Tensor,
    /// Type of `v`.
    pub type_v: KvType,
    /// f16, `[n_kv, n_tokens or more, h, b]`, `h` and `b` taken modulo.
    pub mask: Option<Tensor>,
    /// f32 `[n_head]`; null: no attention sinks.
    pub sinks: *const f32,
    /// What was taken off the keys; with anchors neither cache need be turbo.
    pub anchors: Option<Anchors>,
    /// f32 `[dv, n_head, n_tokens, n_batch]`, contiguous.
    pub dst: *mut f32,
    /// Factor of the logits.
    pub scale: f32,
    /// ALiBi's largest bias; 0: none.
    pub max_bias: f32,
    /// Logits become `softcap * tanh(logit / softcap)`; 0: they stay.
    pub softcap: f32,
}

/// What is wrong with the operands.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttentionError {
    /// Neither cache is turbo, and there are no anchors.
    #[error(
        "neither K ({}) nor V ({}) is a turbo type: use ggml's own flash attention",
        type_k.name(), type_v.name()
    )]
    NotTurbo {
        /// Type of K.
        type_k: KvType,
        /// Type of V.
        type_v: KvType,
    },
    /// A head is not a whole number of blocks.
    #[error("head_dim {head_dim} of {which} is not a positive multiple of {}, the block of {}: use a type with smaller blocks", ty.block_len(), ty.name())]
    HeadDim {
        /// "K" or "V".
        which: &'static str,
        /// Its head_dim.
        head_dim: usize,
        /// Its type.
        ty: KvType,
    },
    /// Two operands disagree.
    #[error("{what}: {left} and {right} do not match")]
    Shape {
        /// The two dimensions.
        what: &'static str,
        /// The first's size.
        left: usize,
        /// The second's size.
        right: usize,
    },
    /// Elements of a row are not adjacent.
    #[error(
        "rows of {which} are not contiguous: the stride of dimension 0 is {stride} bytes, expected {expected}"
    )]
    Strided {
        /// The operand.
        which: &'static str,
        /// Its `nb[0]`.
        stride: usize,
        /// The element's size.
        expected: usize,
    },
    /// A required operand is null.
    #[error("{which} is null")]
    Null {
        /// The operand.
        which: &'static str,
    },
    /// The work buffer is smaller than `wsize` says.
    #[error(
        "the work buffer has {given} bytes, {needed} are needed for {threads} threads: size it with tq_flash_attn_wsize"
    )]
    WorkBuffer {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
        /// Threads.
        threads: usize,
    },
    /// No such thread.
    #[error("thread {thread} of {threads} does not exist")]
    Thread {
        /// Index given.
        thread: usize,
        /// Threads given.
        threads: usize,
    },
}

/// Whether a pair of types and head dimensions is one that [`Problem::new`] takes: any with anchors, else one
/// of which at least one type is turbo.
pub fn supported(
    type_k: KvType,
    type_v: KvType,
    dk: usize,
    dv: usize,
    anchors: bool,
) -> Result<(), AttentionError> {
    let turbo = |ty| matches!(ty, KvType::Turbo(_));
    if !anchors && !turbo(type_k) && !turbo(type_v) {
        return Err(AttentionError::NotTurbo { type_k, type_v });
    }
    for (which, ty, head_dim) in [("K", type_k, dk), ("V", type_v, dv)] {
        if head_dim == 0 || !head_dim.is_multiple_of(ty.block_len()) {
            return Err(AttentionError::HeadDim { which, head_dim, ty });
        }
    }
    Ok(())
}

/// Operands whose shapes agree.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub(super) args: Args,
    pub(super) dk: usize,
    pub(super) dv: usize,
    pub(super) n_kv: usize,
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) batches: usize,
    /// Query heads, next to each other, that share their K head and their V head.
    pub(super) group: usize,
    /// Query heads per K head and per V head.
    per_k: usize,
    per_v: usize,
    per_k_batch: usize,
    per_v_batch: usize,
    /// Query batches per batch of anchor ids; 1 without anchors.
    per_ids_batch: usize,
}

impl Problem {
    /// Checks shapes and strides; reads no data, and takes null data (a graph that is only planned).
    pub fn new(args: &Args) -> Result<Self, AttentionError> {
        let Args { q, k, v, mask, anchors, type_k, type_v, .. } = *args;
        supported(type_k, type_v, k.ne[0], v.ne[0], anchors.is_some())?;
        same("head_dim of Q and K", q.ne[0], k.ne[0])?;
        same("cells of K and V", k.ne[1], v.ne[1])?;
        divides("heads of Q and K", q.ne[2], k.ne[2])?;
        divides("heads of Q and V", q.ne[2], v.ne[2])?;
        divides("batches of Q and K", q.ne[3], k.ne[3])?;
        divides("batches of Q and V", q.ne[3], v.ne[3])?;
        let rows = [
            ("Q", q.nb[0], 4),
            ("K", k.nb[0], type_k.block_bytes()),
            ("V", v.nb[0], type_v.block_bytes()),
        ];
        for (which, stride, expected) in
            rows.into_iter().chain(mask.map(|mask| ("mask", mask.nb[0], 2)))
        {
            if stride != expected {
                return Err(AttentionError::Strided { which, stride, expected });
            }
        }
        if let Some(mask) = mask {
            if mask.ne[0] < k.ne[1] {
                return Err(AttentionError::Shape {
                    what: "cells of mask and K",
                    left: mask.ne[0],
                    right: k.ne[1],
                });
            }
            if mask.ne[1] < q.ne[1] {
                return Err(AttentionError::Shape {
                    what: "tokens of mask and Q",
                    left: mask.ne[1],
                    right: q.ne[1],
                });
            }
            // Indices are taken modulo: only an empty dimension is wrong.
            divides("heads of mask", mask.ne[2].max(1), mask.ne[2])?;
            divides("batches of mask", mask.ne[3].max(1), mask.ne[3])?;
        }
        if let Some(anchors) = &anchors {
            anchors.check(&q, &k)?;
        }
        let (per_k, per_v) = (q.ne[2] / k.ne[2], q.ne[2] / v.ne[2]);
        Ok(Self {
            args: *args,
            dk: k.ne[0],
            dv: v.ne[0],
            n_kv: k.ne[1],
            tokens: q.ne[1],
            heads: q.ne[2],
            batches: q.ne[3],
            group: gcd(per_k, per_v).max(1),
            per_k,
            per_v,
            per_k_batch: q.ne[3] / k.ne[3],
            per_v_batch: q.ne[3] / v.ne[3],
            per_ids_batch: anchors.map_or(1, |anchors| q.ne[3] / anchors.ids.ne[1]),
        })
    }

    /// Checks that the data is there.
    pub fn check_data(&self) -> Result<(), AttentionError> {
        let Args { q, k, v, mask, anchors, dst, .. } = &self.args;
        let is_null = |tensor: &Option<Tensor>| tensor.is_some_and(|tensor| tensor.data.is_null());
        for (which, null) in [
            ("Q", q.data.is_null()),
            ("K", k.data.is_null()),
            ("V", v.data.is_null()),
            ("mask", is_null(mask)),
            ("anchors", is_null(&anchors.map(|anchors| anchors.table))),
            ("anchor_ids", is_null(&anchors.map(|anchors| anchors.ids))),
            ("dst", dst.is_null()),
        ] {
            if null {
                return Err(AttentionError::Null { which });
            }
        }
        Ok(())
    }

    /// Cell `cell` of the K head that query head `head` of batch `batch` reads.
    pub(super) fn k_row(&self, cell: usize, head: usize, batch: usize) -> *const u8 {
        self.args.k.row(cell, head / self.per_k, batch / self.per_k_batch)
    }

    /// Cell `cell` of the V head that query head `head` of batch `batch` reads.
    pub(super) fn v_row(&self, cell: usize, head: usize, batch: usize) -> *const u8 {
        self.args.v.row(cell, head / self.per_v, batch / self.per_v_batch)
    }

    /// The `dk` floats of a query.
    pub(super) fn q_row(&self, token: usize, head: usize, batch: usize) -> *const f32 {
        self.args.q.row(token, head, batch).cast()
    }

    /// The mask's `n_kv` halves for a query, or null.
    pub(super) fn mask_row(&self, token: usize, head: usize, batch: usize) -> *const u16 {
        match &self.args.mask {
            Some(mask) => mask.row(token, head % mask.ne[2], batch % mask.ne[3]).cast(),
            None => ptr::null(),
        }
    }

    /// Anchors that cells may have.
    pub(super) fn anchors(&self) -> usize {
        self.args.anchors.map_or(0, |anchors| anchors.table.ne[1])
    }

    /// Anchors of the K head that query head `head` of batch `batch` reads, if there are any.
    pub(super) fn head_anchors(&self, head: usize, batch: usize) -> Option<HeadAnchors> {
        self.args.anchors.map(|Anchors { table, ids }| HeadAnchors {
            ids: ids.row(batch / self.per_ids_batch, 0, 0).cast(),
            first: table.row(0, head / self.per_k, batch / self.per_k_batch),
            stride: table.nb[1],
        })
    }

    /// Whether every head of a group reads the same mask row.
    pub(super) fn heads_share_mask(&self) -> bool {
        self.args.mask.is_none_or(|mask| mask.ne[2] == 1)
    }

    /// The `dv` floats of a result.
    pub(super) fn dst_row(&self, token: usize, head: usize, batch: usize) -> *mut f32 {
        let row = (batch * self.tokens + token) * self.heads + head;
        self.args.dst.wrapping_add(row * self.dv)
    }

    /// ALiBi's slope of a head.
    pub(super) fn slope(&self, head: usize) -> f32 {
        alibi_slope(self.args.max_bias, self.heads, head)
    }
}

/// ALiBi's slope of one of `heads` heads; 1 without ALiBi, so that the mask is added as it is.
pub(crate) fn alibi_slope(max_bias: f32, heads: usize, head: usize) -> f32 {
    if max_bias <= 0.0 {
        return 1.0;
    }
    let log2 = 1usize << heads.ilog2();
    if head < log2 {
        (-max_bias / log2 as f32).exp2().powi(head as i32 + 1)
    } else {
        (-max_bias / 2.0 / log2 as f32).exp2().powi(2 * (head - log2) as i32 + 1)
    }
}

/// Two dimensions that must be equal.
pub(super) fn same(what: &'static str, left: usize, right: usize) -> Result<(), AttentionError> {
    if left == right { Ok(()) } else { Err(AttentionError::Shape { what, left, right }) }
}

/// Two dimensions of which the right must divide the left.
pub(super) fn divides(what: &'static str, left: usize, right: usize) -> Result<(), AttentionError> {
    if right != 0 && left.is_multiple_of(right) {
        Ok(())
    } else {
        Err(AttentionError::Shape { what, left, right })
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
