//! What was captured of a layer, and what has to hold of it.

use std::fmt;

use super::attend::Token;
use super::pairs::Pairs;

/// Keys and values of a layer, and the queries that read them.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `[n_kv][n_head_kv][head_dim]`, after RoPE; cells in the order of their positions, from 0.
    pub k: &'a [f32],
    /// `[n_kv][n_head_kv][head_dim_v]`.
    pub v: &'a [f32],
    /// Cells.
    pub n_kv: usize,
    /// Heads of keys and of values.
    pub n_head_kv: usize,
    /// Channels of a key. A cache pads them to whole blocks of 64.
    pub head_dim: usize,
    /// Channels of a value.
    pub head_dim_v: usize,
    /// Channels that RoPE ties.
    pub pairs: Pairs,
    /// One set for each layer that attends to these keys.
    pub queries: &'a [Queries<'a>],
}

/// Queries of a layer that attend to the same keys, and how.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[n_q][n_head][head_dim]`, after RoPE. Head h reads KV head h / (n_head / n_head_kv).
    pub q: &'a [f32],
    /// Queries, at least two: every other one is fitted to, the rest judge.
    pub n_q: usize,
    /// Heads of a query; a positive multiple of `n_head_kv`.
    pub n_head: usize,
    /// `[n_q][n_kv]`, added to the logits times ALiBi's slope; -inf hides the key.
    pub mask: &'a [f32],
    /// `[n_head]`: a logit more in the denominator of softmax.
    pub sinks: Option<&'a [f32]>,
    /// Factor of the logits.
    pub scale: f32,
    /// Logits become `softcap * tanh(logit / softcap)`; 0: they stay.
    pub softcap: f32,
    /// ALiBi's largest bias; 0: none, and slopes are 1.
    pub max_bias: f32,
}

/// An array of a [`Layer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The keys.
    K,
    /// The values.
    V,
    /// The sets of queries.
    Queries,
    /// The queries of a set.
    Q {
        /// Index of the set.
        set: usize,
    },
    /// The mask of a set.
    Mask {
        /// Index of the set.
        set: usize,
    },
    /// The sinks of a set.
    Sinks {
        /// Index of the set.
        set: usize,
    },
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::K => f.write_str("k"),
            Self::V => f.write_str("v"),
            Self::Queries => f.write_str("queries"),
            Self::Q { set } => write!(f, "q of queries[{set}]"),
            Self::Mask { set } => write!(f, "mask of queries[{set}]"),
            Self::Sinks { set } => write!(f, "sinks of queries[{set}]"),
        }
    }
}

/// Why a layer was not fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// A dimension, or the number of sets of queries, is 0.
    #[error("{name} is 0")]
    Empty {
        /// The dimension.
        name: &'static str,
    },
    /// Query heads that KV heads do not divide.
    #[error(
        "n_head {n_head} of queries[{set}] is not a positive multiple of n_head_kv {n_head_kv}"
    )]
    Heads {
        /// Index of the set.
        set: usize,
        /// Heads of its queries.
        n_head: usize,
        /// Heads of the keys.
        n_head_kv: usize,
    },
    /// RoPE turns half a pair, or more channels than there are.
    #[error("n_rot {n_rot} is odd or more than head_dim {head_dim}")]
    Rope {
        /// Channels that RoPE turns.
        n_rot: usize,
        /// Channels of a key.
        head_dim: usize,
    },
    /// An array would not fit the address space.
    #[error("{operand} would not fit the address space")]
    TooLarge {
        /// The array.
        operand: Operand,
    },
    /// An array of another length than the dimensions say.
    #[error("{operand} has {actual} values, its dimensions say {expected}")]
    Length {
        /// The array.
        operand: Operand,
        /// Product of its dimensions.
        expected: usize,
        /// Its length.
        actual: usize,
    },
    /// No query to fit to, or none to judge by.
    #[error("queries[{set}] has {n_q} queries, at least 2 are needed")]
    TooFewQueries {
        /// Index of the set.
        set: usize,
        /// Its queries.
        n_q: usize,
    },
    /// A value that is NaN or infinite, but for -inf in a mask.
    #[error("{operand} has the value {value} at index {index}")]
    NotFinite {
        /// The array.
        operand: Operand,
        /// Where in it.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A parameter that is NaN or infinite.
    #[error("{name} of queries[{set}] is {value}")]
    Parameter {
        /// Index of the set.
        set: usize,
        /// `scale`, `softcap` or `max_bias`.
        name: &'static str,
        /// The value.
        value: f32,
    },
    /// A query from which the mask hides every key.
    #[error("query {query} of queries[{set}] sees no key")]
    SeesNoKey {
        /// Index of the set.
        set: usize,
        /// Index of the query in it.
        query: usize,
    },
    /// Numbers so large that attention or its moments overflow.
    #[error("attention of KV head {head} overflows")]
    Overflow {
        /// The KV head.
        head: usize,
    },
}

