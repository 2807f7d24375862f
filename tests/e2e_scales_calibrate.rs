//! Calibration as a library's user calls it: what it reports, what it refuses, and that a file that was
//! there stays unless all goes well.
#![cfg(feature = "llama")]

mod common;
#[path = "scales/odd_models.rs"]
mod odd_models;
#[path = "scales/stopped.rs"]
mod stopped;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::gguf::{Tiny, text, uint, write_tiny_model};
use common::gguf_file::{Gguf, Tensor};
use common::latent::write_latent_model;
use llama_turboquant::llama::calibrate::{CalibrateError, CalibrateOptions, calibrate};
use llama_turboquant::llama::{
    CacheType, Context, ContextParams, KvCalibration, KvFitKind, Model, ModelError, PathError,
    on_fit_progress,
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

/// A model that no other test and no earlier run has: nothing is kept of it.
fn new_model(path: &Path, change: impl FnOnce(&mut Gguf)) {
    write_tiny_model(path, Tiny { key_bias: 3.0, sharpness: 30.0, ..Tiny::new(64) });
    make_new(path, change);
}

/// The same of any model of the same first norm.
fn make_new(path: &Path, change: impl FnOnce(&mut Gguf)) {
    let mut file = Gguf::read(path);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    // The lowest bits of some weights.
    let norm = file.tensor("blk.0.attn_norm.weight");
    for (i, byte) in now.as_nanos().to_le_bytes().into_iter().enumerate() {
        norm.data[4 * i] = byte;
    }
    change(&mut file);
    file.write(path);
}

/// Makes a model one of qwen3, with norms of queries and keys. Channels 0 and 32 turn together.
fn normalise_heads(file: &mut Gguf, head_dim: u64) {
    file.set_arch("llama", "qwen3");
    file.tensors.retain(|tensor| !tensor.name.ends_with(".bias"));
    for (name, low) in [("q", 0.5f32), ("k", 2.0)] {
        let weights = (0..head_dim).map(|channel| if channel % 32 == 0 { low } else { 1.0 });
        let name = format!("blk.0.attn_{name}_norm.weight");
        file.tensors.push(Tensor::f32(name, vec![head_dim], weights));
    }
}

fn turbo4() -> ContextParams {
    params().cache_types(CacheType::Turbo4, CacheType::Turbo4)
}

/// Progress is told to one callback in a process: a test that sets it holds this.
static PROGRESS: Mutex<()> = Mutex::new(());

/// One fit for all contexts of a model, also when threads make them at once.
#[test]
fn threads_share_a_fit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |_| ());
    let _progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    on_fit_progress(move |done| {
        counted.fetch_add(usize::from(done >= 1.0), Ordering::Relaxed);
        true
    });
    let model = Model::load(&file).expect("the model loads");
    let fits: Vec<_> = std::thread::scope(|scope| {
        let one = || Context::new(&model, &turbo4()).expect("a context").kv_fit();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    on_fit_progress(|_| true);
    let first = fits[0].clone().expect("key scales");
    assert_eq!(first.kind, KvFitKind::Quick);
    assert!(first.source.as_ref().is_some_and(|source| source.is_file()), "{first:?}");
    assert!(fits.iter().all(|fit| fit.as_ref() == Some(&first)), "{fits:?}");
    assert!(calls.load(Ordering::Relaxed) >= 1);
    // The file is gone, the process still has its scales.
    fs::remove_file(first.source.as_ref().expect("a file")).expect("our file");
    assert_eq!(Context::new(&model, &turbo4()).expect("a context").kv_fit(), Some(first));
}

/// Saved states carry the id of the fit: it may not depend on how many threads made it.
#[test]
fn fits_are_the_same_whatever_made_them() {
    let folder = Folder::new(Tiny { key_bias: 3.0, sharpness: 30.0, ..Tiny::new(64) });
    let files = [1, 2, 3, 5].map(|n_threads| {
        let mut options = n_tokens(256);
        options.n_threads = n_threads;
        calibrate(&folder.model, &folder.out, &options, |_| true, |_| ()).expect("a calibration");
        fs::read(&folder.out).expect("a file")
    });
    assert!(files.iter().all(|file| *file == files[0]));
}

/// A state is refused with what would take it.
#[test]
fn a_state_under_another_fit_names_the_way_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |_| ());
    let model = Model::load(&file).expect("the model loads");
    let off = turbo4().kv_calibration(KvCalibration::Off);
    let state = |params: &ContextParams| {
        let mut context = Context::new(&model, params).expect("a context");
        context.append(&[5, 6, 7], 0).expect("it decodes");
        context.state().expect("a state")
    };
    let refusal = |params: &ContextParams, state: &[u8]| {
        let mut context = Context::new(&model, params).expect("a context");
        context.set_state(state).expect_err("refused").to_string()
    };
    let (plain, quick) = (state(&off), state(&turbo4()));
    let fit = Context::new(&model, &turbo4()).expect("a context").kv_fit().expect("key scales");
    let source = fit.source.clone().expect("a file").display().to_string();
    let log = refusal(&turbo4(), &plain);
    assert!(log.contains("--kv-calib off"), "{log}");
    let log = refusal(&off, &quick);
    assert!(log.contains(&source) && log.contains("--kv-calib"), "{log}");

    // A thorough fit takes over; the quick one is still there for what was saved.
    let mut options = n_tokens(400);
    options.keep = true;
    calibrate(&file, &dir.path().join("scales.gguf"), &options, |_| true, |_| ()).expect("scales");
    let log = refusal(&turbo4(), &quick);
    assert!(log.contains(&source), "{log}");
    let named = turbo4().kv_calibration(KvCalibration::File(source.into()));
    let mut context = Context::new(&model, &named).expect("a context");
    assert_eq!(context.kv_fit().map(|fit| fit.kind), Some(KvFitKind::File));
    context.set_state(&quick).expect("it is restored");
    let thorough = Context::new(&model, &turbo4()).expect("a context").kv_fit().expect("scales");
    assert_eq!(thorough.kind, KvFitKind::Thorough);
    assert_ne!(thorough.id, fit.id);
}

