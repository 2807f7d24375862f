//! Files of key scales that a context refuses: what is wrong, and with which file, is in the log.
#![cfg(feature = "llama")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::F16;
use common::calibration::{Calibration, RopePairs};
use common::engine::{Context, Model, Options, context};
use common::gguf::{Tiny, text, tokens, uint, uniform, write_tiny_model};
use common::gguf_file::{Gguf, Tensor};
use common::models::{tiny, written};

const HEAD_DIM: usize = 64;

/// A model with a calibration.
static CALIBRATED: LazyLock<(Model, Calibration)> = LazyLock::new(|| {
    let model = tiny(Tiny::new(HEAD_DIM as u64));
    let calibration = Calibration::of(&model, 256);
    (model, calibration)
});

fn open(path: &Path) -> Result<Context<'static>, String> {
    Context::new(&CALIBRATED.0, Options { kv_calib: Some(path), ..Options::new((F16, F16)) })
}

/// There is no context, and the log has the path and all of `words`.
#[track_caller]
fn assert_refused(path: &Path, words: &[&str]) {
    let log = open(path).err().unwrap_or_else(|| panic!("accepted instead of {words:?}"));
    for word in words.iter().chain([&path.to_str().expect("a path in UTF-8")]) {
        assert!(log.contains(word), "no {word:?} in: {log}");
    }
}

/// The calibration with something else in it is refused.
#[track_caller]
fn assert_change_refused(change: impl FnOnce(&mut Gguf), words: &[&str]) {
    assert_refused(&CALIBRATED.1.changed(change).path(), words);
}

#[test]
fn a_calibration_is_accepted() {
    let mut context = open(&CALIBRATED.1.path()).expect("a context");
    assert!(context.prefill(&tokens(100), 0, 0).iter().all(|x| x.is_finite()));
    // So are those that a test writes: what is refused below is refused for what was changed.
    open(&CALIBRATED.1.changed(|_| ()).path()).expect("a context");
}

#[test]
fn what_is_no_calibration_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("file");
    assert_refused(&file, &["no such file", "turboquant calibrate"]);
    assert_refused(dir.path(), &["not a file"]);
    for content in [&b""[..], b"GGUF", b"scales: 1, 2, 3\n"] {
        fs::write(&file, content).expect("written");
        assert_refused(&file, &["no GGUF, or damaged"]);
    }
    write_tiny_model(&file, Tiny::new(64));
    assert_refused(&file, &["not a calibration"]);
    // The model is as good as it was.
    context(&CALIBRATED.0, Options::new((F16, F16)));
}

#[test]
fn another_models_calibration_is_refused() {
    let other_norm = written(|path| {
        write_tiny_model(path, Tiny::new(64));
        let mut file = Gguf::read(path);
        let norm = file.tensors.iter_mut().find(|t| t.name == "blk.0.attn_norm.weight");
        norm.expect("a norm").data[0] ^= 1;
        file.write(path);
    });
    for other in [other_norm, tiny(Tiny::new(128))] {
        let calibration = Calibration::of(&other, 256);
        assert_refused(&calibration.path(), &["another model", "fingerprint"]);
    }
}

/// In the header, in the keys, in the tensors' names and shapes, in the scales.
#[test]
fn a_truncated_file_is_refused() {
    let file = fs::read(CALIBRATED.1.path()).expect("a file");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cut = dir.path().join("cut.gguf");
    for n in (0..file.len()).rev().step_by(5) {
        fs::write(&cut, &file[..n]).expect("written");
        assert_refused(&cut, &["damaged"]);
    }
}

/// A damaged file is refused, or, where only a number was changed, gives finite logits.
#[test]
fn any_byte_may_be_wrong() {
    let file = fs::read(CALIBRATED.1.path()).expect("a file");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("wrong.gguf");
    let mut n_accepted = 0;
    for at in 0..file.len() {
        let mut wrong = file.clone();
        wrong[at] ^= 0xff;
        fs::write(&path, wrong).expect("written");
        if let Ok(mut context) = open(&path) {
            assert!(context.prefill(&tokens(3), 0, 0).iter().all(|x| x.is_finite()), "byte {at}");
            n_accepted += 1;
        }
    }
    println!("{n_accepted} of {} bytes do not matter", file.len());
    assert!(n_accepted < file.len() / 5, "{n_accepted} of {} bytes do not matter", file.len());
}

