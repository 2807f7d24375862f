//! A random attention problem, run by threads as ggml does, and its answer in f64.

use std::sync::Barrier;

use half::{bf16, f16};
use llama_turboquant::attention::{self, Anchors, Args, Kernels, KvType, Problem, Tensor, Thread};
use llama_turboquant::codec::{Block, TurboType, trellis};

/// What the mask shows of `n_kv` cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mask {
    /// There is no mask.
    None,
    /// Token t sees cells up to `n_kv - tokens + t`.
    Causal,
    /// As causal, and no further back than so many cells.
    Window(usize),
    /// Cells are hidden at random; others are biased by multiples of -1/4.
    Random,
    /// Every other row hides everything.
    HiddenRows,
    /// Nothing is seen.
    HiddenAll,
}

/// Which cells have which of [`N_ANCHORS`] anchors, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ids {
    /// There are no anchors.
    Absent,
    /// All cells have the same.
    One,
    /// Runs of some 50 cells, in no order.
    Runs,
    /// Every cell another.
    Scattered,
}

/// Anchors of a problem that has any.
pub const N_ANCHORS: usize = 5;

/// Shapes and options of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub type_k: KvType,
    pub type_v: KvType,
    pub dk: usize,
    pub dv: usize,
    pub heads: usize,
    pub heads_k: usize,
    pub heads_v: usize,
    pub batches: usize,
    pub batches_kv: usize,
    pub tokens: usize,
    pub n_kv: usize,
    pub mask: Mask,
    pub mask_heads: usize,
    pub mask_batches: usize,
    pub max_bias: f32,
    pub softcap: f32,
    pub sinks: bool,
    pub ids: Ids,
    pub ids_batches: usize,
    /// V is the first `dv` values of K.
    pub v_in_k: bool,
    /// Cells of all heads lie together, as in a KV cache; else heads lie apart.
    pub interleaved: bool,
    pub seed: u64,
}

impl Case {
    /// One batch, no options, causal.
    pub const fn new(
        type_k: KvType,
        type_v: KvType,
        head_dim: usize,
        heads: usize,
        heads_kv: usize,
    ) -> Self {
        Self {
            type_k,
            type_v,
            dk: head_dim,
            dv: head_dim,
            heads,
            heads_k: heads_kv,
            heads_v: heads_kv,
            batches: 1,
            batches_kv: 1,
            tokens: 1,
            n_kv: 256,
            mask: Mask::Causal,
            mask_heads: 1,
            mask_batches: 1,
            max_bias: 0.0,
            softcap: 0.0,
            sinks: false,
            ids: Ids::Absent,
            ids_batches: 1,
            v_in_k: false,
            interleaved: true,
            seed: 1,
        }
    }
}

/// xorshift64*.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Tensors of a [`Case`].
pub struct Data {
    pub case: Case,
    /// `[batches][tokens][heads][dk]`.
    pub q: Vec<f32>,
    /// Rows of K and V, `[batches_kv][n_kv][heads_k]` if interleaved, else `[batches_kv][heads_k][n_kv]`.
    pub k: Vec<u8>,
    pub v: Vec<u8>,
    /// f16's bits, `[mask_batches][mask_heads][tokens][n_kv]`.
    pub mask: Vec<u16>,
    pub sinks: Vec<f32>,
    /// `[batches_kv][heads_k][N_ANCHORS + 1][dk]`, the last is not an anchor.
    pub anchors: Vec<f16>,
    /// `[ids_batches][n_kv + 3]`, the last three are not a cell's.
    pub anchor_ids: Vec<i32>,
}

