"""test-backend-ops: the device's results of operators with turbo types against the CPU's."""

import re

from .steps import Part, Step

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def cases(text, operator):
    """(passed, failed, not supported): the lines of an operator's cases."""
    passed, unsupported, failed = 0, 0, []
    for line in COLOUR.sub("", text).splitlines():
        if line.startswith(f"  {operator}("):
            if re.search(r": *OK *$", line):
                passed += 1
            elif "not supported" in line:
                unsupported += 1
            else:
                failed.append(line.strip())
    return passed, failed, unsupported


def part_of(context, name, operator, pattern):
    def check(text):
        passed, failed, _ = cases(text, operator)
        if failed:
            return f"{len(failed)} cases failed"
        if not passed:
            return f"no case ran on {context.options.device}"

    return Part(name, f"testing {operator}, {pattern}",
                [context.options.bin / "test-backend-ops", "test", "-b", context.options.device, "-o", operator, "-p", pattern],
                "operators", check)


class Operators(Step):
    programs = ("test-backend-ops",)
    about = "test-backend-ops, cases with a turbo type, against the CPU. What it printed is in `operators/`."
    # Name, operator, pattern of its parameters.
    first = ()

    def chosen(self, options):
        return self.first

    def parts(self, context):
        for name, operator, pattern in self.chosen(context.options):
            yield part_of(context, name, operator, pattern)

    def section(self, context):
        lines, bad = [], []
        for name, operator, pattern in self.chosen(context.options):
            record = context.record(name)
            passed, failed, unsupported = cases(context.text(name, "operators"), operator)
            if record is None:
                note = "not run" if not passed and not failed else "not ended"
            elif record["cut"]:
                note = "cut off"
            else:
                note = record["wrong"] and (record["wrong"].split(": ", 1)[1]) or ""
            lines.append(f"| {operator} | `{pattern.replace('|', chr(92) + '|')}` | {passed} | {len(failed)} | {unsupported} | {note} |")
            bad += failed
        head = f"| operator | cases | passed | failed | not supported by {context.options.device} | |\n|---|---|---|---|---|---|\n"
        text = head + "\n".join(lines)
        if bad:
            more = f"\n... {len(bad)} in all" if len(bad) > 40 else ""
            text += "\n\nFailed:\n\n```\n" + "\n".join(bad[:40]) + more + "\n```"
        return text


class FirstOperators(Operators):
    name, title, weight = "operators", "Operators of decoding and prefill", 10.0

    def chosen(self, options):
        # Flash attention has too many cases for a processor that is to try the script alone.
        nb = "nb=1," if options.cpu else "nb=(1|35),"
        return (
            ("set-rows", "SET_ROWS", "turbo"),
            ("attention-128", "FLASH_ATTN_EXT", f"hsk=128,hsv=128,.*kv=512,{nb}.*type_K=turbo4,type_V=turbo[24]"),
        )


class MoreOperators(Operators):
    name, title, weight = "more-operators", "Operators, the rest", 14.0

    def chosen(self, options):
        # What the kit's build has: see leave-out.py. On a processor a few, as above.
        sizes = "kv=113,nb=1,.*type_K=turbo3,type_V=turbo3" if options.cpu else "turbo"
        dims = ("128",) if options.cpu else ("128", "64", "256")
        return (
            *((f"attention-all-{d}", "FLASH_ATTN_EXT", f"hsk={d},hsv={d},.*{sizes}") for d in dims),
            ("get-rows", "GET_ROWS", "turbo"),
            ("copies", "CPY", "turbo"),
        )
