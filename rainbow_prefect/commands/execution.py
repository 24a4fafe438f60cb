"""What `run` and `retry` share: parameters, the display, Ctrl-C, and the end of a run as text."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import check
from ..errors import CallError, ConfigError
from .options import choose, print_json, print_problems

if TYPE_CHECKING:
    from ..app import Pipeline
    from ..display import Live, Plain
    from ..observers.base import Observer
    from ..plan import Plan
    from ..run import PartitionReport, Report, TaskReport
    from ..server import Connection

_UNDEFINED = " is not defined; looked in "
_TAIL_LINES = 5
_SHOWN_SLICES = 5
_CHARACTERS = 120
_ID_CHARACTERS = 8
_LAST_WORD_SECONDS = 2.0
_COLOURS = {"completed": "green", "failed": "red", "timed_out": "red", "cancelled": "yellow"}

param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the pipeline; may be given many times.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show the end only, not what happens on the way.")


# -- before


def given_parameters(params: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping; the pipeline gives them their types.

    Raises:
        CallError: a word has no `=`, or a key comes twice.
    """
    given: dict[str, str] = {}
    for word in params:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise CallError(f"--param {key.strip() or '=...'}: write it as KEY=VALUE")
        if key.strip() in given:
            raise CallError(f"--param {key.strip()} is given twice")
        given[key.strip()] = value
    return given


def load(path: Path, name: str | None, *, ready: Callable[[], Connection]) -> Pipeline:
    """The pipeline of this name, or the only one; warnings, and the problems of other files, go to stderr.

    Names in placeholders that are found nowhere else are looked up among the Prefect Variables.

    Raises:
        ConfigError: its file is wrong, or no pipeline is named and any file is.
        CallError: there is no such pipeline, or a name is needed.
    """
    checked = check.check(path)
    if checked.errors and all(_UNDEFINED in one.message for one in checked.errors):
        ready()
        checked = check.check(path, lookup=_prefect_variable, cache=False)
    named = {one.pipeline: one for app in checked.apps for one in app.pipelines}
    if checked.errors and name not in named:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    return choose(named, name, "pipeline")


def _prefect_variable(name: str) -> Any:
    from ..engine.flow import variable

    return variable(name)


# -- while it runs


@dataclass
class Watch:
    """What looks at a run while it goes on: who is told of events, and whether somebody asked it to stop."""

    observers: Sequence[Observer] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    run_id: str = ""
    is_over: bool = False

    def started(self, run_id: str, _: str) -> None:
        self.run_id = run_id


@contextmanager
def watched(plan: Plan, *, quiet: bool, as_json: bool) -> Iterator[Watch]:
    """Show on stderr what happens; Ctrl-C, SIGTERM and a terminal that is closed cancel the run, a second one ends it at once."""
    from ..display import display_of

    watch = Watch()
    with _own_stdout(as_json), _interruptible(watch):
        if quiet:
            yield watch
            return
        is_terminal = sys.stderr.isatty() and not as_json and not os.environ.get("CI")
        with display_of(plan, sys.stderr, is_terminal=is_terminal) as display:
            watch.observers = (display,)
            threading.Thread(target=_tell_stop, args=(watch, display), daemon=True).start()
            yield watch


def _tell_stop(watch: Watch, display: Plain | Live) -> None:
    """Say so when a run is being stopped; never from a signal handler, which may not print."""
    watch.stop.wait()
    if not watch.is_over:
        display.say("stopping what runs; Ctrl-C once more ends it at once")