impl Data {
    pub fn new(case: Case) -> Self {
        let mut rng = Rng::new(case.seed);
        let mut floats =
            |n: usize, size: f32| (0..n).map(|_| size * rng.signed()).collect::<Vec<_>>();
        let q = floats(case.batches * case.heads * case.tokens * case.dk, 2.0);
        let sinks = floats(case.heads, 4.0);
        let mut cells = |ty: KvType, heads: usize, len: usize| {
            let mut bytes = Vec::new();
            for _ in 0..case.batches_kv * heads * case.n_kv {
                random_row(&mut rng, ty, len, &mut bytes);
            }
            bytes
        };
        let k = cells(case.type_k, case.heads_k, case.dk);
        let v = if case.v_in_k { Vec::new() } else { cells(case.type_v, case.heads_v, case.dv) };
        let mut mask = Vec::new();
        if case.mask != Mask::None {
            for _ in 0..case.mask_batches * case.mask_heads {
                for token in 0..case.tokens {
                    mask.extend(
                        (0..case.n_kv).map(|cell| mask_value(&mut rng, &case, token, cell)),
                    );
                }
            }
        }
        let rows = case.batches_kv * case.heads_k * (N_ANCHORS + 1);
        let anchors = (0..rows * case.dk).map(|_| f16::from_f32(2.0 * rng.signed())).collect();
        let mut anchor_ids = Vec::new();
        for _ in 0..case.ids_batches {
            let mut id = 1;
            for _ in 0..case.n_kv {
                let new = match case.ids {
                    Ids::Absent | Ids::One => false,
                    Ids::Runs => rng.bits().is_multiple_of(50),
                    Ids::Scattered => true,
                };
                id = if new { random_id(&mut rng) } else { id };
                anchor_ids.push(id);
            }
            anchor_ids.extend([i32::MAX; 3]);
        }
        Self { case, q, k, v, mask, sinks, anchors, anchor_ids }
    }

    /// The same attention with anchors: each head of keys, f32, moves by the anchor of its cell.
    pub fn anchored(mut self, ids: Ids) -> Self {
        let case = Case { ids, ids_batches: self.case.batches_kv, ..self.case };
        assert!(case.type_k == KvType::F32 && !case.interleaved && !case.v_in_k);
        let Self { anchors, anchor_ids, .. } = Self::new(case);
        for (row, key) in self.k.chunks_exact_mut(4 * case.dk).enumerate() {
            let (batch, head) = (row / case.n_kv / case.heads_k, row / case.n_kv % case.heads_k);
            let id = anchor_ids[batch * (case.n_kv + 3) + row % case.n_kv];
            let Ok(id) = usize::try_from(id) else { continue };
            let m = (batch * case.heads_k + head) * (N_ANCHORS + 1) + id;
            let m = &anchors[m * case.dk..][..case.dk];
            for (key, m) in key.chunks_exact_mut(4).zip(m) {
                let stored = f32::from_le_bytes(key.try_into().unwrap()) - m.to_f32();
                key.copy_from_slice(&stored.to_le_bytes());
            }
        }
        Self { case, anchors, anchor_ids, ..self }
    }

    /// What a cell's anchor adds to the logit of query `q`, not yet scaled.
    fn anchor_term(&self, q: &[f32], batch: usize, head: usize, cell: usize) -> f64 {
        let case = &self.case;
        if case.ids == Ids::Absent {
            return 0.0;
        }
        let ids = batch / (case.batches / case.ids_batches) * (case.n_kv + 3);
        let Ok(id) = usize::try_from(self.anchor_ids[ids + cell]) else { return 0.0 };
        let batch = batch / (case.batches / case.batches_kv);
        let head = head / (case.heads / case.heads_k);
        let m = (batch * case.heads_k + head) * (N_ANCHORS + 1) + id;
        let m = &self.anchors[m * case.dk..][..case.dk];
        q.iter().zip(m).map(|(q, m)| f64::from(*q) * m.to_f64()).sum()
    }

