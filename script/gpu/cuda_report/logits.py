"""Logits of one batch of queries against many keys, by kernels alone (logits.cu)."""

from .steps import Part, Step


class Logits(Step):
    name, title, weight, cuda = "logits", "Attention alone: logits", 8.0, True

    def left_out(self, options):
        # Built beside llama.cpp.
        return super().left_out(options) or (None if options.cmake_program else "--bin names programs, and logits is none of them")

    def parts(self, context):
        yield Part("logits", "measuring logits of 131072 keys", [context.options.build / "logits", "131072"])

    def section(self, context):
        text = context.text("logits").strip()
        if text or (context.options.build / "logits").is_file():
            return text
        log = context.text("logits", "build-log").strip().splitlines()
        return "\n".join(["It was not built:", "", "```", *log[-20:], "```"]) if log else ""
