//! The cache folder: builds that share it, builds that were killed, what a key depends on, and what may be removed.
#![cfg(unix)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::build::cache::{Cache, CacheError, Entry, Kind, Limit, Removal};
use super::build::env::{self, Env};
use super::build::pin::Pin;
use super::build::{cmake, fetch, key, link, tree::Tree};
use super::{Bench, archive, small_pin};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// Sets the time of a file or folder.
fn age(path: &Path, age: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

/// Waits for something that another thread or process does.
pub fn wait(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: waited for 20 seconds");
}

// -- sources ---------------------------------------------------------------------------------------

/// A python3 whose pip takes a while and has a small archive; how often it was asked is in `log`.
fn with_pip(bench: &Bench) -> Pin {
    let file = bench.path("p-1.tar.gz");
    let pin = small_pin(archive(&file, &[("p-1/vendor/x/a.c", "int a;")]));
    let script = format!(
        "PATH=/usr/bin:/bin\necho \"$*\" >>{log}\nsleep 0.3\n\
         while [ \"$1\" != --dest ]; do shift; done\ncp {archive} \"$2\"/",
        log = bench.path("log").display(),
        archive = file.display()
    );
    bench.script("python3", &script);
    pin
}

#[test]
fn builds_that_begin_at_once_fetch_once() {
    let bench = Bench::new();
    let pin = with_pip(&bench);
    let (send, sources) = mpsc::channel();
    for _ in 0..4 {
        let (env, pin, send) = (bench.env.clone(), pin.clone(), send.clone());
        thread::spawn(move || send.send(fetch::source(&env, &pin)));
    }
    // Each has its source until the last has one: nobody waits for those who read it.
    let sources: Vec<_> = (0..4)
        .map(|_| sources.recv_timeout(Duration::from_secs(20)).expect("a build waits").unwrap())
        .collect();
    for source in &sources {
        assert_eq!(fs::read_to_string(source.dir.join("a.c")).unwrap(), "int a;");
    }
    assert_eq!(lines(&bench.path("log")), 1, "pip was run more than once");
    assert_eq!(names(&bench.env.cache.source()).len(), 1);
}

#[test]
fn what_a_killed_fetch_left_goes_with_the_next() {
    let bench = Bench::new();
    let pin = with_pip(&bench);
    let source = bench.env.cache.source();
    let name = format!("{}-{}", pin.commit, &pin.source.sha256[..12]);
    fs::create_dir_all(source.join(format!("{name}.tmp/download/p-1.tar.gz"))).unwrap();
    fs::create_dir_all(source.join(format!("{name}.tmp/source/half"))).unwrap();
    fetch::source(&bench.env, &pin).unwrap();
    assert_eq!(names(&source), [name]);
}

#[test]
fn a_damaged_download_leaves_nothing() {
    let bench = Bench::new();
    let pin = with_pip(&bench);
    fs::write(bench.path("p-1.tar.gz"), "half an archive").unwrap();
    let error = fetch::source(&bench.env, &pin).unwrap_err();
    assert!(error.contains("SHA-256"), "{error}");
    assert_eq!(names(&bench.env.cache.source()), Vec::<String>::new());
}

#[test]
fn old_leftovers_are_swept_and_young_ones_are_not() {
    let bench = Bench::new();
    let cache = &bench.env.cache;
    let leftovers = ["source/x.tmp123", "probe-7.cu", "download/p-1.tar.gz", "probe-8"];
    for (i, name) in leftovers.iter().enumerate() {
        let path = cache.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match i {
            0 => fs::create_dir(&path).unwrap(),
            _ => fs::write(&path, "").unwrap(),
        }
    }
    cache.sweep().unwrap();
    for name in leftovers {
        assert!(cache.dir.join(name).exists(), "{name} may be of a process that runs");
        age(&cache.dir.join(name), 2 * DAY);
    }
    fs::create_dir_all(cache.source().join("the-source")).unwrap();
    age(&cache.source().join("the-source"), 100 * DAY);
    cache.sweep().unwrap();
    assert_eq!(names(&cache.dir), ["source"]);
    assert_eq!(names(&cache.source()), ["the-source"]);
}

// -- cmake from PyPI -------------------------------------------------------------------------------

/// A python3 whose venv has a pip that waits for the file `go`, then fails if there is the file `fail`, else installs a
/// cmake. `log` has a line for each environment.
pub fn with_venv(bench: &Bench) {
    let script = format!(
        "PATH=/usr/bin:/bin\ncd {}\necho venv >>log\nmkdir -p \"$3/bin\"\n\
         cat >\"$3/bin/python\" <<END\n#!/bin/sh\nPATH=/usr/bin:/bin\ncd {0}\n\
         while [ ! -e go ]; do sleep 0.02; done\n\
         printf '#!/bin/sh\\necho cmake version 9\\n' >$3/bin/cmake\n\
         if [ -e fail ]; then echo no route to host >&2; exit 1; fi\n\
         chmod 755 $3/bin/cmake\nEND\nchmod 755 \"$3/bin/python\"",
        bench.dir.path().display()
    );
    bench.script("python3", &script);
}

#[test]
fn builds_that_begin_at_once_install_one_cmake() {
    let bench = Bench::new();
    with_venv(&bench);
    let log = bench.path("log");
    thread::scope(|scope| {
        let first = scope.spawn(|| cmake::find(&bench.env));
        wait("the first build installs", || bench.env.cache.cmake().join("bin/python").is_file());
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| cmake::find(&bench.env))).collect();
        thread::sleep(Duration::from_millis(200)); // they do what they do, and must wait
        fs::write(bench.path("go"), "").unwrap();
        for build in others.into_iter().chain([first]) {
            let cmake = build.join().unwrap().unwrap();
            assert_eq!(cmake.version, b"cmake version 9\n");
        }
    });
    assert_eq!(lines(&log), 1, "more than one environment was made");
}