    fn anchors(&self) -> Anchors {
        let case = &self.case;
        let (row, ids_row) = (2 * case.dk, 4 * (case.n_kv + 3));
        let rows = (N_ANCHORS + 1) * row;
        Anchors {
            table: Tensor {
                data: self.anchors.as_ptr().cast(),
                ne: [case.dk, N_ANCHORS, case.heads_k, case.batches_kv],
                nb: [2, row, rows, rows * case.heads_k],
            },
            ids: Tensor {
                data: self.anchor_ids.as_ptr().cast(),
                ne: [case.n_kv + 1, case.ids_batches, 1, 1],
                nb: [4, ids_row, ids_row * case.ids_batches, ids_row * case.ids_batches],
            },
        }
    }

    fn tensor(
        &self,
        data: *const u8,
        ty: KvType,
        len: usize,
        heads: usize,
        row_len: usize,
    ) -> Tensor {
        let Case { n_kv, batches_kv, interleaved, .. } = self.case;
        let row = row_len / ty.block_len() * ty.block_bytes();
        let (nb1, nb2) = if interleaved { (row * heads, row) } else { (row, row * n_kv) };
        Tensor {
            data,
            ne: [len, n_kv, heads, batches_kv],
            nb: [ty.block_bytes(), nb1, nb2, row * n_kv * heads],
        }
    }

    /// The operator's operands, with results in `dst`.
    pub fn args(&self, dst: &mut [f32]) -> Args {
        let case = &self.case;
        assert_eq!(dst.len(), case.batches * case.tokens * case.heads * case.dv);
        let k = self.tensor(self.k.as_ptr(), case.type_k, case.dk, case.heads_k, case.dk);
        let v = match case.v_in_k {
            true => self.tensor(self.k.as_ptr(), case.type_k, case.dv, case.heads_k, case.dk),
            false => self.tensor(self.v.as_ptr(), case.type_v, case.dv, case.heads_v, case.dv),
        };
        let q_row = 4 * case.dk;
        let mask_row = 2 * case.n_kv;
        Args {
            // As in llama.cpp: heads of a token lie together.
            q: Tensor {
                data: self.q.as_ptr().cast(),
                ne: [case.dk, case.tokens, case.heads, case.batches],
                nb: [4, q_row * case.heads, q_row, q_row * case.heads * case.tokens],
            },
            k,
            type_k: case.type_k,
            v,
            type_v: case.type_v,
            mask: (case.mask != Mask::None).then(|| Tensor {
                data: self.mask.as_ptr().cast(),
                ne: [case.n_kv, case.tokens, case.mask_heads, case.mask_batches],
                nb: [2, mask_row, mask_row * case.tokens, mask_row * case.tokens * case.mask_heads],
            }),
            sinks: if case.sinks { self.sinks.as_ptr() } else { std::ptr::null() },
            anchors: (case.ids != Ids::Absent).then(|| self.anchors()),
            dst: dst.as_mut_ptr(),
            scale: 1.0 / (case.dk as f32).sqrt(),
            max_bias: case.max_bias,
            softcap: case.softcap,
        }
    }

    /// Results by the crate, `[batches][tokens][heads][dv]`.
    pub fn run(&self, threads: usize, kernels: &'static Kernels) -> Vec<f32> {
        let case = &self.case;
        let mut dst = vec![f32::NAN; case.batches * case.tokens * case.heads * case.dv];
        let problem = Problem::new(&self.args(&mut dst)).unwrap();
        let bytes = attention::work_bytes(&problem, threads);
        // An odd start, and dirt that must not reach a result.
        let mut work = vec![0xffu8; bytes + 4];
        run_threads(&problem, threads, kernels, &mut work[4..]);
        dst
    }

    /// Squared error of results, relative to what they are to be.
    pub fn nmse(&self, got: &[f32]) -> f64 {
        let expected = self.expected();
        assert_eq!(got.len(), expected.len(), "{:?}", self.case);
        let error: f64 = got.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        error / expected.iter().map(|x| x * x).sum::<f64>()
    }

