"""Builds llama.cpp for this machine's GPU alone, and the program that measures logits."""

import os
import shutil

from .options import PROGRAMS
from .steps import Part, Step

# The measurements' program is compiled while llama.cpp is; a failure of it is one of the step that needs it.
BUILD = """\
if [ -n "$1" ]; then
    "$1" -O3 -std=c++17 -arch="$2" -I "$3/ggml/include" -I "$3/ggml/src" -I "$3/ggml/src/ggml-cuda" -I "$4" -I "$4/../../include" \
        "$4/logits.cu" "$5" -o "$6/logits" -lcublas -lpthread -ldl -lm -Xlinker "-rpath=$8" >"$7" 2>&1 &
fi
shift 8
code=0
"$@" || code=$?
wait
exit $code
"""


class Build(Step):
    name, title, weight, essential = "build", "Build", 80.0, True

    def left_out(self, options):
        return super().left_out(options) or (None if options.cmake_program else "--bin names the programs")

    def parts(self, context):
        o = context.options
        flags = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=ON", "-DLLAMA_BUILD_EXAMPLES=OFF",
                 "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
                 "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_NUMBER=0", "-DLLAMA_BUILD_COMMIT=turboquant", f"-DTURBOQUANT_LIB={o.core}",
                 f"-DCMAKE_CXX_COMPILER={o.cxx}"]
        if o.cpu:
            flags.append("-DGGML_CUDA=OFF")
        else:
            flags += ["-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={o.nvcc}", f"-DCMAKE_CUDA_ARCHITECTURES={o.arch or 'native'}",
                      "-DGGML_CUDA_NCCL=OFF", "-DGGML_CUDA_FA_QUANTS=f16-f16,q8_0-q8_0,q4_0-q4_0"]
        generator = ["-G", "Ninja"] if shutil.which("ninja") and not (o.build / "CMakeCache.txt").exists() else []
        yield Part("configure", "configuring llama.cpp",
                   [o.cmake_program, "-S", o.tree, "-B", o.build, *generator, *flags, *o.cmake], "build-log")
        if not (context.record("configure") or {}).get("passed"):
            return
        # Where cuBLAS is, whether nvcc is named by a link or not.
        tops = [os.path.dirname(os.path.dirname(path)) for path in (o.nvcc, os.path.realpath(o.nvcc))] if o.nvcc else []
        libraries = ":".join(f"{top}/{folder}" for top in tops for folder in ("lib64", "lib"))
        arch = f"sm_{o.arch.split(';')[0]}" if o.arch and o.arch[0].isdigit() else o.arch or "native"
        yield Part("build", "building llama.cpp",
                   ["sh", "-c", BUILD, "sh", o.nvcc or "", arch, o.tree, o.here, o.core, o.build,
                    context.out / "build-log/logits.txt", libraries, o.cmake_program, "--build", o.build, "--config", "Release", "--parallel", str(o.jobs), "--target", *PROGRAMS],
                   "build-log")

    def section(self, context):
        built = context.record("build")
        if not built:
            return ""
        end = "" if built["passed"] else "\n\n" + last_lines(context)
        how = "Built" if built["passed"] else "Not built"
        return f"{how} in {built['seconds']:.0f} s, {context.options.jobs} compilers at once.{end}"


def last_lines(context):
    """The end of what the compilers said."""
    lines = []
    for end in (".txt", ".err"):
        try:
            text = (context.out / "build-log" / f"build{end}").read_text(errors="replace")
        except OSError:
            continue
        lines += text.splitlines()[-15:]
    return "```\n" + "\n".join(lines) + "\n```"


class Devices(Step):
    """Whether llama.cpp finds the device: without it nothing else makes sense."""

    name, title, weight, essential = "device", "Device", 2.0, True
    cuda, programs = True, ("llama-bench",)

    def parts(self, context):
        def check(text):
            if context.options.device not in text:
                return f"llama.cpp finds no device {context.options.device}"

        yield Part("devices", "looking for the device", [context.options.bin / "llama-bench", "--list-devices"], check=check)