/// Stopped by the callback: the context has no scales, and the next one tries again.
#[test]
fn a_fit_that_is_stopped_leaves_a_context_without() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |_| ());
    let model = Model::load(&file).expect("the model loads");
    let _progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    let two_threads = turbo4().n_threads(2);
    let stop = Arc::new(AtomicBool::new(true));
    let (stopping, thread) = (Arc::clone(&stop), std::thread::current().id());
    on_fit_progress(move |_| {
        std::thread::current().id() != thread || !stopping.load(Ordering::Relaxed)
    });
    assert_eq!(Context::new(&model, &two_threads).expect("a context").kv_fit(), None);
    stop.store(false, Ordering::Relaxed);
    assert!(Context::new(&model, &two_threads).expect("a context").kv_fit().is_some());
}

/// No text can be cut into tokens: norms of queries and keys say enough, where there are any.
#[test]
fn models_without_a_text_have_the_scales_of_their_norms() {
    let without_text = |file: &mut Gguf, arch: &str| {
        file.metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
        file.metadata.push(("tokenizer.ggml.model".into(), text("none")));
        file.metadata.push((format!("{arch}.vocab_size"), uint(259)));
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |file| without_text(file, "llama"));
    let model = Model::load(&file).expect("the model loads");
    let context = Context::new(&model, &turbo4()).expect("a context");
    assert_eq!(context.kv_fit(), None);
    let asked = turbo4().kv_calibration(KvCalibration::Auto);
    let error = Context::new(&model, &asked).expect_err("refused").to_string();
    assert!(error.contains("no vocabulary"), "{error}");

    new_model(&file, |file| {
        normalise_heads(file, 64);
        without_text(file, "qwen3");
    });
    let model = Model::load(&file).expect("the model loads");
    let mut context = Context::new(&model, &turbo4()).expect("a context");
    let fit = context.kv_fit().expect("key scales");
    assert_eq!((fit.kind, fit.source), (KvFitKind::Norms, None));
    context.append(&[5, 6, 7], 0).expect("it decodes");
    assert!(context.last_logits().expect("logits").iter().all(|logit| logit.is_finite()));
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
fn latent_attention_is_refused() {
    let folder = tiny();
    write_latent_model(&folder.model);
    let (error, log) = fails(&folder.model, &folder.out, &n_tokens(256));
    assert!(matches!(error, CalibrateError::Calibrate { .. }), "{error}");
    assert!(log.contains("latent (MLA)"), "{log}");
    folder.assert_untouched();

    let model = Model::load(&folder.model).expect("the model loads");
    Context::new(&model, &params()).expect("a context");
    // By default it goes without.
    let possible = params().kv_calibration(KvCalibration::IfPossible);
    assert_eq!(Context::new(&model, &possible).expect("a context").kv_fit(), None);
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
