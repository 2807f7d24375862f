//! Calibration as a library's user calls it: what it reports, what it refuses, and that a file that was
//! there stays unless all goes well.
#![cfg(feature = "llama")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::gguf::{Tiny, write_tiny_model};
use common::gguf_file::Gguf;
use common::latent::write_latent_model;
use llama_turboquant::llama::calibrate::{CalibrateError, CalibrateOptions, calibrate};
use llama_turboquant::llama::{
    Context, ContextParams, KvCalibration, Model, ModelError, PathError,
};

const OLD: &[u8] = b"what was there before";

/// A folder with a model and an older file where the scales shall go.
struct Folder {
    dir: tempfile::TempDir,
    model: PathBuf,
    out: PathBuf,
}

impl Folder {
    fn new(model: Tiny) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, out) = (dir.path().join("model.gguf"), dir.path().join("scales.gguf"));
        write_tiny_model(&file, model);
        fs::write(&out, OLD).expect("written");
        Self { dir, model: file, out }
    }

    /// The older file is as it was, and nothing else was left.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(fs::read(&self.out).expect("a file"), OLD);
        assert_eq!(fs::read_dir(self.dir.path()).expect("a folder").count(), 2);
    }
}

fn tiny() -> Folder {
    Folder::new(Tiny::new(64))
}

fn params() -> ContextParams {
    ContextParams::default().n_ctx(512).n_threads(1)
}

fn n_tokens(n: u32) -> CalibrateOptions {
    let mut options = CalibrateOptions::default();
    options.n_tokens = n;
    options
}

fn with_text(text: &str) -> CalibrateOptions {
    let mut options = CalibrateOptions::default();
    options.text = Some(text.into());
    options
}

/// The error, and its message, in which is what llama.cpp logged.
#[track_caller]
fn fails(model: &Path, out: &Path, options: &CalibrateOptions) -> (CalibrateError, String) {
    let error = calibrate(model, out, options, |_| true, |_| ()).expect_err("an error");
    let text = error.to_string();
    (error, text)
}

#[test]
fn a_calibration_reports_what_it_did() {
    // gemma2 has two layers.
    let folder = Folder::new(Tiny { softcap: 1.0, ..Tiny::new(64) });
    let (mut steps, mut layers) = (Vec::new(), Vec::new());
    let progress = |done| {
        steps.push(done);
        true
    };
    calibrate(&folder.model, &folder.out, &n_tokens(300), progress, |layer| layers.push(layer))
        .expect("a calibration");

    assert!(steps.is_sorted() && steps.last() == Some(&1.0), "{steps:?}");
    assert_eq!(layers.iter().map(|layer| layer.layer).collect::<Vec<_>>(), [0, 1]);
    for layer in layers {
        assert!(layer.heads == 2 && layer.scaled <= layer.heads, "{layer:?}");
        assert!(0.0 < layer.error_with && layer.error_with <= layer.error_without, "{layer:?}");
        assert_eq!(layer.scaled == 0, layer.error_with == layer.error_without, "{layer:?}");
    }

    let model = Model::load(&folder.model).expect("the model loads");
    let scales = KvCalibration::File(folder.out.clone());
    Context::new(&model, &params().kv_calibration(scales)).expect("a context");
    assert_eq!(fs::read_dir(folder.dir.path()).expect("a folder").count(), 2);
}

#[test]
fn too_little_text_is_refused() {
    let folder = tiny();
    for (options, words) in [
        (with_text("Too short."), ["too few", "256 are needed"]),
        (with_text(""), ["too few", "256 are needed"]),
        (n_tokens(255), ["255 tokens are too few", "255 were asked for"]),
    ] {
        let (error, log) = fails(&folder.model, &folder.out, &options);
        let CalibrateError::Calibrate { path, reason } = &error else { panic!("{error}") };
        assert_eq!(*path, folder.model);
        for word in words {
            assert!(reason.contains(word) && log.contains(word), "no {word:?} in: {log}");
        }
        folder.assert_untouched();
    }
}

/// Three bytes of a space that has no token of its own are more tokens than the text has bytes.
#[test]
fn a_vocabulary_without_a_space_will_do() {
    let folder = tiny();
    let mut file = Gguf::read(&folder.model);
    let tokens = file.metadata.iter_mut().find(|(key, _)| key == "tokenizer.ggml.tokens");
    let (_, tokens) = tokens.expect("a vocabulary");
    let space = "▁".as_bytes();
    let at = tokens.windows(space.len()).position(|bytes| bytes == space).expect("a space");
    tokens[at..at + space.len()].copy_from_slice("█".as_bytes());
    file.write(&folder.model);
    calibrate(&folder.model, &folder.out, &n_tokens(256), |_| true, |_| ()).expect("a calibration");
}

#[test]
fn what_c_cannot_be_given_is_refused() {
    let folder = tiny();
    let (error, _) = fails(&folder.model, &folder.out, &with_text("A text\0 and more"));
    assert_eq!(error.to_string(), "the text has a NUL byte at 6");
    let (error, _) = fails(&folder.model, &folder.out, &n_tokens(1 << 31));
    assert_eq!(error.to_string(), "n_tokens is 2147483648: at most 2147483647 are possible");
    folder.assert_untouched();
}

