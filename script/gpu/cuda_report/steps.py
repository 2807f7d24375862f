"""Steps and their parts: runs what is to run, in order and within the budget, and keeps how each part ended."""

import json
import sys
import time

from . import run


class Part:
    """One command of a step.

    `name` is its own among all steps; its output is in `folder`/`name`.txt and .err. `check` is called with the text of its
    output when the command has ended with 0, and returns what is wrong with it, if anything.
    """

    def __init__(self, name, what, command, folder=".", check=None):
        self.name, self.what, self.command, self.folder, self.check = name, what, command, folder, check


class Step:
    """What a step is made of; each is a class of its own."""

    name = ""     # for --steps
    title = ""    # in the report
    weight = 1.0  # of its share of the time
    about = ""  # at the head of its section
    cuda = False  # whether it makes no sense without CUDA
    programs = ()  # what has to be built for it
    essential = False  # whether nothing else makes sense where it failed

    def left_out(self, options):
        """Why it is not to run, whatever happens before; or None."""
        if self.cuda and options.cpu:
            return "it needs CUDA"
        return None

    def parts(self, context):
        """Its parts, in order. A generator: the next one is asked for when the one before has ended."""
        return iter(())

    def section(self, context):
        """Its part of the report, in Markdown, from what there is by now; empty for nothing to say yet."""
        return ""


class Context:
    """What steps share."""

    def __init__(self, options, budget):
        self.options, self.budget, self.out = options, budget, options.out
        self.status = {}     # of a step, by name: in words, for the report
        self.short = []      # titles of steps that were cut off or not run for want of time
        self.failures = []
        self.doing = "at the start"

    def path(self, part, end=".txt"):
        return self.out / part.folder / (part.name + end)

    def record(self, name):
        """How a part ended in this or an earlier run: a dict, or None."""
        try:
            return json.loads((self.out / "state" / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None

    def text(self, name, folder="."):
        """What a part has printed by now; empty where it has not run."""
        try:
            return (self.out / folder / f"{name}.txt").read_text(errors="replace")
        except OSError:
            return ""

    def fail(self, message):
        print(f"FAILED: {message}", file=sys.stderr)
        self.failures.append(message)


def seconds(number):
    return f"{number:.0f} s" if number >= 10 else f"{number:.1f} s"


def run_part(context, part, limit):
    """Runs a part that did not pass before. Returns whether it had the time that it needed."""
    known = context.record(part.name)
    if known and known["passed"]:
        return True
    context.doing = part.what
    print(f"== {part.what} ({time.strftime('%T')})", file=sys.stderr)
    stdout, stderr = context.path(part), context.path(part, ".err")
    stdout.parent.mkdir(parents=True, exist_ok=True)
    result = run.run(part.command, stdout, stderr, limit)
    wrong = None
    if result.cut:
        print(f"cut off after {seconds(result.seconds)}: {part.what}", file=sys.stderr)
    elif result.code != 0:
        wrong = f"{part.what}: ended with {result.code}, see {stderr.relative_to(context.out)} and .txt"
    elif part.check:
        wrong = part.check(stdout.read_text(errors="replace"))
        wrong = wrong and f"{part.what}: {wrong}, see {stdout.relative_to(context.out)}"
    if wrong:
        context.fail(wrong)
    record = {"what": part.what, "code": result.code, "seconds": round(result.seconds, 2), "cut": result.cut,
              "passed": not wrong and not result.cut, "wrong": wrong}
    (context.out / "state" / f"{part.name}.json").write_text(json.dumps(record))
    return not result.cut


def run_step(context, step, later, write_report):
    """Runs a step within its share; `later` are the weights of those behind it."""
    reason = step.left_out(context.options)
    if reason:
        context.status[step.name] = f"left out: {reason}"
        return
    missing = [p for p in step.programs if not (context.options.bin / p).is_file()]
    if missing and context.budget.left() != 0:
        context.status[step.name] = f"**not run**: there is no {missing[0]}"
        return
    clock = context.budget.clock
    begin, limit, n_failed = clock(), context.budget.share(step.weight, later), len(context.failures)
    n_parts = 0
    for part in step.parts(context):
        n_parts += 1
        left = None if limit is None else limit - (clock() - begin)
        if left is not None and left <= 0:
            if n_parts == 1:
                context.status[step.name] = "**not run**: there was no time left"
            else:
                context.status[step.name] = f"**cut short**: its {seconds(limit)} were over before it came to: {part.what}"
            context.short.append(step.title)
            return
        context.status[step.name] = "running"
        write_report(context, None)
        if not run_part(context, part, left):
            context.status[step.name] = f"**cut off** after {seconds(clock() - begin)}, while {part.what}"
            context.short.append(step.title)
            return
    took = seconds(clock() - begin)
    n_failed = len(context.failures) - n_failed
    context.status[step.name] = f"**failed**, {n_failed} of {n_parts} parts ({took})" if n_failed else f"passed ({took})"


def run_steps(context, steps, write_report):
    for step in steps:
        context.status[step.name] = "not run yet"
    for i, step in enumerate(steps):
        later = [s.weight for s in steps[i + 1:] if not s.left_out(context.options)]
        n_failed = len(context.failures)
        run_step(context, step, later, write_report)
        if step.essential and len(context.failures) > n_failed:
            for other in steps[i + 1:]:
                context.status[other.name] = f"**not run**: see {step.title}"
            return
        write_report(context, None)
