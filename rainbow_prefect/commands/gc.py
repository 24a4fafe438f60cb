"""`rainbow gc`: remove what no run needs any more: containers, Jobs of clusters, tasks of ECS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from ..display import duration, table
from ..errors import CallError, RunError
from ..executors._docker_watch import is_gone
from . import leftovers
from .leftovers import Left
from .options import json_option, path_argument, print_json
from .runs import OVER, known_server, prefect_client

_DAY = 24 * 3600
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_WORDS = {"ecs_task": "ECS task", "job": "Job", "task_definition": "task definition"}


@dataclass(frozen=True)
class Orphan:
    """A thing that may go, and why."""

    thing: Left
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "executor": self.thing.executor,
            "kind": self.thing.kind,
            "id": self.thing.id,
            "task": self.thing.task or None,
            "flow_run_id": self.thing.run_id or None,
            "age_seconds": round(self.thing.age_seconds),
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
@path_argument
@click.option("--dry-run", is_flag=True, help="Tell what would be removed; remove nothing.")
@click.option("--older-than", callback=_age, metavar="AGE", help="Look at older things only: 30m, 12h, 2d.")
@click.option("--kept", is_flag=True, help="Remove what `keep_failed` kept, too.")
@click.option("--deregister", is_flag=True, help="Deregister the ECS task definitions that were made for slices, too.")
@click.option("--host", metavar="URL", help="The Docker engine; absent: that of DOCKER_HOST or of the Docker context.")
@json_option
def command(
    path: Path, dry_run: bool, older_than: float | None, kept: bool, deregister: bool, host: str | None, as_json: bool
) -> int:
    """Remove containers, Jobs of Kubernetes and tasks of ECS that no run needs any more.

    Looked at are the Docker engine, and the executors of the files at PATH. A thing goes when its run is over, or when
    the process that started it on this machine is gone; when this Prefect server does not know its run only when it
    is a day old, or older than AGE. Those of a run that is under way stay.
    """
    server = _Server()
    found = leftovers.look(path, host, with_definitions=deregister, connect=server.connect)
    orphans = _orphans(found.things, older_than, kept, _Runs(server))
    results = [(one, "" if dry_run else _removed(one.thing)) for one in orphans]
    gone = [one for one, failure in results if not failure]
    problems = [*found.problems, *(failure for _, failure in results if failure)]
    if as_json:
        print_json({"dry_run": dry_run, "removed": [one.as_dict() for one in gone], "problems": problems})
    else:
        for line in _lines(gone, dry_run=dry_run):
            click.echo(line)
        if not gone and not problems:
            click.echo("there is nothing to remove")
        for text in problems:
            click.echo(f"Error: {text}", err=True)
    return RunError.exit_code if problems else 0


def _lines(found: Sequence[Orphan], *, dry_run: bool) -> list[str]:
    word = "would remove" if dry_run else "removed"
    return table([(word, *_cells(one.thing), one.reason) for one in found])


def _cells(one: Left) -> tuple[str, ...]:
    kind = _WORDS.get(one.kind, one.kind)
    return one.executor, f"{kind} {one.shown}", one.task, f"{duration(one.age_seconds)} old"


def _removed(one: Left) -> str:
    """Remove a thing; gives why not, '' when it is gone."""
    try:
        one.remove()
    except RunError as error:
        return str(error)
    return ""


def _orphans(things: Sequence[Left], older_than: float | None, kept: bool, runs: _Runs) -> list[Orphan]:
    old = [one for one in things if older_than is None or one.age_seconds >= older_than]
    return [Orphan(one, reason) for one in old if (reason := _reason(one, older_than, kept, runs))]


def _reason(one: Left, older_than: float | None, kept: bool, runs: _Runs) -> str:
    """Why a thing may go; '' when it must stay."""
    if one.kind == "task_definition":
        return "it is registered again when a slice needs it"
    if one.is_kept:
        return "it was kept by keep_failed" if kept else ""
    gone = is_gone(one.owner)
    if gone:
        return "the process that started it is gone"
    state = runs.state(one.run_id)
    if state in OVER:
        return f"its run is over ({state})"
    if state == "unknown" and gone is None and (older_than is not None or one.age_seconds > _DAY):
        return "its run is not known to the Prefect server"
    return ""


class _Server:
    """The Prefect server, which is not needed before something asks for it."""

    def __init__(self) -> None:
        self._is_known = False

    def connect(self) -> None:
        if not self._is_known:
            known_server()
            self._is_known = True


class _Runs:
    """The states of runs, each asked for once."""

    def __init__(self, server: _Server) -> None:
        self._states: dict[str, str] = {}
        self._server = server

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
        self._server.connect()
        with prefect_client() as client:
            try:
                return read_run(client, number).state
            except CallError:
                return "unknown"
