//! Every reason to refuse a layer, with its numbers.

use super::*;

/// What becomes of good data after `change`: the error's text.
fn refusal(change: impl FnOnce(&mut Data)) -> String {
    let mut data = Data::new(4, 2, 1);
    assert!(data.fit().is_ok());
    change(&mut data);
    data.fit().unwrap_err().to_string()
}

#[test]
fn dimensions_of_zero() {
    assert_eq!(refusal(|data| data.n_kv = 0), "n_kv is 0");
    assert_eq!(refusal(|data| data.n_head_kv = 0), "n_head_kv is 0");
    assert_eq!(refusal(|data| data.head_dim = 0), "head_dim is 0");
    assert_eq!(refusal(|data| data.head_dim_v = 0), "head_dim_v is 0");
    assert_eq!(refusal(|data| data.sets.clear()), "the number of sets of queries is 0");
}

#[test]
fn dimensions_that_do_not_fit() {
    let n_head = |n: usize| refusal(|data| data.sets[0].n_head = n);
    let heads = "of queries[0] is not a positive multiple of n_head_kv 2";
    assert_eq!(n_head(0), format!("n_head 0 {heads}"));
    assert_eq!(n_head(3), format!("n_head 3 {heads}"));
    let pairs = |pairs: Pairs| refusal(|data| data.pairs = pairs);
    let rope = "is odd or more than head_dim 64";
    assert_eq!(pairs(Pairs::Adjacent { n_rot: 7 }), format!("n_rot 7 {rope}"));
    assert_eq!(pairs(Pairs::Halves { n_rot: 66 }), format!("n_rot 66 {rope}"));
}

#[test]
fn arrays_of_other_lengths() {
    assert_eq!(refusal(|data| data.k.truncate(9)), "k has 9 values, its dimensions say 512");
    assert_eq!(refusal(|data| data.v.push(0.0)), "v has 513 values, its dimensions say 512");
    assert_eq!(
        refusal(|data| data.sets[0].q.truncate(9)),
        "q of queries[0] has 9 values, its dimensions say 512"
    );
    assert_eq!(
        refusal(|data| data.sets[0].mask.truncate(7)),
        "mask of queries[0] has 7 values, its dimensions say 8"
    );
    assert_eq!(
        refusal(|data| data.sets[0].sinks = Some(vec![0.0; 3])),
        "sinks of queries[0] has 3 values, its dimensions say 4"
    );
    assert_eq!(refusal(|data| data.n_kv = 1 << 60), "k would not fit the address space");
    assert_eq!(
        refusal(|data| data.sets[0].n_q = usize::MAX),
        "q of queries[0] would not fit the address space"
    );
}

#[test]
fn numbers_that_are_not_finite() {
    assert_eq!(refusal(|data| data.k[5] = f32::NAN), "k has the value NaN at index 5");
    assert_eq!(refusal(|data| data.v[6] = f32::INFINITY), "v has the value inf at index 6");
    assert_eq!(
        refusal(|data| {
            data.sets.push(data.sets[0].clone());
            data.sets[1].q[7] = f32::NEG_INFINITY;
        }),
        "q of queries[1] has the value -inf at index 7"
    );
    let mask = |value| refusal(|data| data.sets[0].mask[1] = value);
    assert_eq!(mask(f32::NAN), "mask of queries[0] has the value NaN at index 1");
    assert_eq!(mask(f32::INFINITY), "mask of queries[0] has the value inf at index 1");
    assert_eq!(
        refusal(|data| data.sets[0].sinks = Some(vec![0.0, f32::INFINITY, 0.0, 0.0])),
        "sinks of queries[0] has the value inf at index 1"
    );
    assert_eq!(refusal(|data| data.sets[0].scale = f32::NAN), "scale of queries[0] is NaN");
    assert_eq!(
        refusal(|data| data.sets[0].softcap = f32::INFINITY),
        "softcap of queries[0] is inf"
    );
    assert_eq!(refusal(|data| data.sets[0].max_bias = f32::NAN), "max_bias of queries[0] is NaN");
}

#[test]
fn queries_that_are_too_few_or_blind() {
    for n_q in 0..2 {
        assert_eq!(
            refusal(|data| data.sets[0] = Data::new(4, n_q, 1).sets.remove(0)),
            format!("queries[0] has {n_q} queries, at least 2 are needed")
        );
    }
    assert_eq!(
        refusal(|data| data.sets[0].mask[4..].fill(f32::NEG_INFINITY)),
        "query 1 of queries[0] sees no key"
    );
}

#[test]
fn numbers_that_overflow() {
    for size in [1e20, 1e38] {
        assert_eq!(
            refusal(|data| {
                data.k.iter_mut().for_each(|k| *k *= size);
                data.sets[0].q.iter_mut().for_each(|q| *q *= size);
            }),
            "attention of KV head 0 overflows"
        );
    }
}
