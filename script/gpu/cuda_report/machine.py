"""What the machine is: the report's first table."""

import os
import platform
import re
import time

from .options import said

GPU = ("name", "driver_version", "memory.total", "compute_cap", "power.limit", "clocks.max.sm", "clocks.max.mem")


def table(options):
    rows = [
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("processor", f"{processor()}, {os.cpu_count()} threads"),
    ]
    if not options.cpu:
        for line in said(["nvidia-smi", f"--query-gpu={','.join(GPU)}", "--format=csv,noheader"]).splitlines():
            name, driver, memory, capability, power, sm, mem = (re.split(r", *", line) + [""] * len(GPU))[:len(GPU)]
            rows.append(("GPU", f"{name}, driver {driver}, {memory}, compute capability {capability}, {power}, SM {sm}, memory {mem}"))
        if rows[-1][0] != "GPU":
            rows.append(("GPU", "nvidia-smi does not say"))
    if options.nvcc:
        rows.append(("nvcc", "".join(l for l in said([options.nvcc, "--version"]).splitlines() if "release" in l).strip()))
    if options.cxx:
        rows.append(("compiler", said([options.cxx, "--version"]).partition("\n")[0]))
        rows.append(("CMake", said([options.cmake_program, "--version"]).partition("\n")[0]))
    kit = options.here / "kit.txt"
    if kit.is_file():
        rows += [tuple(line.split(": ", 1)) for line in kit.read_text().splitlines() if ": " in line]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {what} |\n" for name, what in rows)


def processor():
    try:
        with open("/proc/cpuinfo", errors="replace") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
