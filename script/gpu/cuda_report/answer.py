"""A trained model on the device and on the CPU: what each type of the cache costs on either, and an answer from each.

Both are measured by the KL divergence of a text's logits to the CPU's with a cache of f16. Rounding alone makes a quantized
cache differ from one device to the other, since a value that falls beside a boundary goes to the other side; what a type costs
on the whole stays the same.
"""

import re

from .steps import Part, Step

PROMPT = "The capital of France is"
F16, PAIRS = "f16/f16", ("turbo4/turbo4", "turbo4/turbo2")
# Largest mean KL divergence with f16. On one CPU other batches make it 0.003 to 0.005.
LIMIT = 0.02
# How much more than on the CPU a type may cost on the device, beside what f16 differs by.
FACTOR, MORE = 1.25, 0.005


def measured(text):
    """(mean KL divergence, percentage of equal most likely tokens), or None."""
    kld = re.search(r"Mean +KLD: *(-?[0-9.]+|-?nan|-?inf)", text)
    top = re.search(r"Same top p: *([0-9.]+)", text)
    return (float(kld[1]), float(top[1])) if kld and top else None


def part_name(where, pair):
    return f"logits-{where}-{pair.replace('/', '-')}"


def found(context, where, pair):
    return measured(context.text(part_name(where, pair), "answer"))


def limit(context, pair):
    """The largest mean KL divergence that the device may have, or None where it is not known yet."""
    if pair == F16:
        return LIMIT
    f16, cpu = found(context, "gpu", F16), found(context, "cpu", pair)
    return FACTOR * cpu[0] + max(f16[0], 0.0) + MORE if f16 and cpu else None


class Answer(Step):
    name, title, weight = "answer", "A trained model: GPU and CPU", 10.0
    programs = ("llama-perplexity", "llama-completion")

    def left_out(self, options):
        for file in (options.answer_model, options.text):
            if not file.is_file():
                return f"{file} is not there"
        return super().left_out(options)

    def parts(self, context):
        o = context.options
        # Of fewer than 100 tokens llama-perplexity makes no statistics; half of a chunk counts.
        size, chunks = ("64", "4") if o.cpu else ("512", "4")
        # --cpu: in smaller batches, so that something is compared, and by one thread, since others may have the processors.
        places = {"cpu": ("the CPU", ["-ngl", "0", "-dev", "none"] + (["-t", "1"] if o.cpu else [])),
                  "gpu": (o.device, ["-ub", "48", "-t", "1"] if o.cpu else ["-ngl", "99", "-dev", o.device])}

        def command(program, where, pair, *arguments):
            key, value = pair.split("/")
            return [o.bin / program, "-m", o.answer_model, "-fa", "on", "-ctk", key, "-ctv", value, *places[where][1], *arguments]

        text = ["-f", o.text, "-c", size, "--chunks", chunks, "--kl-divergence-base", o.work / "logits.bin"]
        yield Part("logits-base", "logits of a text on the CPU, f16", command("llama-perplexity", "cpu", F16, *text), "answer")
        if not (context.record("logits-base") or {}).get("passed"):
            return
        pairs = PAIRS[:1] if o.cpu else PAIRS
        for where, pair in [("gpu", F16)] + [(where, pair) for pair in pairs for where in ("cpu", "gpu")]:
            def check(text, where=where, pair=pair):
                kld = measured(text)
                if not kld:
                    return "llama-perplexity printed no KL divergence"
                most = limit(context, pair) if where == "gpu" else None
                if most is not None and not kld[0] <= most:
                    return f"the mean KL divergence to the CPU's f16 is {kld[0]}, above {most:.4f}"

            yield Part(part_name(where, pair), f"logits of a text on {places[where][0]}, {pair}",
                       command("llama-perplexity", where, pair, *text, "--kl-divergence"), "answer", check)
        for where, (place, _) in places.items():
            yield Part(f"answer-{where}", f"an answer by {place}, {PAIRS[0]}",
                       command("llama-completion", where, PAIRS[0], "-p", PROMPT, "-n", "8" if o.cpu else "48", "--temp", "0",
                               "-no-cnv", "-c", "512"), "answer")

    def section(self, context):
        device, lines = context.options.device, []
        for pair in (F16, *PAIRS):
            gpu, cpu, most = found(context, "gpu", pair), found(context, "cpu", pair), limit(context, pair)
            if gpu:
                number = lambda x: f"{x:.5f}" if x is not None else "-"
                lines.append(f"| {pair} | {number(cpu and cpu[0])} | {number(gpu[0])} | {number(most)} | {gpu[1]:.1f}% |")
        if not lines:
            return ""
        text = (
            f"{context.options.answer_model.name}, mean KL divergence of a text's logits to the CPU's with f16. A type must cost on "
            f"{device} what it costs on the CPU: at most {FACTOR} times as much, beside what f16 differs by, and {MORE}.\n\n"
            f"| K/V | CPU | {device} | at most | same most likely token |\n|---|---|---|---|---|\n" + "\n".join(lines)
        )
        answers = [(where, context.text(f"answer-{where}", "answer").strip()) for where in ("cpu", "gpu")]
        if any(answer for _, answer in answers):
            text += f"\n\nAnswers with {PAIRS[0]}, always the most likely token:\n\n```\n" + "\n\n".join(
                f"{'CPU' if where == 'cpu' else device}: {answer}" for where, answer in answers if answer) + "\n```"
        return text
