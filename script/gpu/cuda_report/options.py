"""The command line, and all that can be wrong from the start."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

PROGRAMS = ("test-backend-ops", "llama-bench", "llama-perplexity", "llama-completion")

STEP_NAMES = ("build", "device", "operators", "speed", "logits", "writing", "answer", "more-speed", "more-operators", "sanitizer")

HELP = """\
Measures the turbo types on a machine with an NVIDIA GPU, and leaves a report. Needs CUDA, CMake 3.24 (3.18 with --arch), a
C++ compiler and Python 3; no Rust and no network.

  ./cuda-report                          # in the folder of script/gpu/cuda-kit's archive
  ./cuda-report --minutes 9 --out DIR    # what matters most first; stops cleanly when the time is over
  script/gpu/cuda-report --tree DIR --core libturboquant.a --out DIR

The report is DIR/report.md; what programs printed is beside it. It is written anew after each part, so that one that was
stopped is of use, too. The exit code is 1 where anything failed; what there was no time for is no failure.
"""


def parser():
    p = argparse.ArgumentParser(prog="cuda-report", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = lambda text: pathlib.Path(text).absolute()
    add = p.add_argument
    add("--minutes", type=float, metavar="N", help="the time for all steps together (no limit)")
    add("--steps", metavar="LIST", help="the steps to run, in their usual order (all): " + ", ".join(STEP_NAMES))
    add("--out", type=path, default=pathlib.Path("report").absolute(), metavar="DIR",
        help="the report's folder (report); must not be there, except for --continue")
    add("--continue", dest="go_on", action="store_true",
        help="go on with a report that was stopped or out of time: parts that passed are not run again")
    add("--tree", type=path, metavar="DIR", help="the patched llama.cpp (llama.cpp beside this script)")
    add("--core", type=path, metavar="FILE", help="libturboquant.a (beside this script)")
    add("--work", type=path, default=pathlib.Path("cuda-work").absolute(), metavar="DIR",
        help="where the build and models are made, which are no part of the report (cuda-work)")
    add("--bin", type=path, metavar="DIR", help="take the programs from this folder, and build nothing")
    add("--arch", metavar="LIST", help='GPUs to build for, such as 90 or "80;90" (native)')
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="compilers at once (all processors)")
    add("--cmake", action="append", default=[], metavar="OPTION", help="another option for CMake, -DNAME=VALUE; repeatable")
    add("--device", metavar="NAME", help="the device to test (CUDA0)")
    add("--model", type=path, metavar="FILE",
        help="a GGUF to measure (one of random weights: an 8B model's shape, 8 layers of its 32)")
    add("--pairs", metavar="LIST", default="f16/f16 turbo4/turbo4 q8_0/q8_0 turbo4/turbo2 turbo3/turbo3 q4_0/q4_0",
        help="K/V types to measure (%(default)s); ratios are to the first")
    add("--depths", metavar="LIST", help="tokens that are in the cache already, the most important first (32768 131072 0)")
    for name, what in (("prompt", "tokens of prefill (512)"), ("gen", "tokens of decoding (32)"),
                       ("repeat", "measurements of each (2)")):
        add(f"--{name}", type=int, metavar="N", help=what)
    add("--answer-model", type=path, metavar="FILE", help="a trained model to compare GPU and CPU with (model.gguf beside this script)")
    add("--text", type=path, metavar="FILE", help="the text for that (text.txt beside this script)")
    add("--cpu", action="store_true", help="without CUDA, with a tiny model, depths and few operators: whether this script works")
    return p


def wrong(message):
    print(f"error: {message} (--help says more)", file=sys.stderr)
    sys.exit(2)


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def read(arguments, here):
    """The options, complete and checked. `here` is the folder of cuda-report."""
    arguments = list(arguments)
    while "--cmake" in arguments[:-1]:  # argparse takes -DNAME=VALUE for an option of its own
        at = arguments.index("--cmake")
        arguments[at:at + 2] = [f"--cmake={arguments[at + 1]}"]
    options = parser().parse_args(arguments)
    options.here = here
    options.tree = options.tree or here / "llama.cpp"
    options.core = options.core or here / "libturboquant.a"
    options.build = options.work / "build"
    options.device = options.device or ("CPU" if options.cpu else "CUDA0")
    options.answer_model = options.answer_model or here / "model.gguf"
    options.text = options.text or here / "text.txt"
    depths, prompt, gen, repeat = ("256 0", 32, 8, 1) if options.cpu else ("32768 131072 0", 512, 32, 2)
    options.depths = (options.depths if options.depths is not None else depths).replace(",", " ").split()
    options.prompt, options.gen, options.repeat = options.prompt or prompt, options.gen or gen, options.repeat or repeat
    options.pairs = options.pairs.replace(",", " ").split()
    options.steps = (options.steps or ",".join(STEP_NAMES)).replace(",", " ").split()

    if options.minutes is not None and not options.minutes >= 0:
        wrong(f"--minutes {options.minutes:g} is less than 0")
    for name in ("jobs", "prompt", "gen", "repeat"):
        if getattr(options, name) < 1:
            wrong(f"--{name} {getattr(options, name)} is less than 1")
    for depth in options.depths:
        if not depth.isdigit():
            wrong(f'--depths: "{depth}" is not a number of tokens')
    for pair in options.pairs:
        if not re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", pair):
            wrong(f'--pairs: "{pair}" is not of the form K/V, such as turbo4/turbo2')
    for step in options.steps:
        if step not in STEP_NAMES:
            wrong(f'--steps: "{step}" is none of {", ".join(STEP_NAMES)}')
    for option in options.cmake:
        if not re.fullmatch(r"-D[^=]+=.*", option):
            wrong(f'--cmake: "{option}" is not of the form -DNAME=VALUE')
    if options.model and not options.model.is_file():
        fail(f"--model: {options.model} is not there")
    find_tools(options)
    find_out(options)
    return options


def find_tools(options):
    """Sets cxx, cmake and nvcc where they are needed."""
    options.cxx = options.cmake_program = options.nvcc = None
    if options.bin:
        for program in PROGRAMS:
            if not os.access(options.bin / program, os.X_OK):
                fail(f"--bin: {options.bin} has no {program}")
        return
    options.bin = options.build / "bin"
    header = options.tree / "ggml/include/ggml.h"
    if not header.is_file():
        fail(f"--tree: {options.tree} is not a llama.cpp (it has no ggml/include/ggml.h)")
    if "GGML_TYPE_TURBO4" not in header.read_text(errors="replace"):
        fail(f"--tree: {options.tree} does not have the turbo types: turboquant patch --apply adds them, or use the archive of "
             "script/gpu/cuda-kit")
    if not options.core.is_file():
        fail(f"--core: {options.core} is not there: cargo build --release --no-default-features --features capi makes it")
    options.cmake_program = shutil.which("cmake") or fail("cmake is not on PATH (PyPI has a package of that name, too)")
    cxx = os.environ.get("CXX", "c++")
    options.cxx = shutil.which(cxx) or fail(f"there is no C++ compiler: {cxx} is not on PATH")
    if not options.cpu:
        options.nvcc = find_nvcc()
        find_gpu(options)


def find_nvcc():
    """nvcc: CUDACXX, else CUDA_PATH's, else the one on PATH, else the usual folder's."""
    if "CUDACXX" in os.environ:
        return shutil.which(os.environ["CUDACXX"]) or fail(f"CUDACXX={os.environ['CUDACXX']} is not there")
    if "CUDA_PATH" in os.environ:
        folder = os.environ["CUDA_PATH"]
        return shutil.which(f"{folder}/bin/nvcc") or fail(f"CUDA_PATH={folder} has no bin/nvcc")
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc") or fail(
        "there is no nvcc on PATH and none in /usr/local/cuda/bin: install the CUDA toolkit, or set CUDA_PATH or CUDACXX "
        "(--cpu tries this script without)")


def find_gpu(options):
    """Refuses what the tree was not made for."""
    if not (options.tree / "ggml/src/ggml-cuda/turbo-left-out.h").is_file():
        return
    for line in said(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]).splitlines():
        if re.fullmatch(r"[0-9]+\.[0-9]+", line.strip()) and float(line) < 7.5:
            fail(f"a GPU of compute capability {line.strip()} needs CUDA sources that were left out of {options.tree}: pack them with "
                 "script/gpu/cuda-kit --whole")


def find_out(options):
    """Makes the report's folder, or finds the one to go on with."""
    state = options.out / "state"
    if state.exists() and not options.go_on:
        fail(f"{options.out} has a report already: name another folder, or go on with --continue")
    if not state.exists() and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        fail(f"{options.out} is not empty, and what is in it is not of this script: name another folder")
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        fail(f"{options.out} cannot be made: {e.strerror}")
    try:
        options.work.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        fail(f"--work: {options.work} cannot be made: {e.strerror}")


def said(command):
    """What a program prints, or nothing."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
