"""`rainbow logs RUN`: print what the tasks of a run printed."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import click

from ..errors import CallError, near
from .options import json_option, print_json
from .runs import OVER, Found, find_run, known_server, prefect_client, read_run

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Log

_PAGE = 200
_LATE_SECONDS = 10
_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


@dataclass(frozen=True)
class Line:
    """One line of the log; `time` is ISO 8601 in UTC, `task` the name of the task run, None when the run itself says it."""

    time: str
    task: str | None
    level: str
    message: str

    def __str__(self) -> str:
        task = f"{self.task} | " if self.task else ""
        return f"{self.time[11:19]} {task}{self.message}"


@click.command()
@click.argument("run")
@click.option("--task", metavar="NAME", help="Only this task, `add`, or this slice of it, `add[3]`.")
@click.option("--grep", metavar="REGEX", help="Only lines that contain this pattern.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run is over.")
@json_option
def command(run: str, task: str | None, grep: str | None, tail: int | None, follow: bool, as_json: bool) -> None:
    """Print what the tasks of a run printed, line by line.

    RUN is its id, the first letters of it, its name, or `last`.
    """
    pattern = _pattern(grep)
    if follow and (as_json or tail is not None):
        raise CallError("--follow goes with neither --json nor --tail")
    known_server()
    found = find_run(run)
    with prefect_client() as client:
        if follow:
            _print(_matching(_followed(client, found, task), pattern))
            return
        names = _names(client, found)
        _check_task(found, names, task)
        lines = _matching(_lines(_records(client, found), names, task), pattern)
        if tail is not None:
            lines = iter(deque(lines, tail))
        if as_json:
            shown = [asdict(line) for line in lines]
            print_json({"flow_run_id": found.id, "pipeline": found.pipeline, "state": found.state, "lines": shown})
        else:
            _print(lines)


def _print(lines: Iterable[Line]) -> None:
    for line in lines:
        click.echo(str(line))


def _pattern(grep: str | None) -> re.Pattern[str] | None:
    if grep is None:
        return None
    try:
        return re.compile(grep)
    except re.error as error:
        raise CallError(f"--grep {grep!r} is not a regular expression: {error}") from None


def _matching(lines: Iterable[Line], pattern: re.Pattern[str] | None) -> Iterator[Line]:
    return (line for line in lines if pattern is None or pattern.search(line.message))


# -- names of tasks


def _names(client: SyncPrefectClient, found: Found) -> dict[UUID, str]:
    """The names of the task runs of a run."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    names: dict[UUID, str] = {}
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(found.id)]))
    while page := client.read_task_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(names)):
        names |= {one.id: one.name for one in page}
        if len(page) < _PAGE:
            break
    return names


def _check_task(found: Found, names: dict[UUID, str], task: str | None) -> None:
    if task is None or any(_is_of(name, task) for name in names.values()):
        return
    known = {re.sub(r"\[\d+\]\Z", "", name) for name in names.values()}
    hint = near(task, known) if known else "no task has started"
    raise CallError(f"run {found.id} has no task '{task}'{f'; {hint}' if hint else ''}")


def _is_of(name: str, task: str) -> bool:
    return name == task or (name.startswith(f"{task}[") and name.endswith("]"))


# -- records


def _records(client: SyncPrefectClient, found: Found, *, since: datetime | None = None) -> Iterator[Log]:
    """The log records of a run in the order of their times, a page at a time."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
    from prefect.client.schemas.sorting import LogSort

    wanted = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=[UUID(found.id)]),
        timestamp=None if since is None else LogFilterTimestamp(after_=since),
    )
    count = 0
    while page := client.read_logs(log_filter=wanted, limit=_PAGE, offset=count, sort=LogSort.TIMESTAMP_ASC):
        count += len(page)
        yield from page
        if len(page) < _PAGE:
            return


def _lines(records: Iterable[Log], names: dict[UUID, str], task: str | None) -> Iterator[Line]:
    """Records as lines: what came in masses was sent many lines at a time."""
    for record in records:
        name = names.get(record.task_run_id) if record.task_run_id else None
        if task is not None and not _is_of(name or "", task):
            continue
        stamp = record.timestamp.isoformat().replace("+00:00", "Z")
        level = _LEVELS.get(record.level, str(record.level))
        for text in record.message.split("\n"):
            yield Line(stamp, name, level, text)


def _followed(client: SyncPrefectClient, found: Found, task: str | None) -> Iterator[Line]:
    """Lines as they come. Records arrive late and out of order: the last seconds are asked for again each time."""
    seen: dict[UUID, datetime] = {}
    names: dict[UUID, str] = {}
    since: datetime | None = None
    quiet_rounds = 0
    while quiet_rounds < 2:
        is_over = read_run(client, UUID(found.id)).state in OVER
        fresh = [one for one in _records(client, found, since=since) if one.id is not None and one.id not in seen]
        if any(one.task_run_id is not None and one.task_run_id not in names for one in fresh):
            names = _names(client, found)
        seen |= {one.id: one.timestamp for one in fresh if one.id is not None}
        yield from _lines(fresh, names, task)
        if fresh:
            since = max(seen.values()) - timedelta(seconds=_LATE_SECONDS)
            seen = {key: stamp for key, stamp in seen.items() if stamp >= since}
        quiet_rounds = quiet_rounds + 1 if is_over and not fresh else 0
        if quiet_rounds < 2:
            time.sleep(1)
    if not names:
        names = _names(client, found)
    _check_task(found, names, task)
