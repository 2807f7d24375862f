//! Compilers, toolchain files and flags: which of them reach CMake and the cache's key, and which do not.
#![cfg(unix)]

use std::fs;
use std::process::Command;

use super::build::env::Env;
use super::build::target::Target;
use super::build::{driver, key, link, tree::Tree};
use super::cached::{compiler, with_package};
use super::{Bench, pin};

/// Built on another machine.
fn aarch64() -> Target {
    Target {
        triple: "aarch64-unknown-linux-gnu".into(),
        host: "x86_64-unknown-linux-gnu".into(),
        os: "linux".into(),
        arch: "aarch64".into(),
        env: "gnu".into(),
        unix: true,
    }
}

/// What cmake is called with to configure, a line each, and the variables that it sees.
struct Seen {
    args: String,
    vars: String,
}

impl Seen {
    /// The value of an option: of several, CMake takes the last one.
    fn option(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.strip_prefix("-D")?.split_once('=').map(|(n, _)| n == name);
        let last = self.args.lines().rfind(|line| of(line) == Some(true))?;
        last.split_once('=').map(|(_, value)| value.trim())
    }
}

/// A package that is built by a cmake which writes down what it sees.
fn seen(bench: &Bench, env: &Env) -> Seen {
    if !bench.path("bin/cmake-builds").exists() {
        fs::rename(bench.path("bin/cmake"), bench.path("bin/cmake-builds")).unwrap();
    }
    let script = format!(
        "case $1 in\n/*) for a in \"$@\"; do echo \"$a\"; done >{0}/args; /usr/bin/env >{0}/vars ;;\nesac\n\
         exec {0}/bin/cmake-builds \"$@\"",
        bench.dir.path().display()
    );
    bench.script("cmake", &script);
    Tree::build(env, &pin()).unwrap();
    let read = |name| fs::read_to_string(bench.path(name)).unwrap();
    Seen { args: read("args"), vars: read("vars") }
}

fn key(env: &Env) -> String {
    key::of(env, &pin()).unwrap().key
}

#[test]
fn compilers_of_the_target_reach_cmake_and_the_key() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    for name in ["aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "my-gcc", "my-g++"] {
        bench.script(name, &compiler("9"));
    }
    let path = |name: &str| bench.path("bin").join(name).display().to_string();

    // By the prefix of Linux distributions.
    let cross = bench.with_target(aarch64(), []);
    let keys = [key(&bench.env), key(&cross)];
    let found = seen(&bench, &cross);
    for (name, value) in [
        ("CMAKE_C_COMPILER", path("aarch64-linux-gnu-gcc").as_str()),
        ("CMAKE_CXX_COMPILER", &path("aarch64-linux-gnu-g++")),
        ("CMAKE_SYSTEM_NAME", "Linux"),
        ("CMAKE_SYSTEM_PROCESSOR", "aarch64"),
        ("GGML_NATIVE", "OFF"),
    ] {
        assert_eq!(found.option(name), Some(value), "{name} in {}", found.args);
    }
    assert!(found.option("CMAKE_C_FLAGS").unwrap().contains("-fPIE"), "{}", found.args);

    // By name.
    let vars =
        [("CC_aarch64_unknown_linux_gnu", "my-gcc"), ("CXX_aarch64-unknown-linux-gnu", "my-g++")];
    let named = bench.with_target(aarch64(), vars);
    let keys = [&keys[0], &keys[1], &key(&named)];
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "{keys:?}");
    let found = seen(&bench, &named);
    assert_eq!(found.option("CMAKE_C_COMPILER"), Some(path("my-gcc").as_str()));
    assert_eq!(found.option("CMAKE_CXX_COMPILER"), Some(path("my-g++").as_str()));
}

