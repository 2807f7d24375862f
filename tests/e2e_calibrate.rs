//! `turboquant calibrate` and `--kv-calib`, as a user runs them.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::gguf::{Tiny, write_tiny_model};
use common::models;
use common::process::{Finished, run, without_llama_variables};

const TURBOQUANT: &str = env!("CARGO_BIN_EXE_turboquant");
const CLI: &str = env!("CARGO_BIN_EXE_llama-cli");
const COMPLETION: &str = env!("CARGO_BIN_EXE_llama-completion");
const BENCH: &str = env!("CARGO_BIN_EXE_llama-bench");
const SERVER: &str = env!("CARGO_BIN_EXE_llama-server");
const LIMIT: Duration = Duration::from_secs(60);

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A folder with a tiny model of two layers.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = dir.path().join("model.gguf");
    write_tiny_model(&model, Tiny { softcap: 1.0, ..Tiny::new(64) });
    (dir, model)
}

fn calibrate(args: &[&str]) -> Finished {
    run(TURBOQUANT, &[&["calibrate"], args].concat(), &[], LIMIT)
}

/// A few tokens with a turbo4 cache, with the library's log.
fn complete(tool: &str, model: &Path, args: &[&str], env: &[(&str, &str)]) -> Finished {
    let mode = if tool == CLI { "-st" } else { "-no-cnv" };
    let mut all = vec!["-m", utf8(model), "-p", "The capital of France is", mode, "--simple-io"];
    all.extend(["-n", "8", "-c", "256", "-t", "1", "--temp", "0", "--no-warmup", "-lv", "4"]);
    all.extend(["-ctk", "turbo4", "-ctv", "turbo4"]);
    all.extend(args);
    run(tool, &all, env, LIMIT)
}

/// The first words of a table's rows.
fn rows(stdout: &str) -> Vec<&str> {
    stdout.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn a_real_model_is_calibrated_and_answers() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (model, scales) = (models::path("smollm2"), dir.path().join("scales.gguf"));
    let args = ["-m", utf8(&model), "-o", utf8(&scales), "-n", "256", "-t", "2"];
    let done = calibrate(&args);
    done.assert_success();
    let layers: Vec<_> = (0..30).map(|il| il.to_string()).collect();
    let expected = ["layer"].into_iter().chain(layers.iter().map(|il| &**il));
    assert!(
        rows(&done.stdout)
            .into_iter()
            .eq(expected.chain(["mean", &format!("{}:", scales.display())])),
        "{}",
        done.text()
    );
    assert_eq!(done.stderr, "", "nothing to say but the table");

    for tool in [COMPLETION, CLI] {
        let answer = complete(tool, &model, &["--kv-calib", utf8(&scales)], &[]);
        answer.assert_success();
        assert!(
            answer.text().contains(&format!("key scales of '{}'", scales.display())),
            "{}",
            answer.text()
        );
        // Of a chat the model makes something else, and with every cache another thing.
        let expected = if tool == COMPLETION { "Paris" } else { "Generation: " };
        assert!(answer.stdout.contains(expected), "{tool}: {}", answer.text());
    }
}

#[test]
fn scales_are_written_beside_the_model() {
    let (dir, model) = folder();
    let text = dir.path().join("text");
    fs::write(&text, "A text of one's own. ".repeat(20)).expect("written");
    calibrate(&["-m", utf8(&model), "-f", utf8(&text), "-n", "256"]).assert_success();
    assert!(dir.path().join("model.kvcal.gguf").is_file());
}

