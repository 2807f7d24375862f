"""llama-bench: prefill and decoding at depths, for pairs of K and V."""

import json
import sys

from .steps import Part, Step

RANDOM = "random-8-layers"


def model_of(options):
    return options.model or options.work / f"{RANDOM}.gguf"


def part_name(pair, depth):
    return f"{pair.replace('/', '-')}-{depth}"


def is_turbo(pair):
    return "turbo" in pair


def first(options):
    """(pair, depth) to measure before all others: at the first depth, the first pair and the first with a turbo type."""
    pairs = options.pairs[:1] + [p for p in options.pairs[1:] if is_turbo(p)][:1]
    return [(pair, depth) for depth in options.depths[:1] for pair in pairs]


def rest(options):
    done = first(options)
    return [(pair, depth) for depth in options.depths for pair in options.pairs if (pair, depth) not in done]


def results(context, pair, depth):
    """{"prompt": (mean, deviation), "gen": ...} of tokens a second; what there is."""
    found = {}
    for line in context.text(part_name(pair, depth), "speed").splitlines():
        try:
            row = json.loads(line)
            found["gen" if row["n_gen"] > 0 else "prompt"] = (row["avg_ts"], row["stddev_ts"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def table(context, kind):
    o = context.options
    depths = sorted(o.depths, key=int)
    lines = ["| K/V |" + "".join(f" depth {d} |" for d in depths), "|---|" + "---|" * len(depths)]
    for pair in o.pairs:
        cells = []
        for depth in depths:
            found, base = results(context, pair, depth).get(kind), results(context, o.pairs[0], depth).get(kind)
            cell = "-" if not found else f"{found[0]:.1f} ± {found[1]:.1f}"
            if found and base and base[0]:
                cell += f" ({found[0] / base[0]:.2f})"
            cells.append(cell)
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Speed(Step):
    programs = ("llama-bench",)

    def left_out(self, options):
        return super().left_out(options) or (None if options.pairs and options.depths else "no pair or no depth is asked for")

    def chosen(self, options):
        return ()

    def parts(self, context):
        o = context.options
        if not o.model:
            # An 8B model has 32 layers; ratios are those of 8, and its output matrix has a quarter of the weights, too.
            shape = ("--heads 4 --kv-heads 1 --layers 2 --ff 512 --vocab 512" if o.cpu else "--heads 32 --kv-heads 8 --layers 8").split()
            yield Part(RANDOM, "making a model of random weights",
                       [sys.executable, o.here / "make-bench-gguf.py", model_of(o), *shape])
        if not model_of(o).is_file():
            return
        for pair, depth in self.chosen(o):
            def check(text, pair=pair, depth=depth):
                if set(results(context, pair, depth)) != {"prompt", "gen"}:
                    return "llama-bench printed no results"

            where = [] if o.cpu else ["-ngl", "99", "-dev", o.device]
            key, value = pair.split("/")
            yield Part(part_name(pair, depth), f"measuring {pair} at depth {depth}",
                       [o.bin / "llama-bench", "-m", model_of(o), "-fa", "1", "-ctk", key, "-ctv", value, "-p", str(o.prompt),
                        "-n", str(o.gen), "-d", depth, "-r", str(o.repeat), "-o", "jsonl", *where], "speed", check)


class FirstSpeed(Speed):
    name, title, weight = "speed", "Speed", 14.0

    def chosen(self, options):
        return first(options)

    def section(self, context):
        o = context.options
        small = "\n\n`--cpu`: numbers of models this small say nothing." if o.cpu else ""
        return (
            f"Tokens per second by llama-bench with {model_of(o).name}, mean and deviation of {o.repeat}; in brackets the ratio to "
            f"{o.pairs[0]}.{small}\n\nDecode, {o.gen} tokens one at a time:\n\n{table(context, 'gen')}\n\n"
            f"Prefill, {o.prompt} tokens at once:\n\n{table(context, 'prompt')}"
        )


class MoreSpeed(Speed):
    """Its results are in the tables of the first."""

    name, title, weight = "more-speed", "Speed, the rest", 20.0

    def chosen(self, options):
        return rest(options)
