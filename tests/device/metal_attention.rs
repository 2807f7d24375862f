//! Problems of attention, as tests/device/metal/host.cpp is told them.

use llama_turboquant::attention::KvType;
use llama_turboquant::codec::TurboType;

use super::case::{Case, Data, Ids, Mask, N_ANCHORS};
use super::program::{Done, Session, Type};

impl From<KvType> for Type {
    fn from(kind: KvType) -> Self {
        match kind {
            KvType::F32 => Self::F32,
            KvType::F16 => Self::F16,
            KvType::Q8_0 => Self::Q8_0,
            KvType::Turbo(TurboType::Turbo2) => Self::Turbo2,
            KvType::Turbo(TurboType::Turbo3) => Self::Turbo3,
            KvType::Turbo(TurboType::Turbo4) => Self::Turbo4,
            KvType::Bf16 => panic!("the program has no bf16"),
        }
    }
}

/// One query, nothing special.
pub const fn plain(k: KvType, v: KvType, head_dim: usize) -> Case {
    Case { n_kv: 96, mask: Mask::None, ..Case::new(k, v, head_dim, 2, 1) }
}

/// All that the operator has, and a number of cells that fills no tile.
pub const fn full(k: KvType, v: KvType, head_dim: usize, ids: Ids) -> Case {
    Case {
        tokens: 3,
        n_kv: 77,
        mask: Mask::Random,
        max_bias: 8.0,
        softcap: 20.0,
        sinks: true,
        ids,
        ..Case::new(k, v, head_dim, 4, 2)
    }
}

/// Rows with the heads of a token.
#[derive(Clone, Copy)]
struct Heads {
    kind: KvType,
    dim: usize,
    cells: usize,
    heads: usize,
    batches: usize,
}

fn bytes<const N: usize, T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&x| bytes(x)).collect()
}

/// Puts the problem into a session as llama.cpp does: Q, K and V are views of tensors with all heads of a token in a row.
///
/// `n_kv_max`: no query sees more cells, as graphs of sparse attention say; 0: not said.
pub fn put(session: &mut Session, data: &Data, n_kv_max: usize) {
    let case = &data.case;
    let Case { dk, dv, tokens, n_kv, batches, batches_kv, .. } = *case;
    assert!(case.interleaved, "{case:?}");

    // Those of a tensor with `dim` values a head, and a view of the first `n` of each.
    let tensor = |session: &mut Session, heads: Heads, bytes: &[u8]| {
        let Heads { kind, dim, cells, heads, batches } = heads;
        session.tensor(kind.into(), [dim * heads, cells * batches, 1, 1], bytes)
    };
    let view = |session: &mut Session, of, heads: Heads, n| {
        let Heads { kind, dim, cells, heads, batches } = heads;
        let head = dim / kind.block_len() * kind.block_bytes();
        let strides = [head * heads, head, head * heads * cells];
        session.view(of, [n, cells, heads, batches], strides, 0)
    };
    let of_q = Heads { kind: KvType::F32, dim: dk, cells: tokens, heads: case.heads, batches };
    let kv = |kind, dim, heads| Heads { kind, dim, cells: n_kv, heads, batches: batches_kv };
    let (of_k, of_v) = (kv(case.type_k, dk, case.heads_k), kv(case.type_v, dv, case.heads_v));
    let q = tensor(session, of_q, &bytes(&data.q, f32::to_le_bytes));
    let q = view(session, q, of_q, dk);
    let k_cache = tensor(session, of_k, &data.k);
    let k = view(session, k_cache, of_k, dk);
    let v = if case.v_in_k {
        view(session, k_cache, of_k, dv)
    } else {
        let v_cache = tensor(session, of_v, &data.v);
        view(session, v_cache, of_v, dv)
    };

    let mut optional = |there: bool, tensor: &dyn Fn(&mut Session) -> usize| match there {
        true => tensor(session).to_string(),
        false => "-1".into(),
    };
    let mask = optional(case.mask != Mask::None, &|session| {
        let ne = [n_kv, tokens, case.mask_heads, case.mask_batches];
        session.tensor(Type::F16, ne, &bytes(&data.mask, u16::to_le_bytes))
    });
    let sinks = optional(case.sinks, &|session| {
        session.tensor(Type::F32, [case.heads, 1, 1, 1], &bytes(&data.sinks, f32::to_le_bytes))
    });
    // Behind anchors and numbers lie what is none.
    let anchors = optional(case.ids != Ids::Absent, &|session| {
        let (row, rows) = (2 * dk, N_ANCHORS + 1);
        let table = bytes(&data.anchors, half::f16::to_le_bytes);
        let whole = session.tensor(Type::F16, [dk, rows, case.heads_k, batches_kv], &table);
        let strides = [row, row * rows, row * rows * case.heads_k];
        session.view(whole, [dk, N_ANCHORS, case.heads_k, batches_kv], strides, 0)
    });
    let ids = optional(case.ids != Ids::Absent, &|session| {
        let (n, ids) = (case.ids_batches, bytes(&data.anchor_ids, i32::to_le_bytes));
        let whole = session.tensor(Type::I32, [n_kv + 3, n, 1, 1], &ids);
        let row = 4 * (n_kv + 3);
        session.view(whole, [n_kv, n, 1, 1], [row, row * n, row * n], 0)
    });
    let Case { max_bias, softcap, .. } = case;
    let scale = 1.0 / (dk as f32).sqrt();
    session.op(format!(
        "attend {q} {k} {v} {mask} {sinks} {anchors} {ids} {scale} {max_bias} {softcap} {n_kv_max}"
    ));
}

/// Squared error of what the operator made, relative to what it is to be.
pub fn nmse(data: &Data, done: &Done) -> f64 {
    let (floats, rest) = done.bytes.as_chunks::<4>();
    assert!(rest.is_empty(), "{:?}", data.case);
    data.nmse(&floats.iter().map(|&x| f32::from_le_bytes(x)).collect::<Vec<_>>())
}
