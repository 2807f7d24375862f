//! Which llama.cpp is built, and how its source is obtained from cargo.

use std::fs;
use std::path::Path;

use super::build::edit;
use super::build::env::Env;
use super::build::pin::{Package, Pin, Pins, Registry};
use super::build::{edit_file, fetch, key, overlay};
use super::{Bench, archive, pins, small_pin};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What every pin's source takes, none of it left over.
#[test]
fn all_edits_fit_every_pin() {
    let env = Env { root: ROOT.into(), ..Env::from_process().unwrap() };
    let edits = overlay::read(&env.root).unwrap();
    let ext = env.root.join(overlay::FOLDER);
    for pin in pins().all() {
        let env = Env { llama_src: None, llama_sdist: None, ..env.clone() };
        let source = fetch::source(&env, pin).unwrap();
        let plan = edit::plan(&source.dir, &edits, &[&pin.name], &|from| fs::read(ext.join(from)));
        let plan = plan.unwrap_or_else(|e| panic!("{}: {e}", pin.name));
        assert!(plan.done.iter().all(|done| done.outcome == edit::Outcome::Applied));
        assert!(plan.done.len() > 300, "{}: {} edits", pin.name, plan.done.len());

        // A checkout of it is known without its name.
        let env = Env { llama_src: Some(source.dir.clone()), llama_pin: None, ..env };
        assert_eq!(pins().choose(&env, &edits).unwrap().name, pin.name);
    }
}

