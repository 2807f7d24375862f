//! script/install of a build with CUDA: a llama.cpp of a few functions and a toolkit of as many, each of which calls those
//! that it has to be linked with. A device is not needed, and no CUDA.

use std::fs;
use std::path::{Path, PathBuf};

use super::common::cmake::{cmake, options};
use super::common::process::Finished;
use super::{LIMIT, ROOT, run, succeed, text};

/// Archives of the build, with what each has. The sum of all numbers says that all were linked.
const ARCHIVES: [(&str, &str); 6] = [
    ("llama", "int ggml(void); int llama(void) { return ggml(); }"),
    (
        "ggml",
        "int ggml_cuda(void); int ggml_cpu(void); int ggml(void) { return ggml_cuda() + ggml_cpu(); }",
    ),
    ("ggml-cpu", "int ggml_base(void); int ggml_cpu(void) { return ggml_base(); }"),
    ("ggml-base", "int tq_flash_attn(void); int ggml_base(void) { return tq_flash_attn(); }"),
    (
        "ggml-cuda",
        "int ggml_base(void); int cudart(void); int cublas(void); int cublas_lt(void); int driver(void);\
         int ggml_cuda(void) { return ggml_base() + cudart() + cublas() + cublas_lt() + driver(); }",
    ),
    ("turboquant", "int tq_flash_attn(void) { return 1; }"),
];

/// The toolkit's: below its folder, by the variables of CMake's cache.
const TOOLKIT: [(&str, &str, &str); 4] = [
    ("CUDA_cudart_static_LIBRARY", "lib64/libcudart_static.a", "int cudart(void) { return 10; }"),
    ("CUDA_cublas_LIBRARY", "lib64/libcublas.so", "int cublas(void) { return 100; }"),
    ("CUDA_cublasLt_LIBRARY", "lib64/libcublasLt.so", "int cublas_lt(void) { return 1000; }"),
    ("CUDA_cuda_driver_LIBRARY", "lib64/stubs/libcuda.so", "int driver(void) { return 10000; }"),
];
const SUM: &str = "11112\n";

const PROGRAM: &str = "#include <stdio.h>\n#include \"llama.h\"\nint main(void) { printf(\"%d\\n\", llama()); return 0; }\n";
const PROJECT: &str = "cmake_minimum_required(VERSION 3.14)\nproject(p C)\nfind_package(llama-turboquant REQUIRED)\n\
     find_package(Llama REQUIRED)\nadd_executable(ours p.c)\ntarget_link_libraries(ours PRIVATE llama-turboquant::llama)\n\
     add_executable(upstreams p.c)\ntarget_link_libraries(upstreams PRIVATE llama ggml::all)\n";

struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { dir: tempfile::tempdir().expect("a folder") };
        let (src, out) = ("tree/src/", "tree/build/");
        fake.write(&format!("{src}include/llama.h"), "int llama(void);\n");
        for file in
            ["include/llama-cpp.h", "include/llama-kv-calib.h", "ggml/include/ggml.h", "LICENSE"]
        {
            fake.write(&format!("{src}{file}"), "");
        }
        fake.write(&format!("{out}llama-config-version.cmake"), "");
        for (name, source) in ARCHIVES {
            fake.archive(&format!("{out}lib{name}.a"), source);
        }
        let mut cache = "CMAKE_C_COMPILER:FILEPATH=cc\nGGML_CUDA:BOOL=ON\nGGML_CUDA_NCCL:BOOL=ON\n\
             NCCL_LIBRARY:FILEPATH=NCCL_LIBRARY-NOTFOUND\n"
            .to_string();
        for (variable, file, source) in TOOLKIT {
            let file = format!("cuda/{file}");
            if file.ends_with(".a") {
                fake.archive(&file, source);
            } else {
                fake.compile(&file, source, &["-shared", "-fPIC"]);
            }
            cache += &format!("{variable}:FILEPATH={}\n", fake.path(&file).display());
        }
        fake.write(&format!("{out}CMakeCache.txt"), &cache);
        // What CMake finds a toolkit by.
        fake.compile("cuda/lib64/libcudart.so", "int shared;", &["-shared", "-fPIC"]);
        fake.write("cuda/include/cuda_runtime.h", "");
        fake.write("cuda/include/cuda_runtime_api.h", "#define CUDART_VERSION 13000\n");
        fake.program(
            "cuda/bin/nvcc",
            "case $1 in --version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;; *) echo '#$ TOP='\"$(dirname \"$0\")/..\" >&2 ;; esac",
        );
        let programs = [
            "turboquant",
            "llama-cli",
            "llama-completion",
            "llama-server",
            "llama-bench",
            "llama-perplexity",
        ];
        for program in programs {
            fake.program(&format!("bin/{program}"), "echo \"$*\"");
        }
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// By a process of its own: see tests/build_script.rs.
    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
        succeed(Path::new("sh"), &["-c", write, "sh", text(&path), script], &[]);
    }

    fn compile(&self, name: &str, source: &str, flags: &[&str]) {
        let input = format!("{name}.c");
        self.write(&input, source);
        let (input, output) = (self.path(&input), self.path(name));
        succeed(Path::new("cc"), &[flags, &[text(&input), "-o", text(&output)]].concat(), &[]);
    }

    fn archive(&self, name: &str, source: &str) {
        let object = format!("{name}.o");
        self.compile(&object, source, &["-c", "-fPIC"]);
        succeed(Path::new("ar"), &["rcs", text(&self.path(name)), text(&self.path(&object))], &[]);
    }

    fn install(&self, args: &[&str]) -> Finished {
        let (bin, core, tree) =
            (self.path("bin"), self.path("tree/build/libturboquant.a"), self.path("tree"));
        let built = ["--bin-dir", text(&bin), "--core", text(&core), "--tree", text(&tree)];
        run(&format!("{ROOT}/script/install"), &[&built, args].concat(), &[], LIMIT)
    }

    /// What a program prints that finds the toolkit's shared libraries.
    #[track_caller]
    fn output(&self, program: &Path) -> String {
        let folders = format!(
            "{}:{}",
            self.path("cuda/lib64").display(),
            self.path("cuda/lib64/stubs").display()
        );
        succeed(program, &[], &[("LD_LIBRARY_PATH", &folders)])
    }
}