#[test]
fn a_failed_install_leaves_nothing_and_harms_no_build() {
    let bench = Bench::new();
    with_venv(&bench);
    for name in ["go", "fail"] {
        fs::write(bench.path(name), "").unwrap();
    }
    let error = cmake::find(&bench.env).unwrap_err();
    assert!(error.contains("no route to host"), "{error}");
    assert!(!bench.env.cache.cmake().exists());

    // An environment of a build that was killed: there is a program, which is not one yet.
    fs::create_dir_all(bench.env.cache.cmake().join("bin")).unwrap();
    fs::write(bench.env.cache.cmake().join("bin/cmake"), "half").unwrap();
    fs::remove_file(bench.path("fail")).unwrap();
    let cmake = cmake::find(&bench.env).unwrap();
    assert_eq!(lines(&bench.path("log")), 2);

    // While a build has it, nobody removes it.
    let entry = |name: &str| {
        bench.env.cache.entries().unwrap().into_iter().find(|e| e.name == name).unwrap()
    };
    assert_eq!(bench.env.cache.remove(&entry("cmake")).unwrap(), Removal::InUse);
    assert!(cmake.cmake.is_file());
    drop(cmake);

    // One that no longer works is made anew.
    fs::remove_file(bench.env.cache.cmake().join("bin/cmake")).unwrap();
    cmake::find(&bench.env).unwrap();
    assert_eq!(lines(&bench.path("log")), 3);
    assert_eq!(bench.env.cache.remove(&entry("cmake")).unwrap(), Removal::Removed);
    assert!(!bench.env.cache.cmake().exists());
}

// -- keys ------------------------------------------------------------------------------------------

/// A compiler of this version, which is gcc by its macros and by what it does not know.
pub fn compiler(version: &str) -> String {
    format!("case $1 in -E) echo '\"gcc\"' ;; '-?') exit 1 ;; *) echo {version} ;; esac")
}

fn with_tools(bench: &Bench) {
    bench.script("cmake", "echo cmake 1");
    for name in ["cc", "c++"] {
        bench.script(name, &compiler(&format!("{name} 1")));
    }
}