#[test]
fn damaged_keys_are_refused() {
    let set = |key: &'static str, value: Vec<u8>| {
        move |file: &mut Gguf| {
            let old = file.metadata.iter_mut().find(|(k, _)| k == key).expect("the key");
            old.1 = value;
        }
    };
    assert_change_refused(set("general.type", text("model")), &["not a calibration"]);
    assert_change_refused(set("kvcal.version", uint(2)), &["version 2", "version 1"]);
    assert_change_refused(set("kvcal.version", text("1")), &["no kvcal.version"]);
    assert_change_refused(set("kvcal.fingerprint", text("0")), &["another model"]);
    assert_change_refused(set("kvcal.layers", uint(0)), &["no kvcal.layers"]);

    let keys: Vec<_> =
        Gguf::read(&CALIBRATED.1.path()).metadata.into_iter().map(|(key, _)| key).collect();
    for key in keys.iter().filter(|key| key.starts_with("kvcal.")) {
        let remove = |file: &mut Gguf| file.metadata.retain(|(k, _)| k != key);
        // The model's name is only told where it is another.
        if key == "kvcal.model" {
            open(&CALIBRATED.1.changed(remove).path()).expect("a context");
        } else {
            assert_change_refused(remove, &[&format!("no {key}")]);
        }
    }
    assert_change_refused(
        |file| file.metadata.retain(|(key, _)| key != "general.type"),
        &["not a calibration"],
    );
}

#[test]
fn damaged_tensors_are_refused() {
    assert_change_refused(|file| file.tensors.clear(), &["no blk.0.k_scale"]);
    assert_change_refused(|file| file.tensors[0].name = "k_scale".into(), &["no blk.0.k_scale"]);
    for shape in [[128, 1], [32, 4], [64, 1], [64, 3]] {
        let n = shape.iter().product::<u64>() as usize;
        let ones = Tensor::f32("blk.0.k_scale".into(), shape.to_vec(), std::iter::repeat_n(1.0, n));
        assert_change_refused(
            |file| file.tensors[0] = ones,
            &[&format!("f32 [{}, {}]", shape[0], shape[1]), "needs f32 [64, 2]"],
        );
    }
    // f16 of the same number.
    assert_change_refused(
        |file| {
            let tensor = &mut file.tensors[0];
            tensor.type_id = 1;
            tensor.data.truncate(tensor.data.len() / 2);
        },
        &["f16 [64, 2]", "needs f32"],
    );
}

#[test]
fn impossible_scales_are_refused() {
    let set = |channels: &'static [usize], value: f32| {
        move |file: &mut Gguf| {
            for channel in channels {
                let at = size_of::<f32>() * (HEAD_DIM + channel); // of the second head
                file.tensors[0].data[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    };
    for value in [0.0, -1.0, 1e-4, 1e4, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_change_refused(set(&[4, 5], value), &["blk.0.k_scale", "channel 4 of head 1"]);
    }
    // Adjacent channels turn together.
    assert_change_refused(set(&[4], 2.0), &["blk.0.k_scale", "channels 4 and 5 of head 1", "RoPE"]);
    open(&CALIBRATED.1.changed(set(&[4, 5], 2.0)).path()).expect("a context");
}

/// Tied as those of a model whose RoPE turns others together.
#[test]
fn pairs_of_another_rope_are_refused() {
    for (model, wrong, channels) in [
        (Tiny::new(64), RopePairs::Halves, "channels 0 and 1"),
        (Tiny { softcap: 1.0, ..Tiny::new(64) }, RopePairs::Adjacent, "channels 0 and 32"),
    ] {
        let model = tiny(model);
        let mut seed = 7;
        let calibration =
            Calibration::of(&model, 256).with_scales(wrong, || 2f32.powf(uniform(&mut seed)));
        let path = calibration.path();
        let options = Options { kv_calib: Some(&path), ..Options::new((F16, F16)) };
        let log = Context::new(&model, options).err().expect("an error");
        assert!(log.contains(channels) && log.contains("RoPE"), "{log}");
    }
}
