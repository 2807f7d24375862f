//! What the crates `cc` and `cmake` do, each task in a process of its own: this program, run again with the task in a
//! variable.
//!
//! The crates read the environment, print instructions for Cargo, and panic where something fails. In a process of their
//! own they see the variables that the cache's key knows, what they print goes into a log, and a failure is a status.

use std::ffi::OsString;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Result;
use super::env::{self, Env};

/// What is asked of the other process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Find the compilers and print them.
    Compilers(Flags),
    Build(Build),
}

/// The compiler flags that are not the user's.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Flags {
    /// Those that `cc` thinks right for the target.
    pub defaults: bool,
    /// -fPIE
    pub pie: bool,
}

/// A build by CMake.
#[derive(Debug, Serialize, Deserialize)]
pub struct Build {
    pub src: PathBuf,
    /// The build is in the folder `build` of this one.
    pub dir: PathBuf,
    /// What is built. All that the crate links has to be linked with it.
    pub target: String,
    /// Options in order; the last one of a name wins.
    pub options: Vec<(String, String)>,
    /// None: the one that `cmake` takes for the target.
    pub generator: Option<String>,
    pub flags: Flags,
}

/// A compiler for the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiler {
    /// A path, or a name to be found on PATH.
    pub path: PathBuf,
    /// Those of the target, of the user's variables and of `CC` itself.
    pub args: Vec<OsString>,
    /// What it needs in its environment.
    pub env: Vec<(OsString, OsString)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compilers {
    pub c: Compiler,
    pub cxx: Compiler,
}

/// How the line with the compilers begins.
const FOUND: &str = "compilers: ";

impl Flags {
    /// A build for this very machine has CMake's: they suit it. On macOS and Windows `cc` knows better, such as
    /// which version of the system Rust builds for.
    pub fn of(env: &Env) -> Self {
        let target = &env.target;
        Self { defaults: target.is_cross() || target.os != "linux", pie: target.is_elf() }
    }
}

/// The compilers for the target, which need not be there.
pub fn compilers(env: &Env) -> Result<Compilers> {
    let mut command = command(env, &Task::Compilers(Flags::of(env)))?;
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("cannot run {:?}: {e}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(FOUND));
    line.and_then(|json| serde_json::from_str(json).ok()).ok_or_else(|| {
        format!(
            "no C++ compiler for {}: {}",
            env.target.triple,
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

/// This program, to be run again for the task.
pub fn command(env: &Env, task: &Task) -> Result<Command> {
    let task = serde_json::to_string(task).map_err(|e| format!("a path is not UTF-8: {e}"))?;
    let (program, args) = env.driver.split_first().ok_or("there is no program to run again")?;
    let mut command = env.command(program);
    command.args(args).env(env::TASK, task);
    Ok(command)
}

/// Performs the task and ends the process.
pub fn perform(task: &str) -> ! {
    std::panic::set_hook(Box::new(|info| fail(&reason(info))));
    match serde_json::from_str(task) {
        Ok(Task::Compilers(flags)) => print_compilers(flags),
        Ok(Task::Build(build)) => run(&build),
        Err(e) => fail(&format!("{}={task}: {e}", env::TASK)),
    }
    process::exit(0)
}

fn fail(why: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "error: {why}");
    process::exit(1)
}

/// What a crate panicked for, without its "build script failed, must exit now".
fn reason(info: &PanicHookInfo) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("an error without words");
    text.replace("build script failed, must exit now", "").trim().to_string()
}

/// The flags of RUSTFLAGS are for rustc.
fn cc(cpp: bool, flags: Flags) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(cpp).cargo_metadata(false).cargo_warnings(false).inherit_rustflags(false);
    build.no_default_flags(!flags.defaults).pic(false);
    // As the crate `cmake` sets them: levels are CMake's, and warnings about upstream's code are for upstream.
    build.opt_level(0).debug(false).warnings(false);
    build
}

fn print_compilers(flags: Flags) {
    let find = |cpp| {
        let tool = cc(cpp, flags).try_get_compiler().unwrap_or_else(|e| fail(&e.to_string()));
        let env = tool.get_envs().map(|(name, value)| (name.into(), value.into())).collect();
        Compiler { path: tool.path().into(), args: tool.args().into(), env }
    };
    let json = serde_json::to_string(&Compilers { c: find(false), cxx: find(true) });
    println!("{FOUND}{}", json.unwrap_or_else(|e| fail(&format!("a compiler's path: {e}"))));
}

fn run(build: &Build) {
    let mut config = cmake::Config::new(&build.src);
    config.out_dir(&build.dir).profile("Release").build_target(&build.target);
    config.init_c_cfg(cc(false, build.flags)).init_cxx_cfg(cc(true, build.flags));
    config.no_default_flags(!build.flags.defaults).pic(false);
    if build.flags.pie {
        config.cflag("-fPIE").cxxflag("-fPIE");
    }
    if let Some(generator) = &build.generator {
        config.generator(generator);
    }
    for (name, value) in &build.options {
        config.define(name, value);
    }
    config.build();
}