/// So that no edit waits for another, and upstream's changes are told apart from ours.
#[test]
fn anchors_are_upstream_s_own_text_and_the_order_does_not_matter() {
    let env = Env { root: ROOT.into(), ..Env::from_process().unwrap() };
    let edits = overlay::read(&env.root).unwrap();
    let mut backwards: Vec<_> = edits.iter().cloned().rev().collect();
    backwards.iter_mut().for_each(|file| file.edit.reverse());
    let ext = env.root.join(overlay::FOLDER);
    for pin in pins().all() {
        let env = Env { llama_src: None, llama_sdist: None, ..env.clone() };
        let source = fetch::source(&env, pin).unwrap();
        let mut wrong = Vec::new();
        for (file, edit) in edits.iter().flat_map(|f| f.edit.iter().map(move |e| (f, e))) {
            let Some(form) = edit.forms(&[&pin.name]).first().copied() else { continue };
            let text = fs::read_to_string(source.dir.join(&edit.file)).unwrap();
            match form.apply(&file.name, &text) {
                Ok((_, edit::Outcome::Applied)) => {}
                Ok(_) => wrong.push(format!("{}: {:?} is upstream's", edit.file, edit.anchor)),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        assert!(wrong.is_empty(), "{}: {}:\n{}", pin.name, wrong.len(), wrong.join("\n"));

        let plan = |edits: &[edit::EditFile]| {
            edit::plan(&source.dir, edits, &[&pin.name], &|from| fs::read(ext.join(from))).unwrap()
        };
        for (one, other) in plan(&edits).changes.iter().zip(&plan(&backwards).changes) {
            assert_eq!(one.file, other.file);
            assert!(one.new == other.new, "{}: the order of its edits matters", one.file);
        }
    }
}

#[test]
fn edits_name_pins_that_there_are() {
    let edits = edit_file::read_all(&Path::new(ROOT).join("vendor/edits")).unwrap();
    let mut named = 0;
    for (file, edit) in edits.iter().flat_map(|file| file.edit.iter().map(move |edit| (file, edit)))
    {
        for name in edit.named() {
            assert!(pins().get(name).is_ok(), "{}: {}: no pin {name}", file.name, edit.file);
            named += 1;
        }
    }
    assert!(named > 5);
}

#[test]
fn a_pin_is_chosen_by_name() {
    let bench = Bench::new();
    let choose = |name: Option<&str>| {
        pins().choose(&Env { llama_pin: name.map(String::from), ..bench.env.clone() }, &[])
    };
    assert_eq!(choose(None).unwrap().name, pins().all().next().unwrap().name);
    for name in ["0.25.3", "b12032"] {
        assert_eq!(choose(Some(name)).unwrap().name, name);
    }
    let error = choose(Some("b1")).unwrap_err();
    for part in
        ["TQ_LLAMA_PIN=\"b1\"", "0.25.3 (commit 0c1e57098, ggml 0.25.3)", "b12032", "TQ_LLAMA_SRC"]
    {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
#[cfg(unix)]
fn each_pin_has_trees_of_its_own() {
    let bench = Bench::new();
    for name in ["cc", "c++", "cmake"] {
        bench.script(name, &format!("echo {name} 1"));
    }
    let keys: Vec<_> = pins().all().map(|pin| key::of(&bench.env, pin).unwrap().key).collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
}

fn crate_pin(sha256: String) -> Pin {
    let source = Package {
        registry: Registry::Crates,
        package: "p".into(),
        version: "1.0.0".into(),
        file: "p-1.0.0.crate".into(),
        sha256,
        folder: "p-1.0.0/x".into(),
    };
    Pin { source, rest: None, ..pins().get("b12032").unwrap().clone() }
}

/// A cargo that says that it has the crate in this folder.
#[cfg(unix)]
fn with_cargo(bench: &Bench, dir: &Path) {
    let json = format!(
        r#"{{"packages":[{{"name":"q","version":"1.0.0","manifest_path":"/none/Cargo.toml"}},
        {{"name":"p","version":"1.0.0","manifest_path":"{}/Cargo.toml"}}]}}"#,
        dir.display()
    );
    let json = json.replace('\n', "");
    // The scratch package is what it is asked about.
    bench.script(
        "cargo",
        &format!("read -r all <<E\n$(/bin/cat \"$5\" | /usr/bin/tr '\\n' ' ')\nE\ncase \"$*: $all\" in\n\"metadata --format-version 1 --manifest-path \"*'p = {{ version = \"=1.0.0\"'*) echo '{json}' ;;\n*) echo \"not $*: $all\" >&2; exit 1 ;;\nesac"),
    );
}

#[test]
#[cfg(unix)]
fn a_crate_comes_from_the_archive_that_cargo_has() {
    let bench = Bench::new();
    let registry = bench.path("home/registry");
    let (cache, src) = (registry.join("cache/index-1"), registry.join("src/index-1/p-1.0.0"));
    fs::create_dir_all(&cache).unwrap();
    fs::create_dir_all(&src).unwrap();
    let file = cache.join("p-1.0.0.crate");
    let hash = archive(&file, &[("p-1.0.0/x/a.c", "int a;"), ("p-1.0.0/build.rs", "-")]);
    with_cargo(&bench, &src);

    let error = fetch::source(&bench.env, &crate_pin("0".repeat(64))).unwrap_err();
    assert!(error.contains(&hash) && error.contains("p@1.0.0"), "{error}");
    let source = fetch::source(&bench.env, &crate_pin(hash.clone())).unwrap();
    assert_eq!(fs::read_to_string(source.dir.join("a.c")).unwrap(), "int a;");
    assert_eq!(fs::read_dir(&source.dir).unwrap().count(), 1);
    drop(source); // who makes another waits for those who use one

    // Neither an archive nor checksums: there is nothing to check it by.
    fs::remove_file(&file).unwrap();
    let error = fetch::source(&bench.env, &crate_pin("1".repeat(64))).unwrap_err();
    for part in ["p-1.0.0.crate", "TQ_LLAMA_SDIST", "TQ_LLAMA_SRC"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_vendored_crate_is_checked_file_by_file() {
    let bench = Bench::new();
    let dir = bench.path("vendor/p");
    fs::create_dir_all(dir.join("x")).unwrap();
    fs::write(dir.join("x/a.c"), "int a;").unwrap();
    fs::write(dir.join("build.rs"), "-").unwrap();
    let hash = "7".repeat(64);
    let sums = |package: &str| {
        let sum = format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest("int a;"));
        let text =
            format!(r#"{{"files":{{"x/a.c":"{sum}","build.rs":"00"}},"package":"{package}"}}"#);
        fs::write(dir.join(".cargo-checksum.json"), text).unwrap();
    };
    with_cargo(&bench, &dir);

    sums(&"8".repeat(64));
    let error = fetch::source(&bench.env, &crate_pin(hash.clone())).unwrap_err();
    assert!(error.contains(&"8".repeat(64)) && error.contains(&hash), "{error}");
    sums(&hash);
    fs::write(dir.join("x/a.c"), "int b;").unwrap();
    let error = fetch::source(&bench.env, &crate_pin(hash.clone())).unwrap_err();
    assert!(error.contains("x/a.c") && error.contains("vendor p@1.0.0 again"), "{error}");
    let left = fs::read_dir(bench.env.cache.source()).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "a damaged one leaves nothing");

    fs::write(dir.join("x/a.c"), "int a;").unwrap();
    let source = fetch::source(&bench.env, &crate_pin(hash)).unwrap();
    assert_eq!(fs::read_to_string(source.dir.join("a.c")).unwrap(), "int a;");
    assert_eq!(fs::read_dir(&source.dir).unwrap().count(), 1);
}

#[test]
#[cfg(unix)]
fn without_cargo_or_its_network_a_file_will_do() {
    let bench = Bench::new();
    let file = bench.path("p-1.0.0.crate");
    let hash = archive(&file, &[("p-1.0.0/x/a.c", "int a;")]);
    let pin = crate_pin(hash);
    let error = fetch::source(&bench.env, &pin).unwrap_err();
    for part in ["cargo is not on PATH", "the crate p 1.0.0", "TQ_LLAMA_SDIST", "TQ_LLAMA_SRC"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    bench.program("cargo", "error: no matching package named p found", 101);
    let error = fetch::source(&bench.env, &pin).unwrap_err();
    for part in ["p@1.0.0", "no matching package", "TQ_LLAMA_SDIST"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    let env = Env { llama_sdist: Some(file), ..bench.env.clone() };
    let source = fetch::source(&env, &pin).unwrap();
    assert_eq!(fs::read_to_string(source.dir.join("a.c")).unwrap(), "int a;");
}

/// A pin of which folders come from another one's package, both as files in one folder.
fn pin_with_rest(bench: &Bench) -> (Pin, Env) {
    let file = bench.path("p-1.0.0.crate");
    let hash = archive(
        &file,
        &[
            ("p-1.0.0/x/a.c", "int a;"),
            ("p-1.0.0/x/tests/new.c", "-"),
            ("p-1.0.0/x/tests/t.c", "-"),
        ],
    );
    let other = small_pin(archive(
        &bench.path("p-1.tar.gz"),
        &[("p-1/vendor/x/a.c", "int old;"), ("p-1/vendor/x/tests/t.c", "int t;\nint u;\n")],
    ));
    let port = bench.path("root/vendor/port");
    fs::create_dir_all(&port).unwrap();
    fs::write(port.join("help.c"), "int help;").unwrap();
    let edits = "why = \"t\"\n[[copy]]\nfrom = \"help.c\"\nto = \"tests/help.c\"\n\
                 [[edit]]\nfile = \"tests/t.c\"\nanchor = \"int u;\"\nreplace = \"int v;\"\n";
    fs::write(port.join("tests.toml"), edits).unwrap();
    let mut pin = pins().get("b12032").unwrap().clone();
    let rest = pin.rest.as_mut().unwrap();
    (rest.folders, rest.pin) = (vec!["tests".into()], Some(Box::new(other)));
    let pin = Pin { rest: pin.rest, ..crate_pin(hash) };
    let env = Env { root: bench.path("root"), llama_sdist: Some(file), ..bench.env.clone() };
    (pin, env)
}

#[test]
fn folders_that_a_package_lacks_come_from_another() {
    let bench = Bench::new();
    let (pin, env) = pin_with_rest(&bench);
    let first = fetch::source(&env, &pin).unwrap().dir;
    let read = |name: &str| fs::read_to_string(first.join(name)).unwrap();
    assert_eq!(read("a.c"), "int a;");
    assert_eq!(read("tests/t.c"), "int t;\nint v;\n");
    assert_eq!(read("tests/help.c"), "int help;");
    assert!(!first.join("tests/new.c").exists(), "folders are taken whole");

    // Another edit, or another file of ours, makes another source.
    fs::write(env.root.join("vendor/port/help.c"), "int more;").unwrap();
    let second = fetch::source(&env, &pin).unwrap().dir;
    assert_ne!(first, second);
    assert_eq!(fs::read_to_string(second.join("tests/help.c")).unwrap(), "int more;");
}

#[test]
fn a_rest_that_is_missing_or_does_not_fit_leaves_nothing() {
    let bench = Bench::new();
    let (pin, env) = pin_with_rest(&bench);
    let other = bench.path("p-1.tar.gz");
    fs::rename(&other, bench.path("away")).unwrap();
    let error = fetch::source(&env, &pin).unwrap_err();
    for part in ["p-1.tar.gz", "tests", "p==1", "TQ_LLAMA_SDIST", "TQ_LLAMA_SRC"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    fs::rename(bench.path("away"), &other).unwrap();

    let toml = env.root.join("vendor/port/tests.toml");
    let text = fs::read_to_string(&toml).unwrap().replace("int u;", "int w;");
    fs::write(&toml, text).unwrap();
    let error = fetch::source(&env, &pin).unwrap_err();
    for part in ["vendor/port", "tests.toml", "int w;", "tests/t.c"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert_eq!(fs::read_dir(env.cache.source()).unwrap().count(), 0);
}

#[test]
fn a_rest_is_of_a_pin_that_has_everything() {
    let bench = Bench::new();
    let text = fs::read_to_string(Path::new(ROOT).join("vendor/llama.cpp.toml")).unwrap();
    for of in ["\"b12032\"", "\"none\""] {
        let text = text.replace("of      = \"0.25.3\"", &format!("of = {of}"));
        let path = bench.path("pins.toml");
        fs::write(&path, text).unwrap();
        let error = Pins::read(&path).unwrap_err();
        assert!(error.contains("b12032:") && error.contains(of), "{error}");
    }
}
