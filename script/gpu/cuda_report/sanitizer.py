"""compute-sanitizer over the smallest cases: memory that is not ours, and races of shared memory."""

import shutil

from .steps import Part, Step

FOUND = 99  # the exit code for errors


class Sanitizer(Step):
    name, title, weight, cuda, programs = "sanitizer", "compute-sanitizer", 12.0, True, ("test-backend-ops",)

    def left_out(self, options):
        return super().left_out(options) or (None if shutil.which("compute-sanitizer") else "compute-sanitizer is not on PATH")

    def parts(self, context):
        o = context.options
        for tool in ("memcheck", "racecheck"):
            for name, operator, pattern in (
                ("rows", "SET_ROWS", r"type_dst=turbo4,type_idx=i64,ne=\[256,5,1,3\]"),
                ("attention", "FLASH_ATTN_EXT", "hsk=128,hsv=128,nh=2,.*kv=113,nb=1,.*type_K=turbo4,type_V=turbo4"),
            ):
                def check(text):
                    if "ERROR SUMMARY: 0 errors" not in text and "RACECHECK SUMMARY: 0 hazards" not in text:
                        return "it printed no summary without errors"

                yield Part(f"{tool}-{name}", f"{tool} of {operator}",
                           ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FOUND), o.bin / "test-backend-ops", "test", "-b",
                            o.device, "-o", operator, "-p", pattern], "sanitizer", check)

    def section(self, context):
        lines = []
        for tool in ("memcheck", "racecheck"):
            for name in ("rows", "attention"):
                record = context.record(f"{tool}-{name}")
                if record:
                    how = "nothing found" if record["passed"] else "cut off" if record["cut"] else record["wrong"]
                    lines.append(f"| {tool} | {name} | {how} |")
        return "| tool | cases | |\n|---|---|---|\n" + "\n".join(lines) if lines else ""
