//! Runs a program with a time limit and keeps what it printed.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// It ended by itself with a code other than 0, not by a signal, and said all of `words`.
    #[track_caller]
    pub fn assert_refused(&self, words: &[&str]) {
        let code = self.status.code();
        let crash = self.text().contains("GGML_ASSERT") || self.text().contains("panicked");
        assert!(
            code.is_some_and(|c| c != 0 && c < 128) && !crash,
            "{}: {}",
            self.status,
            self.text()
        );
        for word in words {
            assert!(self.text().contains(word), "no {word:?} in: {}", self.text());
        }
    }

    #[track_caller]
    pub fn assert_success(&self) {
        assert!(self.status.success(), "{}: {}", self.status, self.text());
    }
}

/// Runs `program` with `args` (and variables `env`) to its end, without input. Panics after `limit`.
///
/// What the caller's environment and cache have for llama.cpp does not reach it.
pub fn run(program: &str, args: &[&str], env: &[(&str, &str)], limit: Duration) -> Finished {
    let mut child = without_llama_variables(&mut Command::new(program))
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let stdout = reader(child.stdout.take().expect("a pipe"));
    let stderr = reader(child.stderr.take().expect("a pipe"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().expect("our child");
            child.wait().expect("our child");
            let said = stdout.join().expect("no panic") + &stderr.join().expect("no panic");
            panic!("{program} {args:?} did not end in {limit:?}: {said}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    Finished {
        status,
        stdout: stdout.join().expect("no panic"),
        stderr: stderr.join().expect("no panic"),
    }
}

/// What the caller's environment and cache have for llama.cpp does not reach this command.
pub fn without_llama_variables(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LLAMA_") {
            command.env_remove(name);
        }
    }
    command.env_remove("TQ_KV_CALIB_DIR");
    command.env("LLAMA_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/llama-cache"))
}

/// Reads to the end on a thread of its own, so that a full pipe blocks nobody.
fn reader(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// MiB of K, of type turbo4, of every cache of the last context that llama.cpp's log tells of.
pub fn turbo4_key_sizes(log: &str) -> Vec<f64> {
    let last = log.rfind("llama_context: n_ctx ").map_or(log, |at| &log[at..]);
    let size = |line: &str| {
        let (_, after) = line.split_once("K (turbo4):")?;
        after.trim_start().split_once(" MiB")?.0.parse().ok()
    };
    last.lines().filter_map(size).collect()
}
