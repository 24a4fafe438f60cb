"""`rainbow plan [PATH] --pipeline NAME`: the tasks of a pipeline as a drawing, as Mermaid, as JSON."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import plan
from ..masking import redact, secret_values, sensitive
from .options import counted, json_option, load_pipeline, path_argument, pipeline_option, print_json

if TYPE_CHECKING:
    from ..images.decide import Decision
    from ..plan import Plan, Step


@click.command()
@path_argument
@pipeline_option
@click.option("--executor", metavar="NAME", help="As `rainbow run --executor`: every task there.")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart, for Markdown.")
@json_option
def command(path: Path, pipeline: str | None, executor: str | None, mermaid: bool, as_json: bool) -> None:
    """Draw the tasks of a pipeline in the order in which they run."""
    planned = plan.plan(load_pipeline(path, pipeline), executor=executor)
    secrets = list(_secrets(planned))
    if as_json:
        images = [one.as_dict() for one in _images(planned)]
        print_json(redact({**planned.as_dict(), **({"images": images} if images else {})}, secrets))
    elif mermaid:
        click.echo(_writable("\n".join(_mermaid(planned))))
    else:
        told = [f"image {one.image}: {one.action}, {one.reason}" for one in _images(planned)]
        click.echo(_writable("\n".join([*_drawing(planned, secrets), *told])))


def _images(planned: Plan) -> list[Decision]:
    """What a run would do about the images of its tasks; nothing where no executor runs images."""
    steps = {step.name: step.executor for step in planned.steps}
    if not any(executor.runs_images for executor in steps.values()):
        return []
    from ..images.decide import decide
    from ..images.recipes import needed

    return decide(needed(planned, lambda task: steps[task.task].runs_images))


def _secrets(planned: Plan) -> Iterator[str]:
    """What a command may hold that nobody should read: values of the file and of the environment named like secrets."""
    yield from secret_values(planned.app.data)
    yield from (value for name, value in os.environ.items() if sensitive(name))


# -- text


def _drawing(planned: Plan, secrets: Sequence[str] = ()) -> Iterator[str]:
    """One line per task: its place in the graph, its slices, its executor, what it runs and needs.

    Tasks below each other run one after the other; where several start from one, each has a branch.
    """
    yield f"{planned.pipeline.pipeline}  ({counted(len(planned.steps), 'task')})"
    rows = list(_tree(planned.steps))
    columns = [[f"{lines}{step.name}", _slices(step), step.executor_name] for lines, step in rows]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    for cells, (_, step) in zip(columns, rows, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True) if width)
        yield f"{line}  {'; '.join(_facts(step, secrets))}".rstrip()


def _tree(steps: Sequence[Step]) -> Iterator[tuple[str, Step]]:
    """Every step once with the lines in front of it; it hangs below the last of those it needs."""
    order = {step.name: index for index, step in enumerate(steps)}
    below: dict[str | None, list[Step]] = {}
    for step in steps:
        below.setdefault(max(step.needs, key=order.__getitem__, default=None), []).append(step)
    waiting = _branches(below.get(None, []), "")
    while waiting:
        mark, rest, step = waiting.pop()
        yield mark, step
        waiting += _branches(below.get(step.name, []), rest)


def _branches(steps: Sequence[Step], lines: str) -> list[tuple[str, str, Step]]:
    """Steps that start from the same place, the first one last: (lines of it, lines of what follows it, step)."""
    if len(steps) == 1:
        return [(f"{lines}● ", lines, steps[0])]
    branches = [(f"{lines}├─● ", f"{lines}│ ", step) for step in steps[:-1]]
    last = [(f"{lines}└─● ", f"{lines}  ", step) for step in steps[-1:]]
    return [*last, *reversed(branches)]


def _slices(step: Step) -> str:
    if step.partitions is None:
        return "x ?"
    return f"x {step.partitions}" if step.task.is_split else ""


def _facts(step: Step, secrets: Sequence[str]) -> Iterator[str]:
    """What else is worth a word: command, needs, condition, retries, time limit."""
    if command := step.task.command_line():
        is_shell = len(command) == 3 and command[0].endswith("sh") and command[1] == "-c"
        yield _shortened(redact(command[2] if is_shell else shlex.join(command), secrets))
    if len(step.needs) > 1:
        yield f"needs {', '.join(step.needs)}"
    if step.when != "on_success":
        yield f"when {step.when}"
    if step.retries:
        yield counted(step.retries, "retry", "retries")
    if step.timeout_seconds is not None:
        yield f"at most {step.timeout_seconds / 60:g} min"


def _shortened(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _writable(text: str) -> str:
    """The same drawing in ASCII where stdout can write no more."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(str.maketrans("●├└│─", "*|`|-"))
    return text


# -- Mermaid


def _mermaid(planned: Plan) -> Iterator[str]:
    """A flowchart; a split task is a stack, dashed edges lead to tasks that do not need a success."""
    ids = {step.name: f"t{index}" for index, step in enumerate(planned.steps)}
    yield "flowchart TD"
    for step in planned.steps:
        label = " ".join(part for part in (step.name, _slices(step)) if part)
        left, right = ('@{ shape: procs, label: "', '" }') if step.task.is_split else ('["', '"]')
        yield f"    {ids[step.name]}{left}{label}{right}"
    for step in planned.steps:
        arrow = "-->" if step.when == "on_success" else f"-. {step.when} .->"
        yield from (f"    {ids[name]} {arrow} {ids[step.name]}" for name in step.needs)