    /// Results in f64.
    pub fn expected(&self) -> Vec<f64> {
        let case = &self.case;
        let mut dst = Vec::new();
        let args = self.args(&mut vec![0.0; case.batches * case.tokens * case.heads * case.dv]);
        // Every row once: [batch][head][cell].
        let rows = |base: &Tensor, bytes: &[u8], ty: KvType| {
            let mut rows = Vec::new();
            for head in 0..base.ne[3] * base.ne[2] {
                let start = head / base.ne[2] * base.nb[3] + head % base.ne[2] * base.nb[2];
                for cell in 0..case.n_kv {
                    let row = &bytes[start + cell * base.nb[1]..];
                    rows.push(decode_row(
                        ty,
                        &row[..base.ne[0] / ty.block_len() * ty.block_bytes()],
                    ));
                }
            }
            rows
        };
        let index = |base: &Tensor, cell: usize, head: usize, batch: usize| {
            (batch * base.ne[2] + head / (case.heads / base.ne[2])) * case.n_kv + cell
        };
        let v_bytes = if case.v_in_k { &self.k } else { &self.v };
        let k_rows = rows(&args.k, &self.k, case.type_k);
        let v_rows = rows(&args.v, v_bytes, case.type_v);
        for batch in 0..case.batches {
            let kv_batch = batch / (case.batches / case.batches_kv);
            for token in 0..case.tokens {
                for head in 0..case.heads {
                    let q = ((batch * case.tokens + token) * case.heads + head) * case.dk;
                    let q = &self.q[q..q + case.dk];
                    let slope = slope(case, head);
                    let mut logits = Vec::new();
                    for cell in 0..case.n_kv {
                        let mask = match args.mask {
                            None => 0.0,
                            Some(mask) => {
                                let row = (batch % mask.ne[3] * mask.ne[2] + head % mask.ne[2])
                                    * case.tokens
                                    + token;
                                f16::from_bits(self.mask[row * case.n_kv + cell]).to_f64()
                            }
                        };
                        if mask == f64::NEG_INFINITY {
                            continue;
                        }
                        let k = &k_rows[index(&args.k, cell, head, kv_batch)];
                        let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * k).sum();
                        let dot = dot + self.anchor_term(q, batch, head, cell);
                        let mut logit = dot * f64::from(args.scale);
                        if case.softcap != 0.0 {
                            logit =
                                f64::from(case.softcap) * (logit / f64::from(case.softcap)).tanh();
                        }
                        logits.push((cell, logit + slope * mask));
                    }
                    let mut largest = logits
                        .iter()
                        .fold(f64::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
                    let mut total = 0.0;
                    if case.sinks {
                        largest = largest.max(f64::from(self.sinks[head]));
                        total = (f64::from(self.sinks[head]) - largest).exp();
                    }
                    let mut out = vec![0.0; case.dv];
                    for (cell, logit) in logits {
                        let weight = (logit - largest).exp();
                        total += weight;
                        let v = &v_rows[index(&args.v, cell, head, kv_batch)];
                        out.iter_mut().zip(v).for_each(|(out, v)| *out += weight * v);
                    }
                    dst.extend(out.iter().map(|x| if total == 0.0 { 0.0 } else { x / total }));
                }
            }
        }
        dst
    }
}

/// Runs a problem on real threads.
pub fn run_threads(problem: &Problem, threads: usize, kernels: &'static Kernels, work: &mut [u8]) {
    struct Shared<'a>(&'a Problem, *mut u8);
    // SAFETY: `flash_attn` is made to be called by several threads with the same problem and work buffer.
    unsafe impl Sync for Shared<'_> {}
    let (bytes, barrier) = (work.len(), &Barrier::new(threads));
    let shared = &Shared(problem, work.as_mut_ptr());
    let run = move |index| {
        let wait = || {
            barrier.wait();
        };
        let (work, work_bytes) = (shared.1, bytes);
        let thread = Thread { index, threads, work, work_bytes, barrier: &wait };
        // SAFETY: the tensors of `Data` and the buffers outlive the call.
        unsafe { attention::flash_attn(shared.0, &thread, kernels) }.unwrap();
    };
    std::thread::scope(|scope| {
        for index in 1..threads {
            scope.spawn(move || run(index));
        }
        run(0);
    });
}

