"""`rainbow runs`: list the latest runs; and finding one run by what a person calls it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from .. import server
from ..display import duration, table, words
from ..errors import CallError, RunError, near
from ..masking import mask_url
from .options import json_option, print_json, quiet_prefect

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun

STATES = (
    "scheduled",
    "pending",
    "running",
    "completed",
    "failed",
    "timed_out",
    "cancelling",
    "cancelled",
    "crashed",
    "paused",
)
OVER = ("completed", "failed", "timed_out", "cancelled", "crashed")
_LAST = ("last", "latest")
_TYPES = {"timed_out": "failed"}
_PAGE = 200
_SEARCHED = 2000
_SOME = 5
_MONTH = 30 * 24 * 3600


@dataclass(frozen=True)
class Found:
    """A flow run as the commands need it; `state` in the words of the report, times in UTC."""

    id: str
    name: str
    pipeline: str
    state: str
    message: str
    started: datetime | None
    seconds: float
    tags: tuple[str, ...]
    path: Path | None = None
    """Where its pipeline was found; None when another machine or an older version started it."""

    def as_dict(self, link: str | None) -> dict[str, Any]:
        return {
            "flow_run_id": self.id,
            "name": self.name,
            "pipeline": self.pipeline,
            "state": self.state,
            "message": self.message,
            "started": None if self.started is None else self.started.isoformat().replace("+00:00", "Z"),
            "seconds": round(self.seconds, 3),
            "tags": list(self.tags),
            "link": link,
        }


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """Prefect's client; a server that goes away or breaks is told as `RunError`."""
    import httpx
    from prefect.client.orchestration import get_client

    url = ""
    try:
        with get_client(sync_client=True) as client:
            url = mask_url(str(client.api_url)).rstrip("/")
            yield client
    except httpx.TransportError as error:
        why = str(error) or type(error).__name__
        raise RunError(f"the Prefect server at {url} does not answer ({why}); is it running?") from error
    except httpx.HTTPStatusError as error:
        answer = error.response
        raise RunError(
            f"the Prefect server at {url} answered {answer.status_code} {answer.reason_phrase}; its log says why"
        ) from error


def known_server() -> server.Connection:
    """The server that has the runs; without a running one, one for this command on the same database."""
    connection = server.connect(tell=lambda text: click.echo(text, err=True))
    quiet_prefect()
    return connection


def found_of(run: FlowRun, pipeline: str) -> Found:
    state = run.state
    name = "pending" if state is None else _state(state.name or "", state.type.value)
    seconds = (run.total_run_time or run.estimated_run_time).total_seconds()
    return Found(
        str(run.id),
        run.name,
        pipeline,
        name,
        (state.message or "") if state else "",
        run.start_time,
        seconds,
        tuple(run.tags),
        _path(run.context.get("rainbow.path")),
    )


def _path(found: Any) -> Path | None:
    return Path(found) if isinstance(found, str) and found else None


def _state(name: str, kind: str) -> str:
    return "timed_out" if name == "TimedOut" else kind.lower()


def flow_names(client: SyncPrefectClient, runs: list[FlowRun]) -> dict[UUID, str]:
    """The names of the flows of these runs."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterId

    ids = list({run.flow_id for run in runs})
    if not ids:
        return {}
    names: dict[UUID, str] = {}
    for start in range(0, len(ids), 100):
        wanted = FlowFilter(id=FlowFilterId(any_=ids[start : start + 100]))
        names |= {flow.id: flow.name for flow in client.read_flows(flow_filter=wanted, limit=200)}
    return names


def read_runs(
    client: SyncPrefectClient, *, pipeline: str | None = None, states: Collection[str] = (), name: str | None = None
) -> Iterator[Found]:
    """The runs, the newest first, a page at a time; those that are to come only when `scheduled` is asked for."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    flow = None if pipeline is None else FlowFilter(name=FlowFilterName(any_=[pipeline]))
    wanted = _filter(states, name)
    names: dict[UUID, str] = {}
    seen: set[str] = set()
    offset = 0
    while True:
        page = client.read_flow_runs(
            flow_filter=flow,
            flow_run_filter=wanted,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=offset,
        )
        names |= flow_names(client, [run for run in page if run.flow_id not in names])
        for run in page:
            found = found_of(run, names.get(run.flow_id, "?"))
            if found.id not in seen and (not states or found.state in states):
                seen.add(found.id)
                yield found
        offset += len(page)
        if len(page) < _PAGE:
            return