@contextmanager
def _own_stdout(alone: bool) -> Iterator[None]:
    """Send to stderr what anything, be it a child process, writes to stdout, which is for the report alone."""
    if not alone:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _interruptible(watch: Watch) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: Any) -> None:
        if watch.stop.is_set():
            _end_at_once(watch.run_id, 128 + number)
        watch.stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {one: signal.getsignal(one) for one in numbers if signal.getsignal(one) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        watch.is_over = True
        watch.stop.set()


def _end_at_once(run_id: str, status: int) -> None:
    """End this process; what it started ends with it. Prefect is told if it listens."""
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")
    if run_id:
        teller = threading.Thread(target=_tell_prefect, args=(run_id,), daemon=True)
        teller.start()
        teller.join(_LAST_WORD_SECONDS)
    os._exit(status)


def _tell_prefect(run_id: str) -> None:
    from .cancel import set_cancelled

    with suppress(Exception):
        set_cancelled(run_id, "interrupted twice")


# -- the end


def finish(report: Report, connection: Connection, *, as_json: bool) -> int:
    """Print how a run ended; gives the exit status."""
    report.link = connection.run_url(report.flow_run_id) or ""
    if as_json:
        print_json(report.as_dict())
    else:
        for line in _lines(report):
            click.echo(line)
        for text in report.warnings:
            click.echo(f"warning: {text}", err=True)
    return 0 if report.completed else 1


def _lines(report: Report) -> Iterator[str]:
    from ..display import duration, harmless, table, words

    yield ""
    for line, task in zip(table([_row(one) for one in report.tasks]), report.tasks, strict=True):
        yield _coloured(line, task.state)
    for task in report.tasks:
        if task.state == "failed" or (task.state == "completed" and len(task.partitions) > 1):
            yield from map(harmless, _why(task))
    yield ""
    why = f": {report.message}" if report.message and report.state not in ("completed", "failed") else ""
    yield _coloured(
        f"{report.pipeline} {words(report.state)} in {duration(report.seconds)}{why}", report.state, all_=True
    )
    if report.link:
        yield f"run    {report.link}"
    else:
        yield f"run    {report.flow_run_id}; `rainbow server start` shows it in the Prefect UI"
    yield f"next   {_next(report)}"


def _coloured(line: str, state: str, *, all_: bool = False) -> str:
    colour = _COLOURS.get(state)
    if colour is None or os.environ.get("NO_COLOR"):
        return line
    cut = len(line) if all_ else 1
    return click.style(line[:cut], fg=colour, bold=all_) + line[cut:]


def _row(task: TaskReport) -> tuple[str, ...]:
    from ..display import can_write, duration, mark_of, words

    seconds = duration(task.seconds) if task.state not in ("not_run", "skipped") else ""
    mark = mark_of(task.state, plain=not can_write(sys.stdout))
    return f"{mark} {task.task}", words(task.state), seconds, _one_line(_told(task))


def _told(task: TaskReport) -> str:
    """What is worth knowing of a task in one line: its output, or how it failed."""
    is_split = len(task.partitions) > 1
    bad = [one for one in task.partitions if one.state != "completed"]
    if is_split and bad:
        return f"{len(bad)} of {len(task.partitions)} slices did not complete"
    if task.state != "completed" or bad:
        return task.message
    return _output(task)


def _output(task: TaskReport) -> str:
    from ..run import Large

    value = task.output
    if isinstance(value, Large):
        return f"output of {value.size_bytes / 1e6:.1f} MB"
    slices = f"{len(task.partitions)} slices" if len(task.partitions) > 1 else ""
    if value is None or (isinstance(value, list) and all(one is None or isinstance(one, Large) for one in value)):
        return slices
    return json.dumps(value, ensure_ascii=False, default=str)


def _one_line(text: str) -> str:
    """The first line, as much of it as fits well."""
    from ..display import harmless

    line = harmless(text.strip().split("\n")[0])
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]} ..."


def _why(task: TaskReport) -> Iterator[str]:
    """The slices of a split task that failed, each with its input; else the last lines that the task printed."""
    if len(task.partitions) > 1:
        bad = [one for one in task.partitions if one.state not in ("completed", "not_run", "cancelled")]
        for one in bad[:_SHOWN_SLICES]:
            yield ""
            yield f"{task.task}[{one.index}] {one.state.replace('_', ' ')}: {_one_line(one.message)}"
            yield f"    its input: {_one_line(_input(one))}"
        if len(bad) > _SHOWN_SLICES:
            yield f"... and {len(bad) - _SHOWN_SLICES} more slices"
    elif task.log_tail:
        yield ""
        yield f"the last lines of {task.task}:"
        yield from (f"    {line}" for line in task.log_tail[-_TAIL_LINES:])


def _input(one: PartitionReport) -> str:
    from ..run import Large

    if isinstance(one.input, Large):
        return f"{one.input.size_bytes / 1e6:.1f} MB"
    return json.dumps(one.input, ensure_ascii=False, default=str)


def _next(report: Report) -> str:
    """The command to try now."""
    run = report.flow_run_id[:_ID_CHARACTERS]
    if report.completed:
        return f"rainbow logs {run}"
    if report.state == "cancelled":
        return f"rainbow retry {run}"
    failed = next((one.task for one in report.tasks if one.state == "failed"), None)
    task = "" if failed is None else f" --task {shlex.quote(failed)}"
    return f"rainbow logs {run}{task}; when it is mended: rainbow retry {run}"


def typed(pipeline: Pipeline, params: Sequence[str]) -> Mapping[str, Any]:
    """The parameters of the command line, each as its type.

    Raises:
        CallError: one is unknown, missing or of another type.
    """
    given = given_parameters(params)
    pipeline.values(given)
    return given
