"""`rainbow logs RUN`: print what the tasks of a run printed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ..errors import CallError, near
from .options import json_option, print_json
from .runs import OVER, Found, find_run, known_server, prefect_client

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Log

_PAGE = 200
_LATE_SECONDS = 10
_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
_SLICE = re.compile(r"(.+)\[\d+\]\Z")


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
            for line in _followed(client, found, task, pattern):
                click.echo(_text(line))
            return
        names = _names(client, found, task)
        lines = [
            line
            for record in _records(client, found)
            for line in _shown(record, names, task)
            if pattern is None or pattern.search(line["message"])
        ]
    if tail is not None:
        lines = lines[len(lines) - min(tail, len(lines)) :]
    if as_json:
        print_json({"flow_run_id": found.id, "pipeline": found.pipeline, "state": found.state, "lines": lines})
        return
    for line in lines:
        click.echo(_text(line))


def _pattern(grep: str | None) -> re.Pattern[str] | None:
    if grep is None:
        return None
    try:
        return re.compile(grep)
    except re.error as error:
        raise CallError(f"--grep {grep!r} is not a regular expression: {error}") from None


def _text(line: dict[str, Any]) -> str:
    clock = line["time"][11:19]
    task = f"{line['task']} | " if line["task"] else ""
    return f"{clock} {task}{line['message']}"


def _names(client: SyncPrefectClient, found: Found, task: str | None) -> dict[UUID, str]:
    """The names of the task runs.

    Raises:
        CallError: no task of the run is named so.
    """
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    names: dict[UUID, str] = {}
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(found.id)]))
    while page := client.read_task_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(names)):
        names |= {one.id: one.name for one in page}
        if len(page) < _PAGE:
            break
    if task is not None and not any(_is_of(name, task) for name in names.values()):
        known = {found_[1] if (found_ := _SLICE.match(name)) else name for name in names.values()}
        hint = near(task, known) if known else "no task has started yet"
        raise CallError(f"run {found.id} has no task '{task}'; {hint}")
    return names


def _is_of(name: str, task: str) -> bool:
    return name == task or (name.startswith(f"{task}[") and name.endswith("]"))


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


def _shown(log: Log, names: dict[UUID, str], task: str | None) -> Iterator[dict[str, Any]]:
    """A record as lines: what came in masses was sent many lines at a time."""
    name = names.get(log.task_run_id, "") if log.task_run_id else ""
    if task is not None and not _is_of(name, task):
        return
    stamp = log.timestamp.isoformat().replace("+00:00", "Z")
    level = _LEVELS.get(log.level, str(log.level))
    for text in log.message.split("\n"):
        yield {"time": stamp, "task": name or None, "level": level, "message": text}


def _followed(
    client: SyncPrefectClient, found: Found, task: str | None, pattern: re.Pattern[str] | None
) -> Iterator[dict[str, Any]]:
    """Lines as they come. Records arrive out of order: the last seconds are asked for again each time."""
    seen: set[UUID | None] = set()
    since: datetime | None = None
    names: dict[UUID, str] = {}
    quiet_rounds = 0
    while quiet_rounds < 2:
        is_over = find_run(found.id).state in OVER
        fresh = [one for one in _records(client, found, since=since) if one.id not in seen]
        if any(one.task_run_id is not None and one.task_run_id not in names for one in fresh):
            names = _names(client, found, None)
        for one in fresh:
            seen.add(one.id)
            since = one.timestamp - timedelta(seconds=_LATE_SECONDS)
            for line in _shown(one, names, task):
                if pattern is None or pattern.search(line["message"]):
                    yield line
        quiet_rounds = quiet_rounds + 1 if is_over and not fresh else 0
        time.sleep(1)
