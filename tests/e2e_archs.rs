//! Every architecture of llama.cpp, by tiny models of random weights. What they do is on a page, docs/models.md.
#![cfg(feature = "llama")]

mod common;

#[path = "archs/bounds.rs"]
mod bounds;
#[path = "archs/page.rs"]
mod page;
#[path = "archs/row.rs"]
mod row;
#[path = "archs/trial.rs"]
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use common::latent::write_latent;
use common::tree::tree;
use llama_turboquant::llama::{CacheType, GGML, LLAMA_CPP};

use row::{Measured, Row};

/// An architecture that llama.cpp gains is missing on the page until the sweep has run.
#[test]
fn the_page_has_every_architecture() {
    let page = std::fs::read_to_string(page::PATH).expect("a page");
    let on_page = page::names(&page);
    let missing: Vec<_> = known().into_iter().filter(|name| !on_page.contains(name)).collect();
    assert!(
        missing.is_empty(),
        "{} has no row for {missing:?}: its head says how it is written",
        page::PATH
    );
}

/// What llama.cpp has a name for.
fn known() -> BTreeSet<String> {
    let source = tree().join("src/src/llama-arch.cpp");
    let source = std::fs::read_to_string(source).expect("the edited source");
    let names = source.split("LLM_ARCH_NAMES = {").nth(1).expect("names");
    let names = names.split("};").next().expect("their end");
    let name =
        |line: &str| Some(line.trim().strip_prefix("{ LLM_ARCH_")?.split('"').nth(1)?.to_owned());
    let names: BTreeSet<_> =
        names.lines().filter_map(name).filter(|name| name != "(unknown)").collect();
    assert!(names.len() > 100 && names.contains("llama"), "{names:?}");
    names
}

/// Every model of a folder is as it should be, and as the page says.
#[test]
#[ignore = "needs what `test-llama-archs --seed 1 -d 0.5 -o FOLDER` writes: TQ_ARCHS=FOLDER"]
fn sweep() {
    let folder = folder();
    let (measured, wrong) = measure(models(&folder));
    let mut ratios: Vec<f64> = measured.iter().filter_map(|(_, ratio)| *ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "turbo4 / turbo4: {median:.2} times the divergence of q4_0, the median of {}",
        ratios.len()
    );
    assert!(median < 0.8, "measured: 0.52");
    let mut rows = not_made(&folder);
    rows.extend(measured.into_iter().map(|(row, _)| (row.name.clone(), row)));
    assert!(
        wrong.is_empty(),
        "{} architectures are not as they should be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let unknown: Vec<_> = known().into_iter().filter(|name| !rows.contains_key(name)).collect();
    assert!(unknown.is_empty(), "neither made nor said why not: {unknown:?}");

    let rows: Vec<_> = rows.into_values().collect();
    let written = page::of(&rows, &format!("{LLAMA_CPP}, ggml {GGML}"));
    if std::env::var_os("TQ_UPDATE_MODELS").is_some() {
        std::fs::write(page::PATH, &written).expect("a page");
    }
    let page = std::fs::read_to_string(page::PATH).expect("a page");
    let changed: Vec<_> = written.lines().filter(|line| !page.contains(line)).collect();
    assert!(
        page == written,
        "{} is stale: its head says how it is written. New:\n{}",
        page::PATH,
        changed.join("\n")
    );
}

/// Runs all models, as many at once as there are cores. Those that are not as they should be, with the reason, come second.
fn measure(models: BTreeMap<String, PathBuf>) -> (Vec<Measured>, Vec<String>) {
    let queue = Mutex::new(models.into_iter());
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().expect("a queue").next();
            let Some((name, file)) = next else { return done };
            done.push(row::of_model(&name, &file).map_err(|error| format!("{name}: {error}")));
        }
    };
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (mut measured, mut wrong) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        for result in threads.into_iter().flat_map(|thread| thread.join().expect("no panic")) {
            match result {
                Ok(row) => measured.push(row),
                Err(error) => wrong.push(error),
            }
        }
    });
    (measured, wrong)
}