#[test]
fn a_toolchain_file_of_the_target_reaches_cmake_and_the_key() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    let file = bench.path("toolchain.cmake");
    fs::write(&file, "set(CMAKE_C_COMPILER a)\n").unwrap();
    let vars = [("CMAKE_TOOLCHAIN_FILE_aarch64_unknown_linux_gnu", file.to_str().unwrap())];
    let cross = bench.with_target(aarch64(), vars);

    // It names the compilers: none of ours is needed, and CMake is told of none.
    let first = key(&cross);
    let found = seen(&bench, &cross);
    assert_eq!(found.option("CMAKE_TOOLCHAIN_FILE"), file.to_str());
    assert_eq!(found.option("CMAKE_C_COMPILER"), None, "{}", found.args);
    assert_eq!(found.option("CMAKE_SYSTEM_NAME"), None, "{}", found.args);
    // CMake looks for OpenSSL with that compiler, and goes on without.
    assert_eq!(found.option("LLAMA_OPENSSL"), Some("ON"));
    assert_eq!(found.option("CMAKE_REQUIRE_FIND_PACKAGE_OpenSSL"), Some("OFF"));

    fs::write(&file, "set(CMAKE_C_COMPILER b)\n").unwrap();
    assert_ne!(key(&cross), first, "what is in the file is not in the key");

    // As an option of the user, with a type.
    let args = vec![format!("CMAKE_TOOLCHAIN_FILE:FILEPATH={}", file.display())];
    let option = Env { cmake_args: args, ..bench.with_target(aarch64(), []) };
    let found = seen(&bench, &option);
    assert_eq!(found.option("CMAKE_TOOLCHAIN_FILE"), file.to_str());
    assert_eq!(found.option("CMAKE_C_COMPILER"), None, "{}", found.args);
}

#[test]
fn flags_of_the_host_do_not_leak() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    for name in ["aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"] {
        bench.script(name, &compiler("9"));
    }
    let all = [
        ("CFLAGS", "-DCARGOS"),
        ("CXXFLAGS", "-DCARGOS"),
        ("HOST_CFLAGS", "-DHOSTS"),
        ("CFLAGS_x86_64_unknown_linux_gnu", "-DHOSTS"),
        ("CC_x86_64_unknown_linux_gnu", "no-such-compiler"),
        ("CMAKE_TOOLCHAIN_FILE_x86_64_unknown_linux_gnu", "/no/such/file"),
        ("TARGET_CFLAGS", "-DTARGETS=1"),
        ("CXXFLAGS_aarch64_unknown_linux_gnu", "-DTARGETS=2"),
    ];
    let found = seen(&bench, &bench.with_target(aarch64(), all));
    let flags = |language: &str| found.option(&format!("CMAKE_{language}_FLAGS")).unwrap();
    assert!(flags("C").ends_with("-DTARGETS=1"), "{}", flags("C"));
    assert!(flags("CXX").ends_with("-DTARGETS=2"), "{}", flags("CXX"));
    for text in ["CARGOS", "HOSTS", "no-such-compiler"] {
        assert!(!found.args.contains(text), "{text} is in {}", found.args);
    }
}

/// In a process of its own, whose variables can be set.
#[test]
fn what_this_process_has_reaches_cmake_if_the_key_has_it() {
    const NAMES: [&str; 6] =
        ["CFLAGS", "CXXFLAGS", "MAKEFLAGS", "CC", "CMAKE_TOOLCHAIN_FILE", "CPATH"];
    const INNER: &str = "TQ_TEST_INNER";
    if std::env::var_os(INNER).is_none() {
        let name = "compilers::what_this_process_has_reaches_cmake_if_the_key_has_it";
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([name, "--exact", "--nocapture"]).env(INNER, "1");
        let output = again.envs(NAMES.map(|name| (name, "/leak"))).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let mut bench = Bench::new();
    with_package(&mut bench);
    let found = seen(&bench, &bench.with([("CPATH", "/known")]));
    assert!(!found.args.contains("leak"), "{}", found.args);
    let leaks: Vec<_> = found.vars.lines().filter(|line| line.ends_with("=/leak")).collect();
    assert_eq!(leaks, [""; 0]);
    assert!(found.vars.lines().any(|line| line == "CPATH=/known"), "{}", found.vars);
}

#[test]
fn a_build_for_this_machine_has_the_flags_of_cmake() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    let target = Target { host: aarch64().triple, ..aarch64() };
    let env = bench.with_target(target, [("HOST_CFLAGS", "-DMINE"), ("TARGET_CFLAGS", "-DNOT")]);
    let found = seen(&bench, &env);
    // Warnings about upstream's code are for upstream.
    assert_eq!(found.option("CMAKE_C_FLAGS"), Some("-fPIE -w -DMINE"));
    assert_eq!(found.option("CMAKE_CXX_FLAGS"), Some("-fPIE -w"));
    assert_eq!(found.option("GGML_NATIVE"), Some("ON"));
    assert_eq!(found.option("CMAKE_SYSTEM_NAME"), None);
}

