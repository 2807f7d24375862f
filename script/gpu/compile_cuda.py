#!/usr/bin/env python3
"""Compiles CUDA sources of an edited llama.cpp and reads what ptxas says about the kernels. Part of script/gpu/test-cuda.

    compile_cuda.py --nvcc NVCC --tree DIR --sources FILE --ours DIR --results DIR [--arch 90]... [--jobs N]
    compile_cuda.py --self-test [--nvcc NVCC]

Warnings are errors. A kernel of ours that spills registers is an error: one in a file of --ours, ggml-ext, or one that names a
turbo type. What was compiled is kept by content (source, headers, flags, compiler), so that only what changed is compiled
again.
"""

import argparse
import concurrent.futures
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

# As upstream's CMake compiles: ggml/src/CMakeLists.txt and ggml/src/ggml-cuda/CMakeLists.txt.
FLAGS = [
    "-std=c++17", "-O3", "-DNDEBUG", "-D_GNU_SOURCE", "-D_XOPEN_SOURCE=600", "-use_fast_math", "-extended-lambda",
    "-compress-mode=size", "-DGGML_CUDA_USE_GRAPHS", '-DGGML_CUDA_FA_QUANTS="q4_0-q4_0,q8_0-q8_0,f16-f16,bf16-bf16"',
]
HOST = (
    "-fPIE -Wall -Wextra -Wpedantic -Wcast-qual -Wno-unused-function -Wmissing-declarations -Wmissing-noreturn "
    "-Wno-array-bounds -Wextra-semi -Wno-pedantic"
)
HOST_COMPILER = os.environ.get("CXX") or "g++"
WARNINGS = ["-ccbin", HOST_COMPILER, "-Werror", "all-warnings", "-Xcompiler", HOST, "-Xptxas", "-v"]
FA_TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16", "f16"]
FA_COMPILED = {("q4_0", "q4_0"), ("q8_0", "q8_0"), ("f16", "f16"), ("bf16", "bf16")}
# Ids of turbo2, turbo3 and turbo4 in template arguments, or the word in a name.
OURS = re.compile(r"turbo|\btq_|\(ggml_type\)12[012]\b|GGML_TYPE_TURBO", re.IGNORECASE)


@dataclasses.dataclass
class Kernel:
    """What ptxas says about one function of one architecture."""

    name: str  # mangled
    arch: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


def parse(text):
    """Kernels and functions in the output of `nvcc -Xptxas -v`. Raises ValueError for output that is not understood."""
    kernels, arch, current = {}, "", None
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '([^']+)' for '([^']+)'", line):
            arch = m[2]
            current = kernels.setdefault((m[1], arch), Kernel(m[1], arch))
        elif m := re.search(r"Function properties for '?([^'\s]+)", line):
            current = kernels.setdefault((m[1], arch), Kernel(m[1], arch))
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            if current is None:
                raise ValueError(f"spills of no function: {line}")
            current.stack, current.spill_stores, current.spill_loads = map(int, m.groups())
        elif m := re.search(r"ptxas info\s*: Used (\d+) registers(.*)", line):
            if current is None:
                raise ValueError(f"registers of no function: {line}")
            current.registers = int(m[1])
            if s := re.search(r"(\d+)(?:\+\d+)? bytes smem", m[2]):
                current.shared = int(s[1])
    return list(kernels.values())


def demangle(names):
    if not names:
        return {}
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None:
        raise SystemExit("error: neither cu++filt nor c++filt is on PATH: install binutils")
    out = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, out.stdout.splitlines(), strict=True))