/// An anchor, or none.
fn random_id(rng: &mut Rng) -> i32 {
    match (rng.bits() >> 32) as usize % (N_ANCHORS + 1) {
        N_ANCHORS => -1 - (rng.bits() >> 40) as i32,
        id => id as i32,
    }
}

fn slope(case: &Case, head: usize) -> f64 {
    if case.max_bias <= 0.0 {
        return 1.0;
    }
    let log2 = f64::from(1u32 << case.heads.ilog2());
    let max_bias = f64::from(case.max_bias);
    let head = head as f64;
    if head < log2 {
        (-max_bias / log2).exp2().powf(head + 1.0)
    } else {
        (-max_bias / 2.0 / log2).exp2().powf(2.0 * (head - log2) + 1.0)
    }
}

fn mask_value(rng: &mut Rng, case: &Case, token: usize, cell: usize) -> u16 {
    let hidden = f16::NEG_INFINITY.to_bits();
    let last = (case.n_kv + token).saturating_sub(case.tokens);
    let seen = match case.mask {
        Mask::None | Mask::HiddenAll => false,
        Mask::Causal => cell <= last,
        Mask::Window(n) => cell <= last && cell + n > last,
        Mask::Random => match rng.bits() % 5 {
            0 | 1 => false,
            n => return f16::from_f32(-0.25 * (n - 2) as f32).to_bits(),
        },
        Mask::HiddenRows => token % 2 == 1,
    };
    // ALiBi's mask is the distance.
    match seen {
        true if case.max_bias > 0.0 => f16::from_f32(-(last.abs_diff(cell) as f32)).to_bits(),
        true => 0,
        false => hidden,
    }
}

fn random_row(rng: &mut Rng, ty: KvType, len: usize, bytes: &mut Vec<u8>) {
    for _ in 0..len / ty.block_len() {
        match ty {
            KvType::F32 => bytes.extend((2.0 * rng.signed()).to_le_bytes()),
            KvType::F16 => bytes.extend(f16::from_f32(2.0 * rng.signed()).to_le_bytes()),
            KvType::Bf16 => bytes.extend(bf16::from_f32(2.0 * rng.signed()).to_le_bytes()),
            KvType::Q8_0 | KvType::Turbo(_) => {
                let scale = f16::from_f32(0.002 + 0.014 * rng.signed().abs());
                bytes.extend(scale.to_le_bytes());
                bytes.extend((2..ty.block_bytes()).map(|_| (rng.bits() >> 32) as u8));
            }
        }
    }
}

fn decode_row(ty: KvType, bytes: &[u8]) -> Vec<f64> {
    fn turbo<const K: usize>(bytes: &[u8]) -> Vec<f64> {
        let block = Block::<K>::from_bytes(bytes);
        trellis::decode(&block)
            .iter()
            .map(|&level| f64::from(level) * f64::from(block.scale()))
            .collect()
    }
    let decode = |bytes: &[u8]| match ty {
        KvType::F32 => vec![f64::from(f32::from_le_bytes(bytes.try_into().unwrap()))],
        KvType::F16 => vec![f16::from_le_bytes(bytes.try_into().unwrap()).to_f64()],
        KvType::Bf16 => vec![bf16::from_le_bytes(bytes.try_into().unwrap()).to_f64()],
        KvType::Q8_0 => {
            let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
            bytes[2..].iter().map(|&byte| f64::from(byte as i8) * scale).collect()
        }
        KvType::Turbo(TurboType::Turbo2) => turbo::<2>(bytes),
        KvType::Turbo(TurboType::Turbo3) => turbo::<3>(bytes),
        KvType::Turbo(TurboType::Turbo4) => turbo::<4>(bytes),
    };
    bytes.chunks_exact(ty.block_bytes()).flat_map(decode).collect()
}