#[test]
fn what_calibrate_refuses() {
    let (dir, model) = folder();
    let (model, out) = (utf8(&model), dir.path().join("scales.gguf"));
    let out = utf8(&out);
    let missing = dir.path().join("missing.gguf");
    let missing = utf8(&missing);
    let binary = dir.path().join("binary");
    fs::write(&binary, b"\xff\xfe").expect("written");
    for (args, code, words) in [
        (&["-m", model, "-o", out, "-n", "10"][..], 2, &["10", "256"][..]),
        (&["-m", model, "-o", out, "-n", "many"], 2, &["many"]),
        (&["-m", model, "-o", out, "-t", "0"], 2, &["--threads"]),
        (&["-m", model, "-o", out, "--bogus"], 2, &["--bogus"]),
        (&["-o", out], 2, &["--model"]),
        (&["-m", missing, "-o", out], 1, &["cannot load the model", missing]),
        (&["-m", model, "-o", out, "-f", missing], 1, &["cannot read", missing]),
        (&["-m", model, "-o", out, "-f", utf8(&binary)], 1, &["not UTF-8"]),
        (&["-m", model, "-o", utf8(dir.path())], 1, &["cannot write", utf8(dir.path())]),
    ] {
        let refused = calibrate(args);
        refused.assert_refused(words);
        assert_eq!(refused.status.code(), Some(code), "{args:?}: {}", refused.text());
        assert_eq!(refused.stdout, "", "{args:?}");
        assert!(!Path::new(out).exists(), "{args:?}");
    }
}

#[test]
fn auto_calibrates_once() {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let env = [("LLAMA_CACHE", utf8(&cache))];
    let files = || -> Vec<_> {
        let entries = fs::read_dir(cache.join("kv-calib")).expect("a folder");
        entries.map(|entry| entry.expect("a file").path()).collect()
    };
    let first = complete(COMPLETION, &model, &["--kv-calib", "auto"], &env);
    first.assert_success();
    let made = files();
    assert_eq!(made.len(), 1, "{made:?}");
    let second = complete(CLI, &model, &[], &[env[0], ("LLAMA_ARG_KV_CALIB", "auto")]);
    second.assert_success();
    assert_eq!(files(), made);
    for (ran, calibrates) in [(first, true), (second, false)] {
        let text = ran.text();
        assert_eq!(text.contains("calibrating key scales, once"), calibrates, "{text}");
        assert!(text.contains(&format!("key scales of '{}'", made[0].display())), "{text}");
    }
}

