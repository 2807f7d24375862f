"""Operators alone, by test-backend-ops perf: writing new keys and values, and attention; and writing's share of prefill."""

import re

from . import speed
from .operators import COLOUR
from .steps import Part, Step

N_TOKENS, N_LAYERS = 512, 8  # of ggml-ext/tests/test-turbo-perf.h, and of the model of random weights


def times(text, operator):
    """{parameters: microseconds of a run}"""
    found = {}
    for line in COLOUR.sub("", text).splitlines():
        m = re.match(rf"  {operator}\((.*)\): +\d+ runs - +([0-9.]+) us/run", line)
        if m:
            found[m[1]] = float(m[2])
    return found


def parameter(parameters, name):
    m = re.search(rf"(?:^|,){name}=([^,\[\]]+)", parameters)
    return m[1] if m else ""


def shares(context):
    """(pair, depth, microseconds of writing, of prefill): of N_TOKENS tokens, for what has been measured."""
    o = context.options
    write = {}
    for parameters, us in times(context.text("perf-set-rows", "perf"), "SET_ROWS").items():
        if parameter(parameters, "r") == str(N_TOKENS):
            write[parameter(parameters, "type_dst")] = us
    for depth in sorted(o.depths, key=int):
        for pair in o.pairs:
            key, value = pair.split("/")
            prompt = speed.results(context, pair, depth).get("prompt")
            if prompt and key in write and value in write:
                yield pair, depth, N_LAYERS * (write[key] + write[value]), N_TOKENS / prompt[0] * 1e6


class Writing(Step):
    name, title, weight, programs = "writing", "Operators alone, and writing's share of prefill", 10.0, ("test-backend-ops",)

    def parts(self, context):
        o = context.options
        types, tokens = ("type_dst=(f16|turbo4),", "1") if o.cpu else ("", f"1|{N_TOKENS}")
        attention = "kv=4096,nb=1,.*type_K=turbo4,type_V=turbo4" if o.cpu else "kv=32768,"
        for name, operator, pattern in (
            ("perf-set-rows", "SET_ROWS", rf"type_src=f32,{types}.*ne=\[1024,4096,1,1\],.*r=({tokens}),"),
            ("perf-attention", "FLASH_ATTN_EXT", rf"hsk=128,hsv=128,nh=8,nr23=\[4,1\],{attention}"),
        ):
            yield Part(name, f"measuring {operator}",
                       [o.bin / "test-backend-ops", "perf", "-b", o.device, "-o", operator, "-p", pattern], "perf",
                       lambda text, operator=operator: None if times(text, operator) else "no case was measured")

    def section(self, context):
        rows = times(context.text("perf-set-rows", "perf"), "SET_ROWS")
        attention = times(context.text("perf-attention", "perf"), "FLASH_ATTN_EXT")
        if not rows and not attention:
            return ""
        text = ["test-backend-ops perf, microseconds of one operator of one layer with 8 KV heads of 128.", "",
                "| written | tokens | us |", "|---|---|---|"]
        text += [f"| {parameter(p, 'type_dst')} | {parameter(p, 'r')} | {us:.1f} |" for p, us in rows.items()]
        if attention:
            text += ["", "| attention, K/V | cells | tokens | us |", "|---|---|---|---|"]
            text += [f"| {parameter(p, 'type_K')}/{parameter(p, 'type_V')} | {parameter(p, 'kv')} | {parameter(p, 'nb')} | {us:.1f} |"
                     for p, us in attention.items()]
        found = [] if context.options.model else list(shares(context))
        if found:
            text += ["", f"Writing's share of prefill: {N_LAYERS} layers times the two times of {N_TOKENS} tokens above, keys' and "
                     f"values', over {N_TOKENS} tokens by llama-bench's speed.", "",
                     "| K/V | depth | writing, us | prefill, us | share |", "|---|---|---|---|---|"]
            text += [f"| {pair} | {depth} | {write:.0f} | {all_:.0f} | {100 * write / all_:.1f}% |" for pair, depth, write, all_ in found]
        return "\n".join(text)
