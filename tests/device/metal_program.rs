//! tests/device/metal/host.cpp with kernels, compiled; and what it is told.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::metal;
pub use super::tree::tree;

/// A source of kernels, and which of them are needed: parts of names, `$` is a name's end.
#[derive(Clone, Copy)]
pub struct Library {
    pub file: &'static str,
    pub kernels: &'static [&'static str],
    /// What is compiled once and runs long.
    pub optimized: bool,
}

impl Library {
    fn wants(&self, name: &str) -> bool {
        self.kernels.iter().any(|k| match k.strip_suffix('$') {
            Some(end) => name.ends_with(end),
            None => name.contains(k),
        })
    }
}

/// A program with kernels in it.
pub struct Program {
    path: PathBuf,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Clang for Metal's sources: words of a command.
pub fn clang() -> Vec<String> {
    let output = Command::new(root().join("script/metal-tools"))
        .arg("--find")
        .stderr(Stdio::inherit())
        .output()
        .expect("script/metal-tools");
    assert!(output.status.success(), "no Clang for Metal's sources: run script/metal-tools");
    let words = String::from_utf8(output.stdout).expect("a command");
    words.lines().map(str::to_owned).collect()
}

/// The compiler, for a translated source.
pub fn clang_command(clang: &[String]) -> Command {
    let mut command = Command::new(&clang[0]);
    // Zig keeps what it has compiled, which would grow with every change in the user's cache.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metal/zig");
    command
        .env("ZIG_GLOBAL_CACHE_DIR", &cache)
        .env("ZIG_LOCAL_CACHE_DIR", &cache)
        .args(&clang[1..])
        .args(["-x", "c++", "-std=c++17", "-ffp-contract=off", "-fno-sanitize=all"])
        .args(["-D__METAL_VERSION__=320", "-w", "-I"])
        .arg(root().join("tests/device/metal"))
        .arg("-I")
        .arg(root().join("tests/device"));
    command
}

/// Runs the command unless its output is there, under a name that says what it is made from.
fn object(
    name: &str,
    extension: &str,
    from: &[&str],
    command: impl Fn(&Path) -> Command,
) -> PathBuf {
    let mut hash = DefaultHasher::new();
    from.hash(&mut hash);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metal");
    std::fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join(format!("{name}-{:016x}{extension}", hash.finish()));
    if !path.is_file() {
        // Tests run at the same time.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tmp = dir.join(format!("{name}-{}-{count}.tmp{extension}", std::process::id()));
        let mut command = command(&tmp);
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(
            output.status.success(),
            "{command:?}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::rename(&tmp, &path).expect("a file");
        let _ = std::fs::remove_file(tmp.with_extension("cpp"));
    }
    path
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Program {
    /// `change` may alter the C++ of a library, by its file's name.
    pub fn build(
        name: &str,
        libraries: &[Library],
        change: impl Fn(&str, String) -> String + Sync,
    ) -> Self {
        let ggml = tree().join("src/ggml");
        let back_end = ggml.join("src/ggml-metal");
        let device = root().join("tests/device");
        let shim = device.join("metal");
        let folders = [back_end.join("kernels"), back_end.clone(), ggml.join("src")];
        let shim_text = read(&shim.join("metal_stdlib")) + &read(&device.join("fibers.h"));
        let clang = clang();
        let cxx = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));

        let kernel = |library: &Library| {
            let source = metal::flatten(&back_end.join("kernels").join(library.file), &folders);
            let text = change(library.file, metal::translate(&source, |n| library.wants(n)));
            let level = if library.optimized { "-O1" } else { "-O0" };
            let stem = library.file.trim_end_matches(".metal");
            object(stem, ".o", &[&text, &shim_text, level, &clang.join(" ")], |out| {
                let source = out.with_extension("cpp");
                std::fs::write(&source, &text).expect("a file");
                let mut command = clang_command(&clang);
                command.args([level, "-c"]).arg(source).arg("-o").arg(out);
                command
            })
        };
        // Upstream's host code, and what is in the place of its Objective-C.
        let host = |path: &Path| {
            let stem = path.file_stem().expect("a name").to_string_lossy();
            let mut from = vec![read(path), read(&device.join("fibers.h"))];
            for header in
                ["turbo", "turbo-ops", "device", "impl", "ops", "common", "fusion", "tuning"]
            {
                from.push(read(&back_end.join(format!("ggml-metal-{header}.h"))));
            }
            from.push(cxx.to_string_lossy().into_owned());
            let from: Vec<&str> = from.iter().map(String::as_str).collect();
            object(&stem, ".o", &from, |out| {
                let mut command = Command::new(&cxx);
                command.args(["-std=c++17", "-O1", "-w", "-c"]).arg(path).arg("-o").arg(out);
                for include in [&back_end, &ggml.join("src"), &ggml.join("include"), &device] {
                    command.arg("-I").arg(include);
                }
                command
            })
        };
        let sources: Vec<PathBuf> = [shim.join("host.cpp"), device.join("fibers.cpp")]
            .into_iter()
            .chain(
                ["ops", "device", "common", "fusion", "tuning"]
                    .map(|f| back_end.join(format!("ggml-metal-{f}.cpp"))),
            )
            .collect();
        let objects: Vec<PathBuf> = std::thread::scope(|scope| {
            let hosts = scope.spawn(|| sources.iter().map(|s| host(s)).collect::<Vec<_>>());
            let kernels: Vec<PathBuf> = libraries.iter().map(kernel).collect();
            let mut objects = hosts.join().expect("the host code");
            objects.extend(kernels);
            objects
        });

        let base = tree().join("build/ggml/src/libggml-base.a");
        let from: Vec<String> = objects.iter().map(|o| o.to_string_lossy().into_owned()).collect();
        let mut from: Vec<&str> = from.iter().map(String::as_str).collect();
        from.push(base.to_str().expect("a path"));
        let path = object(name, "", &from, |out| {
            let mut command = Command::new(&cxx);
            command.args(&objects).arg(&base).args(["-lpthread", "-lm"]);
            if cfg!(target_os = "linux") {
                command.arg("-fopenmp"); // as llama.cpp is built
            }
            command.arg("-o").arg(out);
            command
        });
        Self { path }
    }
}

/// Types by their names in ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    F32,
    F16,
    I32,
    I64,
    Q8_0,
    Turbo2,
    Turbo3,
    Turbo4,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Q8_0 => "q8_0",
            Self::Turbo2 => "turbo2",
            Self::Turbo3 => "turbo3",
            Self::Turbo4 => "turbo4",
        }
    }
}

