//! Quick fits that are stopped, and callbacks that do what they should not.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::common::gguf::{Tiny, write_tiny_model};
use super::{PROGRESS, make_new, new_model, normalise_heads, turbo4};
use llama_turboquant::llama::{Context, KvFitKind, Model, on_fit_progress, sys};

/// Also where norms would give scales: they are for models that cannot be run.
#[test]
fn a_stopped_fit_is_not_replaced_by_norms() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |file| normalise_heads(file, 64));
    let model = Model::load(&file).expect("the model loads");
    let _progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    let thread = std::thread::current().id();
    on_fit_progress(move |_| std::thread::current().id() != thread);
    assert_eq!(Context::new(&model, &turbo4()).expect("a context").kv_fit(), None);
    on_fit_progress(|_| true);
    let fit = Context::new(&model, &turbo4()).expect("a context").kv_fit().expect("key scales");
    assert_eq!(fit.kind, KvFitKind::Quick);
}

/// While the text runs, too: of a large model that is most of the time.
#[test]
fn progress_is_reported_layer_by_layer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    write_tiny_model(&file, Tiny { softcap: 1.0, ..Tiny::new(64) });
    make_new(&file, |_| ());
    let model = Model::load(&file).expect("the model loads");
    let _progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    let thread = std::thread::current().id();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    on_fit_progress(move |done| {
        if std::thread::current().id() == thread {
            seen.lock().expect("no panic").push(done);
        }
        true
    });
    Context::new(&model, &turbo4()).expect("a context");
    on_fit_progress(|_| true);
    // Two layers run, two are fitted.
    assert_eq!(*steps.lock().expect("no panic"), [0.0, 0.25, 0.5, 0.75, 1.0]);
}

thread_local! {
    /// How often the abort callback was asked, and from which time on it says yes.
    static ASKED: Cell<(u32, u32)> = const { Cell::new((0, u32::MAX)) };
}

unsafe extern "C" fn on_abort(_: *mut c_void) -> bool {
    let (n, limit) = ASKED.get();
    ASKED.set((n + 1, limit));
    n >= limit
}

/// The callback of the context that is created: it has no scales, and the next one tries again.
#[test]
fn the_abort_callback_stops_a_fit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("model.gguf");
    new_model(&file, |_| ());
    let model = Model::load(&file).expect("the model loads");
    let kind = |limit| {
        ASKED.set((0, limit));
        // SAFETY: the model lives; the context is freed.
        unsafe {
            let mut params = sys::llama_context_default_params();
            (params.type_k, params.type_v) = (super::common::TURBO4, super::common::TURBO4);
            params.n_ctx = 256;
            params.abort_callback = Some(on_abort);
            let context = sys::llama_init_from_model(model.raw(), params);
            assert!(!context.is_null());
            let kind = sys::llama_get_kv_fit(context).type_;
            sys::llama_free(context);
            kind
        }
    };
    for limit in 0..3 {
        assert_eq!(kind(limit), sys::LLAMA_KV_FIT_NONE, "at call {limit}");
    }
    assert_eq!(kind(u32::MAX), sys::LLAMA_KV_FIT_QUICK);
}

/// A context that the callback of a fit creates would wait for that fit.
#[test]
fn a_callback_may_create_contexts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let [file, other] = ["model.gguf", "other.gguf"].map(|name| dir.path().join(name));
    new_model(&file, |_| ());
    write_tiny_model(&other, Tiny::new(128));
    let model = Model::load(&file).expect("the model loads");
    let other = Model::load(&other).expect("the model loads");
    let _progress = PROGRESS.lock().unwrap_or_else(|e| e.into_inner());
    let thread = std::thread::current().id();
    let created = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&created);
    on_fit_progress(move |_| {
        if std::thread::current().id() == thread {
            let context = Context::new(&other, &turbo4()).expect("a context");
            assert_eq!(context.kv_fit(), None);
            count.fetch_add(1, Ordering::Relaxed);
        }
        true
    });
    let fit = Context::new(&model, &turbo4()).expect("a context").kv_fit();
    on_fit_progress(|_| true);
    assert!(fit.is_some());
    assert!(created.load(Ordering::Relaxed) > 0);
}