def short(name):
    """Without the return type and the arguments, which are those of every kernel of that file."""
    name = re.sub(r"^(static )?void ", "", name)
    depth = 0
    for i, c in enumerate(name):
        if c == "<":
            depth += 1
        elif c == ">":
            depth -= 1
        # A cast among template arguments, (ggml_type)120, is inside of <>.
        elif c == "(" and depth == 0 and not name.startswith("(anonymous namespace)", i):
            return name[:i]
    return name


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class Compiler:
    def __init__(self, nvcc, tree, results, flags):
        self.nvcc, self.tree, self.results, self.flags = nvcc, tree, results, flags
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        host = subprocess.run([HOST_COMPILER, "--version"], capture_output=True, text=True, check=True).stdout
        self.identity = [version, host, flags]
        self.running, self.stopped, self.lock = set(), False, threading.Lock()

    def compile(self, source):
        """(what ptxas and the compilers said, exit code, seconds or None if it was known)."""
        name = source.relative_to(self.tree).as_posix()
        key = hashlib.sha256(json.dumps([self.identity, name]).encode()).hexdigest()[:16]
        entry = self.results / f"{source.stem}-{key}.json"
        if entry.is_file():
            known = json.loads(entry.read_text())
            files = known["files"]  # inside of the tree by relative path
            if all((p := self.tree / f).is_file() and sha256(p) == h for f, h in files.items()):
                return known["said"], 0, None

        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"{source.stem}-", dir=self.results) as tmp:
            command = [self.nvcc, *self.flags, "-MD", "-MF", f"{tmp}/d", "-c", "-o", f"{tmp}/o", str(source)]
            with self.lock:
                if self.stopped:
                    return "", 130, None
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", env={**os.environ, "TMPDIR": tmp}, start_new_session=True,
                )
                self.running.add(process)
            said, _ = process.communicate()
            with self.lock:
                self.running.discard(process)
            if process.returncode == 0:
                depends = pathlib.Path(f"{tmp}/d").read_text().replace("\\\n", " ").split(" : ", 1)[1].split()
                inside = [pathlib.Path(os.path.normpath(d)) for d in depends]
                files = {p.relative_to(self.tree).as_posix(): sha256(p) for p in inside if self.tree in p.parents}
                part = pathlib.Path(f"{tmp}/json")
                part.write_text(json.dumps({"files": files, "said": said}))
                part.replace(entry)
        return said, process.returncode, time.monotonic() - start

    def stop(self):
        """Ends what runs: nvcc's own children are in its group."""
        with self.lock:
            self.stopped = True
            for process in self.running:
                try:
                    os.killpg(process.pid, 15)
                except ProcessLookupError:
                    pass


def find_sources(tree, listing, added):
    """The files to compile, and those of them that are ours."""
    base = tree / "ggml/src/ggml-cuda"
    sources, ours, wrong = [], set(), []
    for path in sorted(added.rglob("*.cu*")):
        path = tree / path.relative_to(added)
        ours.add(path)
        if path.suffix == ".cu":
            sources.append(path)
    for line in listing.read_text().splitlines():
        pattern = line.split("#")[0].strip()
        if not pattern:
            continue
        found = sorted(pathlib.Path(p) for p in glob.glob(str(base / pattern)))
        if not found and not glob.has_magic(pattern):
            wrong.append(pattern)
        sources += found
    if wrong:
        raise SystemExit(f"error: {listing} names files that {base} does not have: {', '.join(wrong)}")
    return list(dict.fromkeys(sources)), ours


def table(rows, header):
    widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        cells = [str(c).ljust(w) if i < 1 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        print("  " + "  ".join(cells).rstrip())


def check(args):
    tree = args.tree.resolve()
    sources, ours = find_sources(tree, args.sources, args.ours)
    args.results.mkdir(parents=True, exist_ok=True)
    flags = list(FLAGS)
    for k in FA_TYPES:
        for v in FA_TYPES:
            flags.append(f"-DGGML_CUDA_FA_{k.upper()}_{v.upper()}={int((k, v) in FA_COMPILED)}")
    flags += ["-isystem", str(pathlib.Path(args.nvcc).parent.parent / "include")]
    flags += [f"-I{tree / 'ggml' / d}" for d in ("include", "src", "src/ggml-cuda")]
    for arch in args.arch or ["90"]:
        number = re.fullmatch(r"\d+[af]?", arch)
        if not number:
            raise SystemExit(f"error: --arch {arch} is no architecture; 90 or 90a is")
        flags.append(f"-gencode=arch=compute_{arch},code=sm_{arch}")
    flags += WARNINGS
    # The tree's own place is no part of a result's key: options with it are the same in every tree.
    compiler = Compiler(args.nvcc, tree, args.results, flags)
    compiler.identity[2] = [f.replace(str(tree), "TREE") for f in flags]

    # The longest first: big ones are fattn*.cu and ggml-cuda.cu.
    sources.sort(key=lambda s: ("fattn" not in s.name, -s.stat().st_size))
    results, failed, start = {}, [], time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(compiler.compile, s): s for s in sources}
        try:
            for future in concurrent.futures.as_completed(futures):
                source = futures[future]
                said, code, seconds = future.result()
                name = source.relative_to(tree).as_posix()
                how = "unchanged" if seconds is None else f"{seconds:.0f} s"
                print(f"  {'ok    ' if code == 0 else 'FAILED'} {name} ({how})", flush=True)
                if code == 0:
                    results[source] = parse(said)
                else:
                    failed.append(name)
                    lines = [l for l in said.splitlines() if not re.search(r"ptxas info|bytes stack frame", l)]
                    print("\n".join(lines), file=sys.stderr, flush=True)
        except BaseException:
            compiler.stop()
            raise

    return report(results, failed, ours, tree, args, time.monotonic() - start)


