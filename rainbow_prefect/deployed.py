"""Runs of deployed pipelines: found, started and followed over Prefect's REST API, without importing Prefect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .api_client import Api
from .errors import CallError, near

OVER = frozenset({"completed", "failed", "timed_out", "cancelled", "crashed"})
"""The states in which a run ends."""

BACKFILL = "rainbow.backfill"
"""The tag of runs that a backfill started."""

_ID_LATE_SECONDS = 3.0
_STACK = "Engine execution exited with unexpected exception"
_SCHEDULED = {"type": "SCHEDULED", "state_details": {}}


@dataclass(frozen=True)
class Deployment:
    """A deployed pipeline."""

    id: str
    flow: str
    name: str
    schema: Mapping[str, Any]
    defaults: Mapping[str, Any]
    pool: str | None


@dataclass(frozen=True)
class RunState:
    """How a run is; `state` in the words of reports."""

    id: str
    name: str
    state: str
    message: str
    seconds: float
    key: str | None = None

    @property
    def is_over(self) -> bool:
        return self.state in OVER


def find(api: Api, pipeline: str, app: str | None = None) -> Deployment | None:
    """The deployment of a pipeline, of this app if it is named; None when it is not deployed.

    Raises:
        CallError: it is deployed more than once.
    """
    asked: dict[str, Any] = {"flows": {"name": {"any_": [pipeline]}}}
    if app is not None:
        asked["deployments"] = {"name": {"any_": [app]}}
    records = api.pages("deployments/filter", asked)
    if len(records) > 1:
        names = ", ".join(sorted(one["name"] for one in records))
        raise CallError(f"pipeline '{pipeline}' is deployed more than once; add --app NAME: {names}")
    if not records:
        return None
    one = records[0]
    schema = one.get("parameter_openapi_schema") or {}
    return Deployment(one["id"], pipeline, one["name"], schema, one.get("parameters") or {}, one.get("work_pool_name"))


def names(api: Api) -> list[str]:
    """The pipelines that are deployed there."""
    flows = {one["flow_id"] for one in api.pages("deployments/filter", {})}
    found = api.pages("flows/filter", {"flows": {"id": {"any_": sorted(flows)}}}) if flows else []
    return sorted(one["name"] for one in found)


def typed(deployment: Deployment, given: Mapping[str, str]) -> dict[str, Any]:
    """Texts of a command line as the deployment's parameters.

    Raises:
        CallError: one is unknown, missing or of another type; tells all.
    """
    known: Mapping[str, Any] = deployment.schema.get("properties") or {}
    problems, values = [], {}
    for name, text in given.items():
        if name not in known:
            hint = near(name, known)
            problems.append(f"pipeline '{deployment.flow}' has no parameter '{name}'{f'; {hint}' if hint else ''}")
            continue
        try:
            values[name] = _value(known[name], text)
        except ValueError as error:
            problems.append(f"parameter '{name}' must be {error}, got {text[:60]!r}")
    for name in deployment.schema.get("required") or ():
        if name not in given and name not in deployment.defaults:
            problems.append(f"pipeline '{deployment.flow}' needs a value for parameter '{name}'")
    if problems:
        raise CallError("\n".join(problems))
    return values


def _value(schema: Mapping[str, Any], text: str) -> Any:
    kind = schema.get("type") or next((one.get("type") for one in schema.get("anyOf", ()) if one.get("type")), "string")
    if kind == "string":
        return text
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    if kind == "boolean" and text.strip().lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        return text.strip().lower() in ("true", "yes", "on", "1")
    kinds: Mapping[str, Any] = {"integer": int, "number": (int, float), "array": list, "object": dict}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if kind not in kinds or not isinstance(found, kinds[kind]) or isinstance(found, bool):
        raise ValueError(words.get(kind, f"JSON of type {kind}"))
    return found


def start(
    api: Api,
    deployment: Deployment,
    parameters: Mapping[str, Any],
    *,
    key: str,
    tags: Collection[str] = (),
    name: str | None = None,
) -> tuple[RunState, bool]:
    """Start a run, and whether it is new: with the same `key` there is one run only."""
    data = {"parameters": dict(parameters), "state": _SCHEDULED, "idempotency_key": key, "tags": sorted(tags)}
    if name is not None:
        data["name"] = name
    record, is_new = api.make(f"deployments/{deployment.id}/create_flow_run", data)
    return _state(record), is_new


def read(api: Api, run_id: str) -> RunState:
    """How a run is now."""
    return _state(api.get(f"flow_runs/{run_id}"))


def backfilled(api: Api, deployment: Deployment) -> list[RunState]:
    """All runs of a deployment that backfills started."""
    asked = {"flow_runs": {"deployment_id": {"any_": [deployment.id]}, "tags": {"all_": [BACKFILL]}}}
    return [_state(one) for one in api.pages("flow_runs/filter", asked)]


def _state(record: Mapping[str, Any]) -> RunState:
    state = record.get("state") or {}
    is_late = state.get("name") == "TimedOut"
    return RunState(
        record["id"],
        record.get("name") or "",
        "timed_out" if is_late else str(state.get("type") or "pending").lower(),
        state.get("message") or "",
        float(record.get("total_run_time") or 0.0),
        record.get("idempotency_key"),
    )


def follow(
    api: Api,
    run_id: str,
    write: Callable[[str], None],
    *,
    seconds: float = 1.0,
    waiting: Callable[[], None] = lambda: None,
    patience_seconds: float = 15.0,
) -> RunState:
    """Hand on the lines of a run's log until it ends; `waiting` is called once when nobody has begun it for long."""
    lines = _Lines(api, run_id)
    began, is_told, quiet = time.monotonic(), False, 0
    while True:
        state = read(api, run_id)
        fresh = list(lines.fresh())
        for line in fresh:
            write(line)
        if state.is_over:
            quiet = 0 if fresh else quiet + 1
            if quiet > 1:
                return state
        elif not is_told and state.state == "scheduled" and time.monotonic() - began > patience_seconds:
            waiting()
            is_told = True
        time.sleep(seconds)


class _Lines:
    """The log of a run; records come late and out of order, so the whole last page is looked at each time."""

    def __init__(self, api: Api, run_id: str) -> None:
        self.api, self.run_id = api, run_id
        self.seen: set[str] = set()
        self.since: str | None = None

    def fresh(self) -> Iterator[str]:
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [self.run_id]}}
        if self.since is not None:
            wanted["timestamp"] = {"after_": self.since}
        for record in self.api.pages("logs/filter", {"logs": wanted, "sort": "TIMESTAMP_ASC"}):
            if record["id"] in self.seen:
                continue
            self.seen.add(record["id"])
            yield from _told(record["message"])
            self.since = _earlier(record["timestamp"])


def _told(message: str) -> list[str]:
    """The lines of a record; Prefect's own stack of a run that failed says nothing that its message does not."""
    lines = message.split("\n")
    return lines[:1] if message.startswith(_STACK) else lines


def _earlier(stamp: str) -> str:
    from datetime import datetime, timedelta

    return (datetime.fromisoformat(stamp) - timedelta(seconds=_ID_LATE_SECONDS)).isoformat()
