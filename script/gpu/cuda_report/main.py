"""The steps in their order, and what there is to say at the end."""

import pathlib
import sys

from . import answer, build, logits, machine, operators, options, page, run, sanitizer, speed, steps, writing
from .budget import Budget

# What matters most first.
STEPS = (build.Build, build.Devices, operators.FirstOperators, speed.FirstSpeed, logits.Logits, writing.Writing, answer.Answer,
         speed.MoreSpeed, operators.MoreOperators, sanitizer.Sanitizer)


def main(arguments, here):
    o = options.read(arguments, pathlib.Path(here))
    context = steps.Context(o, Budget(None if o.minutes is None else 60 * o.minutes))
    context.machine = machine.table(o)
    chosen = [step() for step in STEPS if step.name in o.steps]
    write = lambda context, state: page.write(context, chosen, state)
    run.catch_signals()
    try:
        steps.run_steps(context, chosen, write)
    except run.Stopped as e:
        write(context, f"**Stopped** while {context.doing}; `--continue` goes on.")
        print(f"stopped while {context.doing}: {o.out / 'report.md'} has what there is, --continue goes on", file=sys.stderr)
        return 128 + e.number
    write(context, page.last_line(context))
    print(o.out / "report.md")
    return 1 if context.failures else 0
