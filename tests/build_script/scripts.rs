//! Scripts that keep something in the cache folder (script/cache.sh): two at once, and beside builds.
#![cfg(target_os = "linux")] // flock(1)

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Bench;
use super::build::cache::Cache;
use super::build::cmake;
use super::cached::{lines, names, wait, with_venv};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Links these programs of the system into the bench's PATH, which has nothing else but scripts.
fn with_programs(bench: &Bench, programs: &[&str]) {
    for program in programs {
        let places = ["/bin", "/usr/bin", "/usr/local/bin"].map(|dir| Path::new(dir).join(program));
        let place = places.iter().find(|path| path.is_file());
        let place = place.unwrap_or_else(|| panic!("{program} is not in {places:?}"));
        symlink(place, bench.path("bin").join(program)).unwrap();
    }
}

const BASICS: [&str; 10] =
    ["bash", "uname", "dirname", "mkdir", "rm", "mv", "find", "touch", "sleep", "sed"];

fn start(bench: &Bench, program: &str, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", bench.path("bin"))
        .env("TQ_CACHE_DIR", &bench.env.cache.dir)
        .current_dir(bench.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A script of Bash that has script/cache.sh.
fn bash(bench: &Bench, script: &str) -> Child {
    start(
        bench,
        "/bin/bash",
        &["-c", &format!("set -euo pipefail\n. {ROOT}/script/cache.sh\n{script}")],
    )
}

/// What it prints, without the end of the last line.
#[track_caller]
fn output(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

#[test]
fn scripts_and_builds_have_the_same_locks() {
    // With flock(1), and with Python, for systems without it.
    for lock in ["flock", "python3"] {
        let bench = Bench::new();
        let cache = &bench.env.cache;
        with_programs(&bench, &BASICS);
        with_programs(&bench, &[lock]);

        let held = cache.share("a").unwrap();
        let other = bash(
            &bench,
            "cache_share 9 a; touch shared; cache_lock 9 a; touch alone; while [ ! -e end ]; do sleep 0.02; done",
        );
        wait("a shared lock is shared", || bench.path("shared").exists());
        thread::sleep(Duration::from_millis(200)); // it does what it does, and must wait
        assert!(!bench.path("alone").exists());
        drop(held);
        wait("the script has the lock alone", || bench.path("alone").exists());
        assert!(cache.try_lock("a").unwrap().is_none());
        fs::write(bench.path("end"), "").unwrap();
        output(other);

        let held = cache.lock("b").unwrap();
        let other =
            bash(&bench, "cache_lock 9 b; touch has; while [ ! -e go ]; do sleep 0.02; done");
        thread::sleep(Duration::from_millis(200));
        assert!(!bench.path("has").exists());
        drop(held);
        wait("the script has the lock", || bench.path("has").exists());
        assert!(cache.try_lock("b").unwrap().is_none());
        fs::write(bench.path("go"), "").unwrap();
        output(other);
        assert!(cache.try_lock("b").unwrap().is_some());
    }
}

#[test]
fn two_scripts_get_a_tool_once_and_what_a_killed_one_left_goes() {
    let bench = Bench::new();
    with_programs(&bench, &BASICS);
    with_programs(&bench, &["flock"]);
    // A pip whose ziglang takes a while, and takes anything: it reads it, or printf(1) would fail where nobody does.
    bench.script(
        "python3",
        &format!(
            "echo \"$*\" >>{}/log\nsleep 0.3\nwhile [ \"$1\" != --target ]; do shift; done\nmkdir -p \"$2/ziglang\"\n\
             printf '#!/bin/sh\\nwhile read -r _; do :; done\\n' >\"$2/ziglang/zig\"\n/bin/chmod 755 \"$2/ziglang/zig\"",
            bench.dir.path().display()
        ),
    );
    let tools = bench.env.cache.dir.join("metal-tools");
    fs::create_dir_all(tools.join(".get/half")).unwrap();
    let both = [(); 2].map(|()| start(&bench, &format!("{ROOT}/script/metal-tools"), &[]));
    for script in both {
        let zig = output(script);
        assert!(zig.ends_with("/ziglang/zig\nc++"), "{zig}");
    }
    assert_eq!(lines(&bench.path("log")), 1, "pip was run more than once");
    let names = names(&tools);
    assert!(names.len() == 1 && names[0].starts_with("ziglang-"), "{names:?}");
    assert_eq!(super::cached::names(&tools.join(&names[0])), ["ziglang"]);
}

#[test]
fn scripts_and_builds_have_the_same_cmake() {
    let bench = Bench::new();
    with_programs(&bench, &BASICS);
    with_programs(&bench, &["flock"]);
    with_venv(&bench);
    let log = bench.path("log");
    // What a killed script left is no cmake.
    fs::create_dir_all(bench.env.cache.cmake().join("bin")).unwrap();
    fs::write(bench.env.cache.cmake().join("bin/cmake"), "half").unwrap();

    let script =
        bash(&bench, "cache_cmake; echo \"$cmake\"; while [ ! -e end ]; do sleep 0.02; done");
    wait("the script installs", || log.is_file());
    thread::scope(|scope| {
        let build = scope.spawn(|| cmake::find(&bench.env));
        thread::sleep(Duration::from_millis(200)); // it does what it does, and must wait
        fs::write(bench.path("go"), "").unwrap();
        let cmake = build.join().unwrap().unwrap();
        assert!(bench.env.cache.try_lock("cmake").unwrap().is_none());
        fs::write(bench.path("end"), "").unwrap();
        assert_eq!(output(script), cmake.cmake.to_str().unwrap());
    });
    assert_eq!(lines(&log), 1, "more than one environment was made");

    fs::remove_dir_all(bench.env.cache.cmake()).unwrap();
    fs::write(bench.path("fail"), "").unwrap();
    let failed = bash(&bench, "cache_cmake").wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && text.contains("TQ_CMAKE"), "{text}");
    assert!(!bench.env.cache.cmake().exists());
}

#[test]
fn a_script_keeps_its_tree() {
    let bench = Bench::new();
    with_programs(&bench, &BASICS);
    with_programs(&bench, &["flock", "tail"]);
    let tree = bench.env.cache.tree("key");
    // The tree is removed when the first build ends; the second makes it again.
    bench.script(
        "cargo",
        &format!(
            "cd {}\necho \"$*\" >>log\nmkdir -p {1}\nif [ -e once ]; then touch {1}/built; fi\ntouch once\n\
             printf '{{\"env\":[[\"TQ_LLAMA_TREE\",\"{1}\"]]}}\\n'",
            bench.dir.path().display(),
            tree.display()
        ),
    );
    let script = bash(
        &bench,
        "cache_tree cargo check --lib; echo \"$tree\"; while [ ! -e end ]; do sleep 0.02; done",
    );
    wait("the script has the tree", || tree.join("used").is_file());
    assert!(bench.env.cache.try_lock(&Cache::use_lock("key")).unwrap().is_none());
    fs::write(bench.path("end"), "").unwrap();
    assert_eq!(output(script), tree.to_str().unwrap());
    assert_eq!(lines(&bench.path("log")), 2);
}