#[test]
fn the_generator_is_ninja_unless_the_user_says_another() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    bench.script("ninja", "");
    let found = seen(&bench, &bench.env);
    assert!(found.args.contains("-G\nNinja\n"), "{}", found.args);
    let ninja = bench.path("bin/ninja").display().to_string();
    assert_eq!(found.option("CMAKE_MAKE_PROGRAM"), Some(ninja.as_str()));

    let name = &bench.env.target.names("CMAKE_GENERATOR")[1];
    let found = seen(&bench, &bench.with([(name.as_str(), "Unix Makefiles")]));
    assert!(found.args.contains("-G\nUnix Makefiles\n"), "{}", found.args);
    assert_eq!(found.option("CMAKE_MAKE_PROGRAM"), None);
}

#[test]
fn a_cmake_that_fails_shows_the_end_of_its_log_and_no_panic() {
    let mut bench = Bench::new();
    with_package(&mut bench);
    let fails = "case $1 in --version) echo cmake 1 ;; *) i=0; while [ $i -lt 100 ]; do echo line $i.; i=$((i+1)); done; \
         echo CMake Error: no such thing >&2; exit 3 ;; esac";
    bench.script("cmake", fails);
    let error = Tree::build(&bench.env, &pin()).err().unwrap();
    for part in [
        "building llama.cpp",
        "build.log",
        "line 99.",
        "CMake Error: no such thing",
        "exit status: 3",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    for part in ["panicked", "RUST_BACKTRACE", "build script failed", "line 9."] {
        assert!(!error.contains(part), "{part:?} is in {error}");
    }
    let log = error.split("The end of ").nth(1).unwrap().split(":\n").next().unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("line 9."), "the log has it all");
}

#[test]
fn a_missing_cross_compiler_says_how_to_name_one() {
    let bench = Bench::new();
    let env = bench.with_target(aarch64(), []);
    let error = Tree::build(&env, &pin()).err().unwrap();
    for part in [
        "no C++ compiler for aarch64-unknown-linux-gnu",
        "aarch64-linux-gnu-gcc",
        "CC_aarch64_unknown_linux_gnu",
        "CXX_aarch64_unknown_linux_gnu",
        "CMAKE_TOOLCHAIN_FILE_aarch64_unknown_linux_gnu",
        "--no-default-features",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert!(!bench.path("cache").exists());

    // What the crates cannot do is a message, too.
    let target = Target { triple: "no-such-machine".into(), ..aarch64() };
    let error = driver::compilers(&bench.with_target(target, [])).err().unwrap();
    assert!(error.contains("no-such-machine") && !error.contains("panicked"), "{error}");
}

#[test]
fn libraries_of_the_system_are_those_of_the_target() {
    let bench = Bench::new();
    let out = super::built(&bench, "ggml-metal", "LLAMA_OPENSSL:BOOL=ON\n");
    let linked = |os: &str, env: &str, unix: bool| {
        let target = Target { os: os.into(), env: env.into(), unix, ..aarch64() };
        let lines = link::lines(&out, &target, &[]).unwrap();
        let names = lines.iter().filter_map(|l| l.strip_prefix("rustc-link-lib="));
        names.filter(|l| !l.starts_with("static")).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(linked("linux", "gnu", true), ["stdc++", "pthread", "dl", "m"]);
    assert_eq!(linked("macos", "", true), ["c++", "framework=Accelerate", "framework=Foundation"]);
    assert_eq!(linked("windows", "gnu", false), ["stdc++"]);
    assert_eq!(linked("windows", "msvc", false), [""; 0]);

    let option = |os: &str, name: &str| {
        let target = Target { os: os.into(), ..aarch64() };
        super::options(&bench.with_target(target, [])).iter().any(|o| o == name)
    };
    assert!(option("macos", "GGML_METAL=OFF") && !option("linux", "GGML_METAL=OFF"));
}