#[test]
#[cfg(target_os = "linux")]
fn programs_are_linked_with_what_cuda_needs() {
    let fake = Fake::new();
    let prefix = fake.path("prefix");
    let ran = fake.install(&["--prefix", text(&prefix)]);
    ran.assert_success();
    assert!(ran.stdout.contains("ggml-cpu ggml-cuda\n"), "{}", ran.text());
    assert!(prefix.join("lib/libggml-cuda.a").is_file());

    fake.write("project/CMakeLists.txt", PROJECT);
    fake.write("project/p.c", PROGRAM);
    let (project, out) = (fake.path("project"), fake.path("out"));
    let find = format!("-DCMAKE_PREFIX_PATH={}", prefix.display());
    let toolkit = format!("-DCUDAToolkit_ROOT={}", fake.path("cuda").display());
    let chosen = options();
    let mut args = vec!["-S", text(&project), "-B", text(&out), &find, &toolkit];
    args.extend(chosen.iter().map(String::as_str));
    succeed(&cmake(), &args, &[]);
    succeed(&cmake(), &["--build", text(&out)], &[]);
    for program in ["ours", "upstreams"] {
        assert_eq!(fake.output(&out.join(program)), SUM, "{program}");
    }

    let program = fake.path("by-hand");
    let line = format!(
        "cc '{}' $(pkg-config --cflags --libs llama-turboquant) -o '{}'",
        project.join("p.c").display(),
        program.display()
    );
    succeed(
        Path::new("sh"),
        &["-c", &line],
        &[("PKG_CONFIG_PATH", text(&prefix.join("lib/pkgconfig")))],
    );
    assert_eq!(fake.output(&program), SUM);
}

#[test]
fn what_a_gpu_build_lacks_is_said() {
    let fake = Fake::new();
    let prefix = fake.path("prefix");
    let prefix = ["--prefix", text(&prefix)];
    let cache = fake.path("tree/build/CMakeCache.txt");
    let whole = fs::read_to_string(&cache).expect("a file");
    let without = whole
        .replace(text(&fake.path("cuda/lib64/libcublasLt.so")), "CUDA_cublasLt_LIBRARY-NOTFOUND");
    fs::write(&cache, without).expect("a file");
    fake.install(&prefix).assert_refused(&["CUDA_cublasLt_LIBRARY", "build it again"]);
    fs::write(&cache, whole).expect("a file");
    fake.write("tree/build/libggml-sycl.a", "");
    fake.install(&prefix).assert_refused(&["libggml-sycl.a", "not known here"]);
    assert!(!fake.path("prefix").exists());
    fake.install(&["--features", "cuda"]).assert_refused(&["--prefix DIR is needed"]);
    fake.install(&["--features", "cuda", prefix[0], prefix[1]])
        .assert_refused(&["--features is for what is built"]);
    fake.install(&["--features", "rocm", prefix[0], prefix[1]])
        .assert_refused(&["--features rocm: there are cuda, metal and vulkan"]);
}
