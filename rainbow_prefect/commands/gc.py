"""`rainbow gc`: remove containers that no run needs any more."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import click

from ..display import duration, table
from ..errors import CallError, RunError
from ..executors._docker_engine import FLOW_RUN, KEEP, OWNER, Engine, engine
from ..executors._docker_watch import is_gone
from .options import json_option, print_json
from .runs import OVER, known_server, prefect_client

_DAY = 24 * 3600
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_SHOWN = 12


@dataclass(frozen=True)
class Orphan:
    """A container that may go, and why."""

    id: str
    task: str
    run_id: str
    age_seconds: float
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "container": self.id,
            "task": self.task,
            "flow_run_id": self.run_id,
            "age_seconds": round(self.age_seconds),
            "reason": self.reason,
        }


def _age(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = _AGE.match(value.strip())
    if found is None:
        raise click.BadParameter(f"'{value}' is not an age; write e.g. 30m, 12h or 2d")
    return float(found[1]) * _UNITS[found[2]]


@click.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be removed; remove nothing.")
@click.option("--older-than", callback=_age, metavar="AGE", help="Look at older containers only: 30m, 12h, 2d.")
@click.option("--kept", is_flag=True, help="Remove containers that `keep_failed` kept, too.")
@click.option("--host", metavar="URL", help="The engine; absent: that of DOCKER_HOST or of the Docker context.")
@json_option
def command(dry_run: bool, older_than: float | None, kept: bool, host: str | None, as_json: bool) -> int:
    """Remove containers that no run needs any more.

    A container goes when its run is over, or when the process that started it on this machine is gone; one of another
    machine whose run this Prefect server does not know only when it is a day old, or older than AGE. Those of a run
    that is under way stay.
    """
    where = engine(host)
    found = _orphans(where, older_than, kept)
    failed = [] if dry_run else [text for one in found if (text := _removed(where, one))]
    if as_json:
        print_json({"dry_run": dry_run, "removed": [one.as_dict() for one in found], "problems": failed})
    else:
        for line in _lines(found, dry_run=dry_run):
            click.echo(line)
        for text in failed:
            click.echo(f"Error: {text}", err=True)
    return RunError.exit_code if failed else 0


def _lines(found: list[Orphan], *, dry_run: bool) -> list[str]:
    if not found:
        return ["there is nothing to remove"]
    word = "would remove" if dry_run else "removed"
    rows = [(word, one.id[:_SHOWN], one.task, f"{duration(one.age_seconds)} old", one.reason) for one in found]
    return table(rows)


def _removed(where: Engine, one: Orphan) -> str:
    """Remove a container; gives why not, '' when it is gone."""
    try:
        where.remove(one.id)
    except RunError as error:
        return str(error)
    return ""


def _orphans(where: Engine, older_than: float | None, kept: bool) -> list[Orphan]:
    runs = _Runs()
    found = []
    for one in where.containers(FLOW_RUN):
        labels = one["Labels"]
        age = max(0.0, time.time() - one["Created"])
        if older_than is not None and age < older_than:
            continue
        if labels.get(KEEP) == "true" and one["State"] == "exited":
            reason = "it was kept by keep_failed" if kept else ""
        else:
            reason = _reason(labels, age, older_than, runs)
        if reason:
            found.append(Orphan(one["Id"], labels.get("rainbow.task", ""), labels[FLOW_RUN], age, reason))
    return found


def _reason(labels: Mapping[str, str], age: float, older_than: float | None, runs: _Runs) -> str:
    """Why a container may go; '' when it must stay."""
    gone = is_gone(labels.get(OWNER, ""))
    if gone:
        return "the process that started it is gone"
    state = runs.state(labels[FLOW_RUN])
    if state in OVER:
        return f"its run is over ({state})"
    if state == "unknown" and gone is None and (older_than is not None or age > _DAY):
        return "its run is not known to the Prefect server"
    return ""


class _Runs:
    """The states of runs, each asked for once; the server is not needed before."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._is_connected = False

    def state(self, run_id: str) -> str:
        """The state in the words of a report; `unknown` when the server has no such run."""
        if run_id not in self._states:
            self._states[run_id] = self._asked(run_id)
        return self._states[run_id]

    def _asked(self, run_id: str) -> str:
        from .runs import read_run

        try:
            number = UUID(run_id)
        except ValueError:
            return "unknown"
        if not self._is_connected:
            known_server()
            self._is_connected = True
        with prefect_client() as client:
            try:
                return read_run(client, number).state
            except CallError:
                return "unknown"
