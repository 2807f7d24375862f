//! llama.cpp's tools: which of each name is first on PATH, and whether it knows the types.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Check;

const TOOLS: [&str; 5] =
    ["llama-cli", "llama-server", "llama-completion", "llama-bench", "llama-perplexity"];
/// For a tool to tell its options.
const LIMIT: Duration = Duration::from_secs(15);

pub fn checks() -> Vec<Check> {
    let own = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.to_owned()));
    let mut checks: Vec<_> = TOOLS.iter().filter_map(|tool| check(tool, own.as_deref())).collect();
    if checks.is_empty() {
        let here = own.filter(|folder| file(folder, TOOLS[0]).is_file());
        let where_else =
            here.map_or(String::new(), |f| format!("; this build's are in {}", f.display()));
        checks.push(Check::ok("PATH", format!("has none of llama.cpp's tools{where_else}")));
    }
    checks
}

fn file(folder: &Path, tool: &str) -> PathBuf {
    folder.join(format!("{tool}{}", std::env::consts::EXE_SUFFIX))
}

/// None: there is none on PATH. `own`: the folder of this program.
fn check(tool: &str, own: Option<&Path>) -> Option<Check> {
    let first = first_on_path(tool)?;
    let own = own.map(|folder| file(folder, tool)).filter(|file| file.is_file());
    let same = match (&own, first.canonicalize()) {
        (Some(own), Ok(first)) => own.canonicalize().is_ok_and(|own| own == first),
        _ => false,
    };
    let shown = first.display();
    if same {
        return Some(Check::ok(tool, format!("{shown}, of this build, is first on PATH")));
    }
    let fix = match &own {
        Some(own) => format!("call {}, or put its folder first on PATH", own.display()),
        None => {
            format!("build {tool} here (cargo build --release), and put its folder first on PATH")
        }
    };
    Some(match help(&first) {
        // llama-bench does not list types.
        Ok(text) if text.contains("turbo4") || text.contains("--kv-anchors") => Check::warning(
            tool,
            format!("{shown} is first on PATH: it knows the turbo types, but is not of this build"),
            fix,
        ),
        Ok(_) => Check::problem(
            tool,
            format!("{shown} is first on PATH, and does not know turbo4: it is another llama.cpp"),
            fix,
        ),
        Err(reason) => Check::warning(
            tool,
            format!("{shown} is first on PATH, and does not tell its options: {reason}"),
            fix,
        ),
    })
}

fn first_on_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| file(&folder, tool)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    #[cfg(unix)]
    let runs = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let runs = true;
    metadata.is_file() && runs
}

/// What `--help` prints. Errors: why it is not known.
fn help(tool: &Path) -> Result<String, String> {
    let mut child = Command::new(tool)
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let (sender, receiver) = mpsc::channel();
    // The threads end with the pipes, which a grandchild may keep open: nobody waits for them.
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    for mut pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
    }
    let (begin, mut text) = (Instant::now(), String::new());
    for _ in 0..2 {
        match receiver.recv_timeout(LIMIT.saturating_sub(begin.elapsed())) {
            Ok(part) => text += &part,
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", LIMIT.as_secs()));
            }
        }
    }
    // It closed its pipes, and is about to end; one that is not is stopped.
    while begin.elapsed() < LIMIT {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => return Ok(text),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(text)
}