def report(results, failed, ours, tree, args, seconds):
    names = demangle(sorted({k.name for kernels in results.values() for k in kernels}))
    mine, theirs, spilled = [], [], []
    for source, kernels in sorted(results.items()):
        others = []
        for k in kernels:
            if source in ours or OURS.search(names[k.name]):
                mine.append((short(names[k.name]), k))
                if k.spill_stores or k.spill_loads:
                    spilled.append((names[k.name], k, source.relative_to(tree).as_posix()))
            else:
                others.append(k)
        if others:
            theirs.append([
                source.name, len(others), max(k.registers for k in others), max(k.shared for k in others),
                sum(k.spill_stores > 0 for k in others), max(k.spill_stores for k in others),
            ])
    if theirs:
        print("\nUpstream's kernels in these files (their spills are upstream's):")
        table(theirs, ["file", "kernels", "max registers", "max shared", "with spills", "max spill stores"])
    if mine:
        print("\nOur kernels:")
        mine.sort(key=lambda row: (row[0], row[1].arch))
        table(
            [[n, k.arch, k.registers, k.shared, k.stack, k.spill_stores, k.spill_loads] for n, k in mine],
            ["kernel", "arch", "registers", "shared", "stack", "spill stores", "spill loads"],
        )
    print(f"\n{len(results)} files compiled without warnings, {len(mine)} kernels of ours, {seconds:.0f} s")
    for name, k, source in spilled:
        print(
            f"error: {name} in {source} spills on {k.arch}: {k.spill_stores} bytes of stores, {k.spill_loads} of loads, "
            f"{k.registers} registers",
            file=sys.stderr,
        )
    if failed:
        print(f"error: not compiled: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed or spilled else 0


PTXAS = """\
ptxas info    : 27 bytes gmem, 64 bytes cmem[4]
ptxas info    : Compiling entry function '_Z5k_oneIL9ggml_type120EEvPf' for 'sm_90'
ptxas info    : Function properties for _Z5k_oneIL9ggml_type120EEvPf
    96 bytes stack frame, 100 bytes spill stores, 48 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size, 4352 bytes smem, 556 bytes cmem[0]
ptxas info    : Compile time = 38.404 ms
ptxas info    : Compiling entry function '_Z5k_twov' for 'sm_80'
ptxas info    : Function properties for _Z5k_twov
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""

# 64 values live across a loop, in 24 registers, and a variable that nothing uses.
SPILLS = """\
__global__ void __launch_bounds__(1024, 2) tq_spills(float * x, int n) {
    float v[64];
#pragma unroll
    for (int i = 0; i < 64; i++) { v[i] = x[i*n]; }
    for (int k = 0; k < n; k++) {
#pragma unroll
        for (int i = 0; i < 64; i++) { v[i] = v[i]*v[(i + 1) % 64] + x[k]; }
    }
#pragma unroll
    for (int i = 0; i < 64; i++) { x[i*n] = v[i]; }
}
"""
WARNS = "__global__ void warns(float * x) { int unused; x[0] = 1.0f; }\n"


def self_test(args):
    """That the parser reads what ptxas prints, and with nvcc: that spills and warnings are seen."""
    one, two = parse(PTXAS)
    assert dataclasses.astuple(one) == ("_Z5k_oneIL9ggml_type120EEvPf", "sm_90", 255, 4352, 96, 100, 48), one
    assert dataclasses.astuple(two) == ("_Z5k_twov", "sm_80", 8, 0, 0, 0, 0), two
    names = demangle([one.name, two.name])
    assert OURS.search(names[one.name]) and short(names[one.name]) == "k_one<(ggml_type)120>", names
    assert not OURS.search(names[two.name]), names
    for stray in ("    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", "ptxas info : Used 8 registers"):
        try:
            parse(stray)
        except ValueError:
            continue
        raise AssertionError(f"{stray!r} was taken")
    if args.nvcc:
        with tempfile.TemporaryDirectory() as tmp:
            def run(text):
                source = pathlib.Path(tmp, "t.cu")
                source.write_text(text)
                command = [args.nvcc, "-arch=sm_90", *WARNINGS, "-c", "-o", f"{tmp}/o", str(source)]
                return subprocess.run(command, capture_output=True, text=True)
            spills = run(SPILLS)
            assert spills.returncode == 0, spills.stderr
            (kernel,) = parse(spills.stdout + spills.stderr)
            assert kernel.spill_stores > 0 and kernel.registers <= 32, kernel
            warns = run(WARNS)
            assert warns.returncode != 0 and "unused" in warns.stderr, warns
    print("compile_cuda.py: what ptxas says is understood" + (", spills and warnings are seen" if args.nvcc else ""))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--nvcc")
    for name in ("--tree", "--sources", "--ours", "--results"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--arch", action="append")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.self_test:
        return self_test(args)
    if not all((args.nvcc, args.tree, args.sources, args.ours, args.results)):
        parser.error("--nvcc, --tree, --sources, --ours and --results are needed")
    return check(args)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