/// Length of an array of `T` with these dimensions. Errors: [`FitError::TooLarge`].
pub(crate) fn array_len<T>(operand: Operand, dims: &[usize]) -> Result<usize, FitError> {
    let len = dims.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim));
    let fits = |len: &usize| *len <= isize::MAX as usize / size_of::<T>();
    len.filter(fits).ok_or(FitError::TooLarge { operand })
}

impl<'a> Layer<'a> {
    /// Checks everything: the queries, and what each of them sees.
    pub(super) fn tokens(&self) -> Result<Vec<Token<'a>>, FitError> {
        let &Self { k, v, n_kv, n_head_kv, head_dim, head_dim_v, pairs, queries } = self;
        for (name, n) in [
            ("n_kv", n_kv),
            ("n_head_kv", n_head_kv),
            ("head_dim", head_dim),
            ("head_dim_v", head_dim_v),
            ("the number of sets of queries", queries.len()),
        ] {
            if n == 0 {
                return Err(FitError::Empty { name });
            }
        }
        let n_rot = pairs.n_rot();
        if n_rot > head_dim || !n_rot.is_multiple_of(2) {
            return Err(FitError::Rope { n_rot, head_dim });
        }
        check_values(Operand::K, k, &[n_kv, n_head_kv, head_dim])?;
        check_values(Operand::V, v, &[n_kv, n_head_kv, head_dim_v])?;
        let mut tokens = Vec::new();
        for (set, queries) in queries.iter().enumerate() {
            self.check_queries(set, queries)?;
            for query in 0..queries.n_q {
                let token = Token::new(self, queries, query);
                tokens.push(token.ok_or(FitError::SeesNoKey { set, query })?);
            }
        }
        Ok(tokens)
    }

    fn check_queries(&self, set: usize, queries: &Queries) -> Result<(), FitError> {
        let &Queries { q, n_q, n_head, mask, sinks, scale, softcap, max_bias } = queries;
        let n_head_kv = self.n_head_kv;
        if n_head == 0 || !n_head.is_multiple_of(n_head_kv) {
            return Err(FitError::Heads { set, n_head, n_head_kv });
        }
        if n_q < 2 {
            return Err(FitError::TooFewQueries { set, n_q });
        }
        for (name, value) in [("scale", scale), ("softcap", softcap), ("max_bias", max_bias)] {
            if !value.is_finite() {
                return Err(FitError::Parameter { set, name, value });
            }
        }
        check_values(Operand::Q { set }, q, &[n_q, n_head, self.head_dim])?;
        if let Some(sinks) = sinks {
            check_values(Operand::Sinks { set }, sinks, &[n_head])?;
        }
        check_length(Operand::Mask { set }, mask, &[n_q, self.n_kv])?;
        let shown = |value: &f32| value.is_finite() || *value == f32::NEG_INFINITY;
        check_each(Operand::Mask { set }, mask, shown)
    }
}

fn check_values(operand: Operand, array: &[f32], dims: &[usize]) -> Result<(), FitError> {
    check_length(operand, array, dims)?;
    check_each(operand, array, |value| value.is_finite())
}

fn check_length(operand: Operand, array: &[f32], dims: &[usize]) -> Result<(), FitError> {
    let (expected, actual) = (array_len::<f32>(operand, dims)?, array.len());
    if actual == expected { Ok(()) } else { Err(FitError::Length { operand, expected, actual }) }
}

fn check_each(
    operand: Operand,
    array: &[f32],
    good: impl Fn(&f32) -> bool,
) -> Result<(), FitError> {
    match array.iter().position(|value| !good(value)) {
        Some(index) => Err(FitError::NotFinite { operand, index, value: array[index] }),
        None => Ok(()),
    }
}