#[test]
fn whatever_reaches_a_build_is_in_its_key() {
    let bench = Bench::new();
    with_tools(&bench);
    let mut keys = Vec::new();
    let mut add = |what: &str, env: &Env| {
        let key = key::of(env, &super::pin()).unwrap().key;
        assert!(!keys.iter().any(|(_, k)| *k == key), "{what} is not in the key");
        keys.push((what.to_string(), key));
    };
    let env = &bench.env;
    add("nothing", env);
    let fixed = env::REACHING.into_iter().chain(["CMAKE_NO_SUCH_VARIABLE", "NIX_LDFLAGS"]);
    // Compilers come later: these would be none.
    let of_target = env::of_target(&env.target)
        .filter(|name| !["CC", "CXX"].iter().any(|compiler| name.contains(compiler)))
        .filter(|name| !env::REACHING.contains(&name.as_str()));
    for name in fixed.map(String::from).chain(of_target) {
        for value in ["/a", "/b"] {
            add(&format!("{name}={value}"), &bench.with([(name.as_str(), value)]));
        }
    }
    add("TQ_NATIVE", &Env { native: false, ..env.clone() });
    add("TQ_CMAKE_ARGS", &Env { cmake_args: vec!["A=1".into()], ..env.clone() });

    bench.script("other-cmake", "echo cmake 1");
    add("another cmake", &Env { cmake: Some("other-cmake".into()), ..env.clone() });
    bench.script("cmake", "echo cmake 2");
    add("cmake's version", env);
    bench.script("ninja", "");
    add("ninja", env);
    for name in ["cc", "c++"] {
        bench.script(name, &compiler(&format!("{name} 2")));
        add(&format!("the version of {name}"), env);
        age(&bench.path("bin").join(name), DAY);
        add(&format!("{name}, updated"), env);
        bench.script(&format!("other-{name}"), &compiler(&format!("{name} 2")));
    }
    for (variable, compiler) in [("CC", "other-cc"), ("CXX", "other-c++")] {
        for name in env.target.names(variable) {
            add(&name, &bench.with([(name.as_str(), compiler)]));
        }
    }
    let last = keys.last().unwrap().1.clone();
    let env = bench.with([("CXX", "other-c++")]);
    assert_eq!(
        key::of(&env, &super::pin()).unwrap().key,
        last,
        "a key is the same for the same environment"
    );
}

#[test]
fn flags_of_cargo_and_empty_variables_reach_nothing() {
    let vars = ["CFLAGS", "CXXFLAGS", "MAKEFLAGS", "HOME", "PATH", "CARGO_MANIFEST_DIR"];
    let set = vars.map(|name| (OsString::from(name), OsString::from("x")));
    let empty = [(OsString::from("CPATH"), OsString::new())];
    let target = super::this_machine();
    assert_eq!(env::reaching(set.into_iter().chain(empty), &target).len(), 0);
}

// -- trees -----------------------------------------------------------------------------------------

/// The archives of a build without GPUs.
const ARCHIVES: &str = "turboquant-main llama-bench-impl llama-completion-impl llama-perplexity-impl \
    llama-cli-impl llama-server-impl server-context mtmd vendor-hash llama-ui llama-common cpp-httplib \
    llama-common-base llama ggml ggml-cpu ggml-base";

