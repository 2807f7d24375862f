"""report.md: what there is by now."""

import os

from . import machine


def write(context, steps, state):
    """`state`: its first line; None while steps are running."""
    o = context.options
    if state is None:
        state = f"**Not complete**: it is {context.doing}."
    text = [f"# Turbo types on {o.device}", "", state, "", "## Machine", "", context.machine, "## Steps", "", "| step | |", "|---|---|"]
    text += [f"| {step.title} | {context.status[step.name]} |" for step in steps]
    for step in steps:
        section = step.section(context)
        if section:
            text += ["", f"## {step.title}", ""] + ([step.about, ""] if step.about else []) + [section]
    if context.failures:
        text += ["", "## What failed", ""] + [f"- {failure}" for failure in context.failures]
    part = o.out / "report.md.part"
    part.write_text("\n".join(text) + "\n")
    os.replace(part, o.out / "report.md")


def last_line(context):
    """The report's first line, once all that can run has run."""
    if context.short:
        what = ", with failures" if context.failures else ""
        rest = "See the end for failures." if context.failures else "What ran passed."
        return (f"**Out of time{what}**: {context.options.minutes:g} minutes were not enough for: {'; '.join(context.short)}. {rest} "
                "`--continue` goes on.")
    if context.failures:
        return "**Complete, with failures**: see the end."
    return "**Complete**: everything passed."
