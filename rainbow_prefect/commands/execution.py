"""What `run` and `retry` share: parameters, the display, the end of a run as text."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import check
from ..errors import CallError, ConfigError, near
from .options import print_json, print_problems

if TYPE_CHECKING:
    from ..app import Pipeline
    from ..check import Checked
    from ..observers.base import Observer
    from ..plan import Plan
    from ..run import Report, TaskReport
    from ..server import Connection

_UNDEFINED = " is not defined; looked in "
_TAIL_LINES = 5
_OUTPUT_CHARACTERS = 100

param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the pipeline; may be given many times.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show the end only, not what happens on the way.")


def given_parameters(params: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping; the pipeline gives them their types.

    Raises:
        CallError: a word has no `=`, or a key comes twice.
    """
    given: dict[str, str] = {}
    for word in params:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise CallError(f"--param {word.split('=')[0] or '=...'}: write it as KEY=VALUE")
        if key.strip() in given:
            raise CallError(f"--param {key.strip()} is given twice")
        given[key.strip()] = value
    return given


def load(path: Path, *, ready: Callable[[], Connection]) -> Checked:
    """The checked files; names that are found nowhere else are looked up among the Prefect Variables.

    Raises:
        ConfigError: a file is wrong.
    """
    checked = check.check(path)
    if checked.errors and all(_UNDEFINED in one.message for one in checked.errors):
        ready()
        checked = check.check(path, lookup=_prefect_variable, cache=False)
    print_problems(one for one in checked.problems if one.severity == "warning")
    if checked.errors:
        raise ConfigError(checked.errors)
    return checked


def _prefect_variable(name: str) -> Any:
    from ..engine.flow import _lookup

    return _lookup(name)


def pipeline_named(checked: Checked, name: str) -> Pipeline:
    """The pipeline of a run that is known by its name.

    Raises:
        CallError: the files do not have it.
    """
    named = {one.pipeline: one for app in checked.apps for one in app.pipelines}
    if name not in named:
        hint = near(name, named)
        raise CallError(f"there is no pipeline '{name}' in these files{f'; {hint}' if hint else ''}")
    return named[name]


@contextmanager
def watched(plan: Plan, *, quiet: bool, as_json: bool) -> Iterator[Sequence[Observer]]:
    """The observers that show a run while it goes on; all of it on stderr."""
    from ..display import display_of

    if quiet:
        yield ()
        return
    in_ci = bool(os.environ.get("CI"))
    with display_of(plan, sys.stderr, is_terminal=sys.stderr.isatty() and not as_json and not in_ci) as display:
        yield (display,)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM cancel the run and wait until all is stopped; a second one ends this process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def on_signal(number: int, _: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            os._exit(128 + number)
        click.echo("Stopping what runs; once more to end at once.", err=True)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(report: Report, connection: Connection, plan: Plan, path: Path, *, as_json: bool) -> int:
    """Print how a run ended; gives the exit status."""
    link = connection.run_url(report.flow_run_id) or ""
    report.link = link
    if as_json:
        print_json(report.as_dict())
    else:
        for line in _lines(report, plan, path, link):
            click.echo(line)
    return 0 if report.completed else 1


def _lines(report: Report, plan: Plan, path: Path, link: str) -> Iterator[str]:
    from ..display import duration, table, words

    yield ""
    yield from table([_row(one) for one in report.tasks])
    for one in report.tasks:
        if one.state == "failed" and one.log_tail:
            yield ""
            yield f"the last lines of {one.task}:"
            yield from (f"    {line}" for line in one.log_tail[-_TAIL_LINES:])
    yield ""
    why = f": {report.message}" if report.message and not report.completed else ""
    yield f"pipeline {report.pipeline} {words(report.state)} in {duration(report.seconds)}{why}"
    yield from (f"warning: {text}" for text in report.warnings)
    yield f"run:  {link or report.flow_run_id}"
    yield f"next: {_next(report, path)}"


def _row(task: TaskReport) -> tuple[str, ...]:
    from ..display import _MARKS, duration, words

    mark = _MARKS.get(task.state, ("?", ""))[0]
    seconds = duration(task.seconds) if task.state not in ("not_run", "skipped") else ""
    told = task.message if task.state != "completed" else _shown(task)
    return f"{mark} {task.task}", words(task.state), seconds, told.splitlines()[0] if told else ""


def _shown(task: TaskReport) -> str:
    """The output of a task in one line, shortened."""
    import json

    from ..run import Large

    value = task.output
    if isinstance(value, Large):
        return f"output of {value.size_bytes / 1e6:.1f} MB in {value.path}"
    if value is None or (isinstance(value, list) and all(one is None for one in value)):
        return f"{len(task.partitions)} slices" if isinstance(value, list) else ""
    if isinstance(value, list) and any(isinstance(one, Large) for one in value):
        return f"{len(value)} slices"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _OUTPUT_CHARACTERS else f"{text[:_OUTPUT_CHARACTERS]} ..."


def _next(report: Report, path: Path) -> str:
    if report.completed:
        return f"rainbow logs {report.flow_run_id}"
    where = "" if str(path) == "." else f" --path {path}"
    return f"rainbow logs {report.flow_run_id}    then, when it is mended: rainbow retry {report.flow_run_id}{where}"


def typed(pipeline: Pipeline, params: Sequence[str]) -> Mapping[str, Any]:
    """The parameters of the command line, each as its type.

    Raises:
        CallError: one is unknown, missing or of another type.
    """
    given = given_parameters(params)
    pipeline.values(given)
    return given