#[cfg(unix)]
#[test]
fn paths_have_to_be_utf8_without_nul() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tiny();
    let options = CalibrateOptions::default();
    for path in [&b"\xff.gguf"[..], b"\0.gguf"].map(|bytes| Path::new(OsStr::from_bytes(bytes))) {
        for (error, _) in [fails(path, &folder.out, &options), fails(&folder.model, path, &options)]
        {
            let path = match error {
                CalibrateError::Path(error) | CalibrateError::Model(ModelError::Path(error)) => {
                    error
                }
                error => panic!("{error}"),
            };
            assert!(matches!(path, PathError::NotUtf8 { .. } | PathError::Nul { .. }));
        }
    }
    folder.assert_untouched();
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let folder = tiny();
    for model in [folder.dir.path().join("missing.gguf"), folder.out.clone()] {
        let (error, log) = fails(&model, &folder.dir.path().join("new.gguf"), &n_tokens(256));
        let CalibrateError::Model(of_model) = &error else { panic!("{error}") };
        assert!(matches!(of_model,
            ModelError::NoFile { path } | ModelError::Load { path, .. } if *path == model));
        assert!(error.to_string().contains(model.to_str().expect("a path in UTF-8")), "{error}");
        assert!(!log.is_empty());
    }
    folder.assert_untouched();
}

/// Also by another name of the same file.
#[test]
fn the_model_is_not_overwritten() {
    let folder = tiny();
    let before = fs::read(&folder.model).expect("the model");
    let same = folder
        .dir
        .path()
        .join("..")
        .join(folder.dir.path().file_name().expect("a name"))
        .join("model.gguf");
    let (error, _) = fails(&folder.model, &same, &n_tokens(256));
    assert!(matches!(error, CalibrateError::IsModel { .. }), "{error}");
    assert!(fs::read(&folder.model).expect("the model") == before);
    folder.assert_untouched();
}

#[test]
fn a_head_dim_that_is_not_rotated_is_refused() {
    let folder = Folder::new(Tiny::new(80));
    let (error, log) = fails(&folder.model, &folder.out, &n_tokens(256));
    assert!(matches!(error, CalibrateError::Calibrate { .. }), "{error}");
    assert!(log.contains("head_dim 80") && log.contains("multiple of 64"), "{log}");
    folder.assert_untouched();
}

#[test]
fn latent_attention_is_refused() {
    let folder = tiny();
    write_latent_model(&folder.model);
    let (error, log) = fails(&folder.model, &folder.out, &n_tokens(256));
    assert!(matches!(error, CalibrateError::Calibrate { .. }), "{error}");
    assert!(log.contains("latent (MLA)"), "{log}");
    folder.assert_untouched();

    let model = Model::load(&folder.model).expect("the model loads");
    Context::new(&model, &params()).expect("a context");
    // Whatever the file, it is not read.
    for scales in [KvCalibration::File(folder.out.clone()), KvCalibration::Auto] {
        let error = Context::new(&model, &params().kv_calibration(scales)).expect_err("refused");
        let log = error.to_string();
        assert!(log.contains("--kv-calib") && log.contains("latent (MLA)"), "{log}");
    }
}

#[test]
fn where_nothing_can_be_written_is_said() {
    let folder = tiny();
    let missing = folder.dir.path().join("missing").join("scales.gguf");
    let taken = folder.dir.path().join("taken");
    for out in [&missing, &taken.join("of a file")] {
        fs::write(&taken, "").expect("written");
        let (error, log) = fails(&folder.model, out, &n_tokens(256));
        assert!(matches!(error, CalibrateError::Calibrate { .. }), "{error}");
        for word in ["cannot write", out.to_str().expect("a path in UTF-8")] {
            assert!(log.contains(word), "no {word:?} in: {log}");
        }
        fs::remove_file(&taken).expect("our file");
        folder.assert_untouched();
    }
    assert!(!missing.parent().expect("a folder").exists());

    // A folder, empty or not, stays one.
    for n_files in 0..2 {
        fs::create_dir_all(&taken).expect("a folder");
        if n_files > 0 {
            fs::write(taken.join("file"), "").expect("written");
        }
        let (error, log) = fails(&folder.model, &taken, &n_tokens(256));
        assert!(matches!(error, CalibrateError::Calibrate { .. }), "{error}");
        assert!(log.contains("cannot write"), "{log}");
        assert_eq!(fs::read_dir(&taken).expect("a folder").count(), n_files);
    }
    fs::remove_dir_all(&taken).expect("our folder");
    folder.assert_untouched();
}

/// At once, when half is done, and at the very end.
#[test]
fn it_stops_when_told_to() {
    let folder = tiny();
    for limit in [0.0, 0.5, 1.0] {
        let mut last = 0.0;
        let progress = |done| {
            last = done;
            done < limit
        };
        let error = calibrate(&folder.model, &folder.out, &n_tokens(256), progress, |_| ())
            .expect_err("it was stopped");
        assert!(matches!(error, CalibrateError::Stopped), "{error}");
        assert!(last >= limit, "stopped at {last} instead of {limit}");
        folder.assert_untouched();
    }
}