/// A package without edits, a llama.cpp of one file, and a cmake that makes empty archives: `log` has a line for each
/// build. It waits while there is the file `stop`, and fails if there is the file `fail`; what it started then goes on, with
/// its standard input, for which shells put /dev/null in the background unless it is another number's.
pub fn with_package(bench: &mut Bench) -> Pin {
    with_tools(bench);
    let root = bench.path("package");
    for dir in ["vendor/edits", "vendor/port", "ggml-ext"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let src = bench.path("llama.cpp");
    fs::create_dir_all(src.join("ggml/include")).unwrap();
    fs::write(src.join("ggml/include/ggml.h"), "enum ggml_type {};\n").unwrap();
    let script = format!(
        "PATH=/usr/bin:/bin\ncase $1 in\n--version) echo cmake 1 ;;\n\
         /*) [ -f \"$1/ggml/include/ggml.h\" ] && echo LLAMA_OPENSSL:BOOL=OFF >\"$3/CMakeCache.txt\" ;;\n\
         --build)\ncd {}\necho build >>log\nwhile [ -e stop ]; do sleep 0.02; done\n\
         if [ -e fail ]; then exec 3<&0; (while [ -e fail ]; do sleep 0.02; done) <&3 & echo compilers go on; exit 1; fi\n\
         for name in {ARCHIVES}; do printf 0123456789 >\"$2/lib$name.a\"; done ;;\nesac",
        bench.dir.path().display()
    );
    bench.script("cmake", &script);
    bench.env = Env { root, llama_src: Some(src), ..bench.env.clone() };
    super::pin()
}

/// This environment with a tree of its own.
fn variant(bench: &Bench, name: &str) -> Env {
    Env { cmake_args: vec![format!("NAME={name}")], ..bench.env.clone() }
}

fn entry(cache: &Cache, tree: &Path) -> Entry {
    cache.entries().unwrap().into_iter().find(|e| e.path == tree).unwrap()
}

#[test]
fn builds_that_want_the_same_tree_build_it_once() {
    let mut bench = Bench::new();
    let pin = with_package(&mut bench);
    fs::write(bench.path("stop"), "").unwrap();
    thread::scope(|scope| {
        let builds: Vec<_> =
            (0..3).map(|_| scope.spawn(|| Tree::build(&bench.env, &pin).map(|t| t.dir))).collect();
        wait("one of them builds", || bench.path("log").is_file());
        thread::sleep(Duration::from_millis(200)); // the others do what they do, and must wait
        fs::remove_file(bench.path("stop")).unwrap();
        let dirs: Vec<_> = builds.into_iter().map(|b| b.join().unwrap().unwrap()).collect();
        assert!(dirs.iter().all(|dir| *dir == dirs[0] && dir.join("build/libggml.a").is_file()));
    });
    assert_eq!(lines(&bench.path("log")), 1);
}

#[test]
fn the_next_build_goes_on_with_the_tree_of_a_killed_one_when_its_compilers_are_done() {
    let mut bench = Bench::new();
    let pin = with_package(&mut bench);
    fs::write(bench.path("fail"), "").unwrap();
    let error = Tree::build(&bench.env, &pin).err().unwrap();
    assert!(error.contains("compilers go on"), "{error}");
    let cache = &bench.env.cache;
    let key = names(&cache.dir.join("build")).pop().unwrap();
    let dir = cache.tree(&key);
    assert_eq!(entry(cache, &dir).kind, Kind::Unfinished);

    // What cmake has started has the lock, and so has the tree.
    assert!(cache.try_lock(&Cache::build_lock(&key)).unwrap().is_none());
    assert_eq!(cache.remove(&entry(cache, &dir)).unwrap(), Removal::InUse);
    // A build that was killed while it copied the source has left this.
    fs::rename(dir.join("src"), dir.join("src.tmp")).unwrap();
    fs::write(dir.join("src.tmp/half"), "").unwrap();
    fs::remove_file(bench.path("fail")).unwrap();
    let tree = Tree::build(&bench.env, &pin).unwrap();
    assert_eq!(names(&tree.dir), ["build", "build.log", "built", "source", "src", "used"]);
    assert!(!tree.src.join("half").exists());
    assert_eq!(names(&cache.dir.join("build")), [key]);
}

#[test]
fn links_hold_when_a_tree_goes_and_the_next_build_makes_it_again() {
    let mut bench = Bench::new();
    let pin = with_package(&mut bench);
    let cache = &bench.env.cache;
    let tree = Tree::build(&bench.env, &pin).unwrap();
    let linked = bench.path("linked");
    link::adopt(&tree.out, &linked, &[]).unwrap();
    let ggml = linked.join("libggml.a");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&ggml), inode(&tree.out.join("libggml.a")), "it takes room");
    assert_ne!(
        inode(&linked.join("CMakeCache.txt")),
        inode(&tree.out.join("CMakeCache.txt")),
        "who goes on with the tree would change it"
    );

    // Cargo watches this file. One that is newer than a build would make the next one run again.
    let built = fs::metadata(&tree.built).unwrap().modified().unwrap();
    assert!(built < SystemTime::now() - 365 * DAY);

    let dir = tree.dir.clone();
    assert_eq!(cache.remove(&entry(cache, &dir)).unwrap(), Removal::InUse, "{}", dir.display());
    assert!(tree.built.is_file());
    let built = tree.built.clone();
    drop(tree);
    assert_eq!(cache.remove(&entry(cache, &dir)).unwrap(), Removal::Removed);
    assert!(!built.exists() && names(&cache.dir.join("build")).is_empty());
    let lines = link::lines(&linked, &bench.env.target, &[]).unwrap();
    let search: Vec<_> = lines.iter().filter(|l| l.starts_with("rustc-link-search")).collect();
    assert_eq!(search, [&format!("rustc-link-search=native={}", linked.display())]);
    assert_eq!(fs::read(&ggml).unwrap(), b"0123456789");

    let again = Tree::build(&bench.env, &pin).unwrap();
    assert_eq!(again.dir, dir);
    assert_eq!(self::lines(&bench.path("log")), 2);
    link::adopt(&again.out, &linked, &[]).unwrap();
    fs::remove_file(again.out.join("libmtmd.a")).unwrap();
    let error = link::adopt(&again.out, &linked, &[]).unwrap_err();
    assert!(error.contains("without libmtmd.a: delete"), "{error}");
}