/// Files that a cache has for models.
fn kept(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache.join("kv-calib")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// The id of the scales that a program's log names.
fn id(ran: &Finished) -> &str {
    ran.assert_success();
    let line = ran.text().lines().position(|line| line.contains("llama_kv_scales: key scales"));
    let text = if ran.stdout.contains("llama_kv_scales:") { &ran.stdout } else { &ran.stderr };
    line.and_then(|_| text.split_once("llama_kv_scales:"))
        .and_then(|(_, line)| line.split_once(", id "))
        .and_then(|(_, id)| id.get(..16))
        .unwrap_or_else(|| panic!("no scales: {}", ran.text()))
}

/// Turbo keys have scales without being told to, and what is asked for otherwise is heeded.
#[test]
fn scales_are_the_default_of_turbo_keys() {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let env = [("LLAMA_CACHE", utf8(&cache))];
    for args in [&["--kv-calib", "off"][..], &["-ctk", "q8_0"], &["-ctk", "f16", "-ctv", "f16"]] {
        let ran = complete(COMPLETION, &model, args, &env);
        ran.assert_success();
        assert!(!ran.text().contains("key scales"), "{args:?}: {}", ran.text());
        assert_eq!(kept(&cache), [] as [PathBuf; 0], "{args:?}");
    }
    let first = complete(COMPLETION, &model, &[], &env);
    let made = kept(&cache);
    assert!(first.text().contains("calibrating key scales, once"), "{}", first.text());
    assert!(first.text().contains("(quick fit; turboquant calibrate"), "{}", first.text());
    assert!(matches!(&made[..], [file] if utf8(file).contains("-quick")), "{made:?}");
    for args in
        [&["-ctk", "turbo2"][..], &["-ctk", "q8_0,last1=turbo4"], &["--kv-preset", "quality"]]
    {
        let ran = complete(CLI, &model, args, &env);
        assert_eq!(id(&ran), id(&first), "{args:?}");
        assert!(!ran.text().contains("calibrating key scales"), "{args:?}: {}", ran.text());
    }
    let ran = complete(CLI, &model, &["--kv-calib", "off", "--kv-preset", "quality"], &env);
    ran.assert_success();
    assert!(!ran.text().contains("key scales"), "{}", ran.text());
    assert_eq!(kept(&cache), made);

    // The small context that ran the text is not in the log.
    let contexts = |ran: &Finished| ran.text().matches("llama_context: n_ctx ").count();
    assert_eq!(contexts(&first), contexts(&complete(COMPLETION, &model, &[], &env)));
}

/// A thorough fit takes the place of the quick one.
#[test]
fn calibrating_replaces_the_quick_fit() {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let env = [("LLAMA_CACHE", utf8(&cache))];
    let quick = complete(COMPLETION, &model, &[], &env);
    let out = dir.path().join("elsewhere.gguf");
    let calibrate = |args: &[&str]| {
        let all = [&["calibrate", "-m", utf8(&model), "-n", "400"], args].concat();
        run(TURBOQUANT, &all, &env, LIMIT)
    };
    calibrate(&["-o", utf8(&out)]).assert_success();
    assert_eq!(kept(&cache).len(), 1, "-o names the only place");
    let done = calibrate(&[]);
    done.assert_success();
    assert!(done.stdout.contains("kept for every program"), "{}", done.text());
    assert_eq!(kept(&cache).len(), 2);
    let thorough = complete(COMPLETION, &model, &[], &env);
    assert!(thorough.text().contains("(thorough fit)"), "{}", thorough.text());
    let named = complete(COMPLETION, &model, &["--kv-calib", utf8(&out)], &env);
    assert_eq!(id(&named), id(&thorough));
    assert_ne!(id(&quick), id(&thorough));

    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let refused = run(
        TURBOQUANT,
        &["calibrate", "-m", utf8(&model), "-n", "256"],
        &[("LLAMA_CACHE", utf8(&file))],
        LIMIT,
    );
    refused.assert_refused(&["was written", "not kept in the cache", utf8(&file)]);
}

/// Without a place to keep them, the program has its scales all the same, and says so.
#[test]
fn a_cache_folder_that_cannot_be_is_said() {
    let (dir, model) = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let no_folder =
        [("LLAMA_CACHE", ""), ("XDG_CACHE_HOME", ""), ("HOME", ""), ("LOCALAPPDATA", "")];
    let mut ids = Vec::new();
    let read_only = if cfg!(target_os = "linux") { "/proc" } else { utf8(&file) };
    for args in [&[][..], &["--kv-calib", "auto"]] {
        let of_file = complete(COMPLETION, &model, args, &[("LLAMA_CACHE", utf8(&file))]);
        let of_system = complete(COMPLETION, &model, args, &[("LLAMA_CACHE", read_only)]);
        let words = ["not kept", "cannot make the folder", utf8(&file), "LLAMA_CACHE", "in memory"];
        let of_none = complete(COMPLETION, &model, args, &no_folder);
        for (ran, words) in [
            (&of_file, &words[..]),
            (
                &of_system,
                &["not kept", "cannot make the folder", read_only, "LLAMA_CACHE", "in memory"],
            ),
            (&of_none, &["not kept", "no cache folder is known", "LLAMA_CACHE", "in memory"]),
        ] {
            for word in words {
                assert!(ran.text().contains(word), "no {word:?} in: {}", ran.text());
            }
            ids.push(id(ran).to_string());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the same scales each time: {ids:?}");
}

/// A tiny model whose quick fit is in a cache.
struct Kept {
    dir: tempfile::TempDir,
    model: PathBuf,
    cache: PathBuf,
    /// The run that made the fit.
    first: Finished,
    file: PathBuf,
    /// What the file holds.
    good: Vec<u8>,
}

fn kept_fit() -> Kept {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let first = complete(COMPLETION, &model, &[], &[("LLAMA_CACHE", utf8(&cache))]);
    let files = kept(&cache);
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    let good = fs::read(file).expect("a file");
    let file = file.clone();
    Kept { dir, model, cache, first, file, good }
}

/// What lies in the cache and is damaged is made again; what a killed process left is removed.
#[test]
fn a_damaged_cache_mends_itself() {
    let Kept { dir: _dir, model, cache, first, file, good } = kept_fit();
    let (env, file) = ([("LLAMA_CACHE", utf8(&cache))], &file);
    let two_hours = Duration::from_secs(2 * 3600);
    for bad in [&good[..good.len() / 2], b"", &vec![b'x'; good.len()]] {
        fs::write(file, bad).expect("written");
        let (old, young) = (file.with_extension("1.part"), file.with_extension("2.part"));
        // The folder is the user's, who may have other things in it.
        let foreign = file.with_file_name("film.mkv.part");
        for part in [&old, &young, &foreign] {
            fs::write(part, "half").expect("written");
        }
        let before = std::time::SystemTime::now() - two_hours;
        for part in [&old, &foreign] {
            let part = fs::File::options().write(true).open(part).expect("a file");
            part.set_modified(before).expect("set");
        }
        let ran = complete(COMPLETION, &model, &[], &env);
        assert_eq!(id(&ran), id(&first));
        for word in ["in the cache is ignored", "damaged", "calibrating key scales"] {
            assert!(ran.text().contains(word), "no {word:?} in: {}", ran.text());
        }
        assert!(fs::read(file).expect("a file") == good);
        assert!(!old.exists() && young.exists() && foreign.exists());
        fs::remove_file(young).expect("our file");
        fs::remove_file(foreign).expect("our file");
    }
    // A thorough one that is damaged gives way to the quick one.
    let name = utf8(file).replace("-quick1", "");
    fs::write(&name, &good[..10]).expect("written");
    let ran = complete(COMPLETION, &model, &[], &env);
    assert_eq!(id(&ran), id(&first));
    assert!(ran.text().contains("is ignored") && ran.text().contains(&name), "{}", ran.text());
}

/// Another model's fit under the name of this one's is no use, and a folder there is in the way: of the file, not of the program.
#[test]
fn what_lies_in_the_place_of_a_fit_does_no_harm() {
    let Kept { dir, model, cache, first, file, good } = kept_fit();
    let (env, file) = ([("LLAMA_CACHE", utf8(&cache))], &file);

    let other = dir.path().join("other.gguf");
    write_tiny_model(&other, Tiny::new(64));
    complete(COMPLETION, &other, &[], &env).assert_success();
    let theirs = kept(&cache).into_iter().find(|path| path != file).expect("another file");
    fs::rename(&theirs, file).expect("moved");
    let ran = complete(COMPLETION, &model, &[], &env);
    assert_eq!(id(&ran), id(&first));
    assert!(ran.text().contains("of another model"), "{}", ran.text());
    assert!(fs::read(file).expect("a file") == good);

    fs::remove_file(file).expect("our file");
    fs::create_dir(file).expect("a folder");
    let ran = complete(COMPLETION, &model, &[], &env);
    assert_eq!(id(&ran), id(&first));
    for word in ["is ignored", "not a file", "not kept", "cannot write", "in memory"] {
        assert!(ran.text().contains(word), "no {word:?} in: {}", ran.text());
    }
    assert_eq!(kept(&cache), std::slice::from_ref(file), "nothing else is left");
}

/// In the middle of a fit of some seconds: the cache has nothing, or half a file that nobody reads.
#[test]
fn a_fit_that_is_killed_leaves_nothing() {
    let (dir, model) = (tempfile::tempdir().expect("a temporary folder"), models::path("smollm2"));
    let cache = dir.path().join("cache");
    let log = dir.path().join("log");
    let output = || fs::File::options().append(true).create(true).open(&log).expect("a log");
    let args = ["-m", utf8(&model), "-p", "The", "-no-cnv", "-n", "1", "-c", "256", "-t", "1"];
    let mut child = without_llama_variables(&mut Command::new(COMPLETION))
        .args(args)
        .args(["--no-warmup", "-lv", "4", "-ctk", "turbo4"])
        .env("LLAMA_CACHE", &cache)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .expect("it starts");
    let begin = Instant::now();
    while !fs::read_to_string(&log).expect("a log").contains("calibrating key scales, once") {
        assert!(begin.elapsed() < LIMIT && child.try_wait().expect("our child").is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("our child");
    child.wait().expect("our child");
    let log = fs::read_to_string(&log).expect("a log");
    assert!(!log.contains("calibrated in"), "it was done before it was killed: {log}");
    let left = kept(&cache);
    assert!(left.iter().all(|path| path.extension().is_some_and(|e| e == "part")), "{left:?}");
}

/// However many contexts a program creates: with other types, sizes and threads, and to measure memory.
#[test]
fn programs_with_many_contexts_fit_once() {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let args = ["-m", utf8(&model), "-ctk", "turbo4,turbo3", "-fa", "1", "-p", "8", "-n", "2"];
    let more = ["-r", "1", "-t", "1", "-ub", "32,64", "-v"];
    let all = [&args[..], &more].concat();
    for env in [("LLAMA_CACHE", utf8(&cache)), ("LLAMA_CACHE", utf8(&model))] {
        let ran = run(BENCH, &all, &[env], LIMIT);
        ran.assert_success();
        let text = ran.text();
        assert_eq!(text.matches("calibrating key scales, once").count(), 1, "{text}");
        assert!(text.matches("llama_kv_scales: key scales").count() >= 4, "{text}");
    }
    assert_eq!(kept(&cache).len(), 1);
}

/// They need not wait for each other: each writes a file of its own and renames it.
#[test]
fn processes_may_fit_at_once() {
    let (dir, model) = folder();
    let cache = dir.path().join("cache");
    let ran: Vec<_> = std::thread::scope(|scope| {
        let one = || complete(COMPLETION, &model, &[], &[("LLAMA_CACHE", utf8(&cache))]);
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    assert!(ran.iter().all(|one| id(one) == id(&ran[0])));
    assert_eq!(kept(&cache).len(), 1, "{:?}", kept(&cache));
}

#[test]
fn a_file_that_cannot_be_is_refused() {
    let (dir, model) = folder();
    let missing = dir.path().join("missing.gguf");
    for tool in [COMPLETION, CLI] {
        complete(tool, &model, &["--kv-calib", utf8(&missing)], &[])
            .assert_refused(&[utf8(&missing), "no such file"]);
    }
}

#[test]
fn scales_are_an_option_of_every_tool() {
    for tool in [CLI, COMPLETION, SERVER, BENCH] {
        let help = run(tool, &["--help"], &[], LIMIT);
        assert!(help.text().contains("--kv-calib"), "{tool}: {}", help.text());
    }
    let (dir, model) = folder();
    let scales = dir.path().join("scales.gguf");
    calibrate(&["-m", utf8(&model), "-o", utf8(&scales), "-n", "256"]).assert_success();
    let bench = |file: &Path| {
        let args = ["-m", utf8(&model), "-ctk", "turbo4", "-fa", "1", "-p", "8", "-n", "2"];
        let more = ["-r", "1", "-t", "1", "-v", "--kv-calib", utf8(file)];
        run(BENCH, &[&args[..], &more].concat(), &[], LIMIT)
    };
    let ran = bench(&scales);
    ran.assert_success();
    assert!(
        ran.text().contains(&format!("key scales of '{}'", scales.display())),
        "{}",
        ran.text()
    );
    bench(&model).assert_refused(&["not a calibration"]);
}