def _filter(states: Collection[str], name: str | None) -> FlowRunFilter:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterName,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    types = {StateType(_TYPES.get(one, one).upper()) for one in states}
    soon = datetime.now(UTC) + timedelta(minutes=1)
    return FlowRunFilter(
        name=None if name is None else FlowRunFilterName(any_=[name]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(types))) if types else None,
        expected_start_time=None if "scheduled" in states else FlowRunFilterExpectedStartTime(before_=soon),
    )


def find_run(called: str, *, states: Collection[str] = ()) -> Found:
    """The run with this id, beginning of an id, or name; `last` is the latest, in one of `states` if there is any.

    Raises:
        CallError: there is none, or more than one.
        RunError: the server does not answer.
    """
    with prefect_client() as client:
        if called in _LAST:
            found = next(read_runs(client, states=states), None) if states else None
            found = found or next(read_runs(client), None)
            if found is None:
                raise CallError("there is no run yet; start one: rainbow run")
            return found
        try:
            run_id = UUID(called)
        except ValueError:
            return _by_words(client, called)
        return read_run(client, run_id)


def read_run(client: SyncPrefectClient, run_id: UUID) -> Found:
    """The run with this id as it is now.

    Raises:
        CallError: there is none.
    """
    from prefect.exceptions import ObjectNotFound

    try:
        run = client.read_flow_run(run_id)
        return found_of(run, client.read_flow(run.flow_id).name)
    except ObjectNotFound:
        raise CallError(f"there is no run '{run_id}'; `rainbow runs` lists them") from None


def _by_words(client: SyncPrefectClient, called: str) -> Found:
    """The run with this name, else the one whose id begins so."""
    known: list[Found] = []
    fitting = list(islice(read_runs(client, name=called), _SOME))
    if not fitting:
        known = list(islice(read_runs(client), _SEARCHED))
        fitting = [one for one in known if one.id.startswith(called.lower())]
    if not fitting:
        hint = near(called, [one.name for one in known], list_up_to=0)
        raise CallError(f"there is no run '{called}'; {hint or '`rainbow runs` lists them'}")
    if len(fitting) > 1:
        some = ", ".join(one.id for one in fitting[:_SOME])
        raise CallError(f"'{called}' fits more than one run: {some}; give more of the id")
    return fitting[0]


@click.command()
@click.option("--pipeline", "-p", metavar="NAME", help="Only runs of this pipeline.")
@click.option(
    "--state", "states", multiple=True, metavar="STATE", help=f"Only runs in this state: {', '.join(STATES)}."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@json_option
def command(pipeline: str | None, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the latest runs, the newest first."""
    wanted = tuple(one.lower() for one in states)
    for one in wanted:
        if one not in STATES:
            raise CallError(f"unknown state '{one}'; {near(one, STATES)}")
    connection = known_server()
    with prefect_client() as client:
        runs = list(islice(read_runs(client, pipeline=pipeline, states=wanted), limit))
    if as_json:
        print_json({"runs": [one.as_dict(connection.run_url(one.id)) for one in runs]})
        return
    if not runs:
        click.echo("no runs")
        return
    head = ("RUN", "NAME", "PIPELINE", "STATE", "STARTED", "TOOK")
    for line in table([head, *(_cells(one) for one in runs)]):
        click.echo(line)


def _cells(run: Found) -> tuple[str, ...]:
    took = duration(run.seconds) if run.seconds else ""
    return run.id, run.name, run.pipeline, words(run.state), _ago(run.started), took


def _ago(when: datetime | None) -> str:
    if when is None:
        return ""
    seconds = (datetime.now(UTC) - when).total_seconds()
    if seconds < 60:
        return "now" if seconds < 5 else f"{seconds:.0f} s ago"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min ago"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h ago"
    return f"{seconds / 86400:.0f} days ago" if seconds < _MONTH else when.date().isoformat()
