//! Embeddings instead of tokens, as projectors of images and sound make them, with scales that were fitted to a text.

use std::path::Path;

use super::common::calibration::{Calibration, RopePairs};
use super::common::engine::{Context, Model, Options, context};
use super::common::gguf::{tokens, uints, uniform, write_tiny_model};
use super::common::gguf_file::Gguf;
use super::common::stats::kld;
use super::common::{F16, TURBO4};
use super::{BIASED, sys};

const N_EMBD: usize = 128;

/// A model, and the embeddings of its tokens.
struct Embedded {
    name: &'static str,
    model: Model,
    table: Vec<f32>,
    pairs: RopePairs,
    /// Positions of a token.
    n_pos: usize,
}

impl Embedded {
    fn new(
        name: &'static str,
        pairs: RopePairs,
        n_pos: usize,
        change: impl FnOnce(&mut Gguf),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("model.gguf");
        write_tiny_model(&path, BIASED);
        let mut file = Gguf::read(&path);
        change(&mut file);
        file.write(&path);
        let model = Model::load(&path).expect("the model loads");
        Self { name, model, table: file.tensor("token_embd.weight").values(), pairs, n_pos }
    }

    fn of(&self, tokens: &[i32]) -> Vec<f32> {
        let row = |&token: &i32| &self.table[token as usize * N_EMBD..][..N_EMBD];
        tokens.iter().flat_map(row).copied().collect()
    }

    /// As llama.cpp gives them to `n` tokens of a text from position `at`.
    fn positions(&self, at: i32, n: usize) -> Vec<i32> {
        let of = |kind: usize| (at..).take(n).map(move |pos| if kind < 3 { pos } else { 0 });
        (0..self.n_pos).flat_map(of).collect()
    }
}

/// llama, and qwen2vl, whose RoPE turns sections of a head by the place in time, height and width.
fn cases() -> [Embedded; 2] {
    let sections = |file: &mut Gguf| {
        file.set_arch("llama", "qwen2vl");
        file.set("qwen2vl.rope.dimension_sections", uints([12, 12, 8, 0]));
    };
    [
        Embedded::new("llama", RopePairs::Adjacent, 1, |_| ()),
        Embedded::new("qwen2vl", RopePairs::Halves, 4, sections),
    ]
}

fn options(kv_calib: Option<&Path>) -> Options<'_> {
    let anchors = sys::LLAMA_KV_ANCHORS_AUTO;
    Options { kv_calib, anchors, ..Options::new((F16, F16)) }
}

/// An embedding is what its token is, with scales as without.
#[test]
fn embeddings_are_as_their_tokens() {
    let text = tokens(100);
    for case in cases() {
        let mut seed = 7;
        let calibration = Calibration::of(&case.model, 256)
            .with_scales(case.pairs, || 4f32.powf(uniform(&mut seed)));
        let path = calibration.path();
        for k in [F16, TURBO4] {
            let options = Options { k, ..options(Some(&path)) };
            let by_token = context(&case.model, options).prefill(&text, 0, 0);
            let (values, positions) = (case.of(&text), case.positions(0, text.len()));
            let mut other = context(&case.model, options);
            let by_embedding = other.decode_embeddings(&values, &positions, text.len());
            assert_eq!(by_token, by_embedding, "{}", case.name);
        }
    }
}

/// A text, an image of 6 x 8 patches, and a text. Measured: see the assertions.
#[test]
fn scales_of_a_text_do_for_an_image() {
    let text = tokens(60);
    let mut seed = 3;
    let image: Vec<f32> = (0..48 * N_EMBD).map(|_| 0.2 * uniform(&mut seed)).collect();
    for case in cases() {
        // Of the first kind all are in one place in time.
        let patch = |kind: usize| {
            (0..48).map(move |i| match kind {
                0 => 60,
                1 => 60 + i / 8,
                2 => 60 + i % 8,
                _ => 0,
            })
        };
        let (positions, next): (Vec<i32>, usize) = match case.n_pos {
            1 => ((60..108).collect(), 108),
            n => ((0..n).flat_map(patch).collect(), 68),
        };
        let logits = |options| {
            let mut context: Context = context(&case.model, options);
            let before = context.prefill(&text, 0, 0);
            let at_image = context.decode_embeddings(&image, &positions, 48);
            [before, at_image, context.prefill(&text, next, 0)]
        };
        let calibration = Calibration::of(&case.model, 256);
        assert!(calibration.strength() > 1.1, "{}", case.name);
        let path = calibration.path();
        let exact = logits(options(None));
        let divergence = |other: &[Vec<f32>; 3]| {
            let all = exact.iter().zip(other).map(|(p, q)| kld(p, q));
            all.fold(0.0, f64::max)
        };
        let scaled = divergence(&logits(options(Some(&path))));
        assert!(scaled <= 2e-5, "{}: {scaled:.1e}", case.name);
        let turbo4 = |kv_calib| divergence(&logits(Options { k: TURBO4, ..options(kv_calib) }));
        let (with, without) = (turbo4(Some(&*path)), turbo4(None));
        println!("{}: f16 {scaled:.1e}, turbo4 {without:.4}, {with:.4} with scales", case.name);
        assert!(with <= 1.5 * without + 0.01, "{}: {without:.4}, {with:.4}", case.name);
    }
}