#[test]
fn the_limit_takes_the_trees_that_were_not_used_for_longest() {
    let mut bench = Bench::new();
    let pin = with_package(&mut bench);
    let cache = bench.env.cache.clone();
    let build = |name: &str| Tree::build(&variant(&bench, name), &pin).unwrap();
    let dirs = ["oldest", "in use", "foreign", "old", "young"].map(|name| {
        let tree = build(name);
        tree.dir.clone()
    });
    for (dir, days) in dirs.iter().zip([50, 40, 30, 20, 10]) {
        age(&dir.join("used"), days * DAY);
    }
    // A tree of an earlier version: builds that are linked with it do not see that it is gone.
    fs::remove_file(dirs[2].join("used")).unwrap();
    assert_eq!(entry(&cache, &dirs[2]).kind, Kind::Foreign);
    let in_use = cache.share(&Cache::use_lock(dirs[1].file_name().unwrap().to_str().unwrap()));
    let there = || dirs.each_ref().map(|dir| dir.join("built").is_file());

    let one = entry(&cache, &dirs[4]).bytes;
    assert!(one > 170, "17 archives of 10 bytes are {one}");
    assert_eq!(cache.trim(Limit::None).unwrap().len(), 0);
    assert_eq!(cache.trim(Limit::Bytes(4 * one)).unwrap().len(), 0);
    let removed = cache.trim(Limit::Bytes(3 * one)).unwrap();
    assert_eq!(removed.iter().map(|e| &e.path).collect::<Vec<_>>(), [&dirs[0]]);
    // The next one in turn is in use.
    cache.trim(Limit::Bytes(one)).unwrap();
    assert_eq!(there(), [false, true, true, false, true]);
    drop(in_use);

    // A build keeps within the limit by itself, and keeps its own tree whatever that is.
    let env = Env { cache_limit: Limit::Bytes(0), ..variant(&bench, "new") };
    let new = Tree::build(&env, &pin).unwrap();
    assert_eq!(there(), [false, false, true, false, false]);
    assert!(new.built.is_file());
    // A tree is used by a build that finds it, too.
    age(&new.dir.join("used"), 30 * DAY);
    let (built, used) = (new.built.clone(), new.dir.join("used"));
    drop(new);
    Tree::build(&env, &pin).unwrap();
    assert!(built.is_file());
    assert!(fs::metadata(used).unwrap().modified().unwrap() > SystemTime::now() - DAY);
}

#[test]
fn limits_are_sizes_or_none() {
    let limit = |text: &str| text.parse::<Limit>();
    for (text, bytes) in [
        ("0", 0),
        ("10GB", 10_000_000_000),
        ("1.5 GiB", 3 << 29),
        ("500m", 500_000_000),
        ("7 kB", 7000),
    ] {
        assert_eq!(limit(text).unwrap(), Limit::Bytes(bytes), "{text}");
    }
    assert_eq!(limit("none").unwrap(), Limit::None);
    for bad in ["", "much", "10 apples", "-1GB", "1..5GB", "GB", "inf", "nan"] {
        let Err(CacheError::Limit { text }) = limit(bad) else { panic!("{bad} is taken") };
        let error = CacheError::Limit { text }.to_string();
        assert!(error.contains("TQ_CACHE_LIMIT") && error.contains("10GB"), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_says_the_way_out() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "").unwrap();
    let error = Cache::new(bench.path("file")).lock("x").unwrap_err().to_string();
    for part in ["file/locks/x", "TQ_CACHE_DIR", "locks"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn the_environment_says_where_the_cache_is() {
    let dir = |vars: &[(&str, &str)]| {
        Cache::dir_of(Path::new("/package"), |name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
        })
    };
    assert_eq!(dir(&[("TQ_CACHE_DIR", "/x"), ("HOME", "/h")]), Some(PathBuf::from("/x")));
    assert_eq!(dir(&[("TQ_CACHE_DIR", "x")]), Some(PathBuf::from("/package/x")));
    assert_eq!(dir(&[]), None);
    if cfg!(target_os = "linux") {
        assert_eq!(dir(&[("HOME", "/h")]), Some("/h/.cache/llama-turboquant".into()));
        let both = [("HOME", "/h"), ("XDG_CACHE_HOME", "/c"), ("TQ_CACHE_DIR", "")];
        assert_eq!(dir(&both), Some("/c/llama-turboquant".into()));
    }
}