/// What an operator made, and by which kernels.
pub struct Done {
    pub kernels: Vec<String>,
    pub bytes: Vec<u8>,
}

/// Commands for a program.
#[derive(Default)]
pub struct Session {
    input: Vec<u8>,
    tensors: usize,
}

impl Session {
    /// A tensor with these bytes; its number.
    pub fn tensor(&mut self, kind: Type, ne: [usize; 4], bytes: &[u8]) -> usize {
        let [a, b, c, d] = ne;
        self.op(format!("tensor {} {a} {b} {c} {d}", kind.name()));
        self.input.extend(bytes);
        self.tensors += 1;
        self.tensors - 1
    }

    /// `nb`: bytes between rows, and so on.
    pub fn view(&mut self, of: usize, ne: [usize; 4], nb: [usize; 3], offset: usize) -> usize {
        let ([a, b, c, d], [e, f, g]) = (ne, nb);
        self.op(format!("view {of} {a} {b} {c} {d} {e} {f} {g} {offset}"));
        self.tensors += 1;
        self.tensors - 1
    }

    pub fn op(&mut self, line: String) {
        self.input.extend(line.as_bytes());
        self.input.push(b'\n');
    }

    /// What all the operators made. Errors: what the program says where it gives up.
    pub fn run(self, program: &Program) -> Result<Vec<Done>, String> {
        let mut child = Command::new(&program.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = self.input;
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("output");
        let written = writer.join().expect("the writer");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("{}: {stderr}", output.status));
        }
        written.map_err(|e| format!("not all of the input is read: {e}"))?;

        let mut done = Vec::new();
        let mut rest = output.stdout.as_slice();
        while !rest.is_empty() {
            let end = rest.iter().position(|&b| b == b'\n').expect("a line");
            let line = std::str::from_utf8(&rest[..end]).expect("text");
            let mut words = line.split(' ');
            if words.next() != Some("ok") {
                return Err(line.into());
            }
            let bytes: usize = words.next().and_then(|w| w.parse().ok()).expect("a size");
            let kernels = words.map(str::to_owned).collect();
            rest = &rest[end + 1..];
            done.push(Done { kernels, bytes: rest[..bytes].into() });
            rest = &rest[bytes..];
        }
        Ok(done)
    }
}
