//! Attention problems as the devices' programs read them.

use std::{ptr, slice};

use llama_turboquant::attention::{KvType, Tensor};

use super::case::Data;

/// A tensor: four sizes, four strides and a number of bytes as i64, then the bytes; `None` is one of no bytes.
fn put(out: &mut Vec<u8>, tensor: Option<(Tensor, usize)>) {
    let (tensor, row_bytes) =
        tensor.unwrap_or((Tensor { data: ptr::null(), ne: [0; 4], nb: [0; 4] }, 0));
    let rows: usize = (1..4).map(|i| tensor.ne[i].saturating_sub(1) * tensor.nb[i]).sum();
    let bytes = rows + row_bytes;
    for number in tensor.ne.into_iter().chain(tensor.nb).chain([bytes]) {
        out.extend((number as i64).to_le_bytes());
    }
    if bytes > 0 {
        // SAFETY: a tensor of `Data` with its sizes and strides.
        out.extend(unsafe { slice::from_raw_parts(tensor.data, bytes) });
    }
}

/// scale, max_bias and softcap, then q, k, v, mask, sinks, the table of anchors, and their ids.
pub fn input(data: &Data) -> Vec<u8> {
    let case = &data.case;
    let mut dst = vec![0.0; result_len(data)];
    let args = data.args(&mut dst);
    let row = |ty: KvType, len: usize| len / ty.block_len() * ty.block_bytes();

    let mut input = Vec::new();
    for number in [args.scale, args.max_bias, args.softcap] {
        input.extend(number.to_le_bytes());
    }
    put(&mut input, Some((args.q, 4 * case.dk)));
    put(&mut input, Some((args.k, row(case.type_k, case.dk))));
    put(&mut input, Some((args.v, row(case.type_v, case.dv))));
    put(&mut input, args.mask.map(|mask| (mask, 2 * case.n_kv)));
    let sinks = Tensor { data: args.sinks.cast(), ne: [case.heads, 1, 1, 1], nb: [4, 0, 0, 0] };
    put(&mut input, case.sinks.then_some((sinks, 4 * case.heads)));
    put(&mut input, args.anchors.map(|anchors| (anchors.table, 2 * case.dk)));
    put(&mut input, args.anchors.map(|anchors| (anchors.ids, 4 * case.n_kv)));
    input
}

/// Values of the result.
pub fn result_len(data: &Data) -> usize {
    data.case.batches * data.case.tokens * data.case.heads * data.case.dv
}