/// Keys of latent attention are rotated where the graph writes them, and what attention reads of them as values is turned back. A
/// shift turns their last channels alone.
#[test]
fn latent_attention_is_as_near_to_f16_as_the_types_allow() {
    for n_latent in [64, 512] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("latent.gguf");
        write_latent(&file, n_latent);
        let model = trial::load(&file).expect("the model loads");
        let run = |of| trial::run(&model, of, of).unwrap_or_else(|e| panic!("{of}: {e}"));
        let (exact, coarse) = (run(CacheType::F16), run(CacheType::Q4_0));
        assert!(exact.shifted.is_ok(), "{:?}", exact.shifted);
        for (of, bounds) in
            [(CacheType::Turbo4, bounds::TURBO4), (CacheType::Turbo3, bounds::TURBO3)]
        {
            let run = run(of);
            println!("{n_latent}: {of} {:e}, q4_0 {:e}", run.from(&exact), coarse.from(&exact));
            bounds::check(&run, &exact, Some(&coarse), bounds)
                .unwrap_or_else(|e| panic!("{n_latent}: {e}"));
        }
    }
}

fn folder() -> PathBuf {
    std::env::var_os("TQ_ARCHS").expect("TQ_ARCHS=FOLDER").into()
}

/// The models of a folder by architecture; of two, that without experts.
fn models(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut models = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let file = entry.expect("a file").path();
        let name = file.file_name().expect("a name").to_str().expect("in UTF-8").to_owned();
        if let Some(name) = name.strip_suffix("-dense.gguf") {
            models.insert(name.to_owned(), file);
        } else if let Some(name) = name.strip_suffix("-moe.gguf") {
            models.entry(name.to_owned()).or_insert(file);
        }
    }
    assert!(!models.is_empty(), "{} has no models", folder.display());
    models
}

/// What the program that makes the models says it did not make.
fn not_made(folder: &Path) -> BTreeMap<String, Row> {
    let lines = std::fs::read_to_string(folder.join("not-made.txt")).expect("not-made.txt");
    let row = |line: &str| {
        let (name, why) = line.split_once('\t').expect("a name and a reason");
        assert!(!why.starts_with("error"), "no model of {name}: {why}");
        (name.to_owned(), Row::not_made(name, why))
    };
    lines.lines().map(row).collect()
}

/// Prints what each model gives, for a closer look.
#[test]
#[ignore = "prints: TQ_ARCHS=FOLDER cargo test --test e2e_archs look -- --ignored --nocapture"]
fn look() {
    let only = std::env::var("TQ_ARCHS_ONLY").unwrap_or_default();
    for (name, file) in models(&folder()).into_iter().filter(|(name, _)| name.starts_with(&only)) {
        println!("{name}:");
        let model = match trial::load(&file) {
            Ok(model) => model,
            Err(error) => {
                println!("  {error}");
                continue;
            }
        };
        use CacheType::{F16, Q4_0, Q8_0, Turbo2, Turbo3, Turbo4};
        let exact = trial::run(&model, F16, F16);
        for (k, v) in [
            (F16, F16),
            (Q8_0, Q8_0),
            (Q4_0, Q4_0),
            (Turbo4, Turbo4),
            (Turbo3, Turbo3),
            (Turbo3, Turbo2),
        ] {
            match trial::run(&model, k, v) {
                Err(error) => println!("  {k}/{v}: {error}"),
                Ok(run) => {
                    let exact = exact.as_ref().ok();
                    println!(
                        "  {k}/{v}: from f16 {:.2e}, one by one {:.1e}, beside another {:.1e}, restored {:?}, shifted {:?} {:?}",
                        exact.map_or(f64::NAN, |exact| run.from(exact)),
                        run.single,
                        run.other,
                        run.state,
                        exact.and_then(|exact| run.shift_from(exact)),
                        run.shifted.as_ref().err(),
                    );
                }
            }
        }
    }
}
