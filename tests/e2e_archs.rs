//! Every architecture of llama.cpp, by tiny models of random weights.
#![cfg(feature = "llama")]

#[path = "archs/trial.rs"]
mod trial;

use std::path::PathBuf;

use llama_turboquant::llama::{CacheType, ModelProbe};

#[test]
#[ignore = "prints what there is: TQ_ARCHS=FOLDER cargo test --test e2e_archs look -- --ignored --nocapture"]
fn look() {
    let folder = PathBuf::from(std::env::var_os("TQ_ARCHS").expect("a folder"));
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("a file").path()).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let model = match trial::load(&file) {
            Ok(model) => model,
            Err(error) => {
                println!("{name}: load: {error}");
                continue;
            }
        };
        let dims: Vec<_> = model.kv_layers().iter().map(|l| format!("{l:?}")).collect();
        println!("{name}: {} layers {}", model.n_layer(), dims.first().map_or("", |s| s));
        let f16 = trial::run(&model, CacheType::F16, CacheType::F16);
        let show = |what: &str, run: &trial::Outcome| match run {
            Err(error) => println!("  {what}: {error}"),
            Ok(run) => {
                let from = f16.as_ref().map_or(f64::NAN, |f16| run.from(f16));
                let shifted = f16
                    .as_ref()
                    .ok()
                    .and_then(|f16| Some(trial::kld(f16.shifted.as_ref()?, run.shifted.as_ref()?)));
                println!(
                    "  {what}: kld {from:.2e} single {:.1e} other {:.1e} state {:?} shift {shifted:?}",
                    run.single, run.other, run.state
                );
            }
        };
        show("f16", &f16);
        show("q4_0", &trial::run(&model, CacheType::Q4_0, CacheType::Q4_0));
        show("turbo4", &trial::run(&model, CacheType::Turbo4, CacheType::Turbo4));
        show("turbo3/turbo2", &trial::run(&model, CacheType::Turbo3, CacheType::Turbo2));
        println!("  anchors {:?}", trial::anchors(&model));
        let fit = ModelProbe::open(&file)
            .map_err(|e| e.to_string())
            .map(|p| p.kv_fit().map_err(|e| e.to_string()));
        println!("  scales {fit:?}");
    }
}
