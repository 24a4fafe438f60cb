"""What a run shows of itself in the Prefect UI: how far tasks have come, tables of what was done, a report at its end.

All of it is told from one thread, and what Prefect does not take is let go: no artifact slows or fails a run.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.events import emit_event

from ..run import Progress, Report, TaskReport, Written, together

if TYPE_CHECKING:
    from .slices import Slice, StepRun

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0
"""How long a task runs before there is an artifact of its progress, and how long between two looks at it."""

_SHARE = 0.05
_MOST_SECONDS = 30.0
"""Of the time that the run has taken, so long at most between two looks: each of them is an event in the server, too."""

_LAST_SECONDS = 10.0
"""How long the end of a run waits for its artifacts."""

_MOST_ROWS = 500
"""A table shows no more slices; those that did not complete come first."""

_MOST_CHARACTERS = 200
_BY = "rainbow-prefect"
_COLUMNS = ("table", "mode", "rows_read", "rows_written", "rows_quarantined", "bytes", "seconds", "engine", "attempt")
"""Those of the report of a load that its table shows."""


@dataclass
class _Watched:
    """A task under way, and its artifact once there is one; `moved` and `wrote` are of its slices, by index."""

    run: StepRun
    moved: dict[int, Progress] = field(default_factory=dict)
    wrote: dict[int, Written] = field(default_factory=dict)
    id: UUID | None = None
    told: tuple[float, str] | None = None
    is_over: bool = False


class Artifacts:
    """Tells Prefect how the tasks of a run go; to be called from any thread."""

    def __init__(self, client: SyncPrefectClient, run_id: str, pipeline: str) -> None:
        self._client = client
        self._run_id = UUID(run_id)
        self._pipeline = pipeline
        self._watched: dict[str, _Watched] = {}
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._context = copy_context()
        self._began = time.monotonic()

    # -- told by a run

    def begin(self, run: StepRun) -> None:
        """A task has started; its slices are known."""
        self._watched[run.name] = _Watched(run)
        if run.step.task.is_split:
            self._start()

    def progress(self, run: StepRun, index: int, progress: Progress) -> None:
        """A slice has come so far."""
        self._watched[run.name].moved[index] = progress
        self._start()

    def wrote(self, run: StepRun, one: Slice, written: Written) -> None:
        """A slice wrote a table."""
        self._watched[run.name].wrote[one.index] = written
        task_run = one.id
        self._do(lambda: self._tell_asset(run, task_run, written))

    def end(self, run: StepRun) -> None:
        """A task is over."""
        watched = self._watched.get(run.name)
        if watched is None:
            return
        watched.is_over = True
        if watched.wrote or run.step.task.is_split:
            self._do(lambda: self._tell_table(watched))
        if watched.moved or run.step.task.is_split:
            self._do(lambda: self._look(watched))

    def close(self, report: Report) -> None:
        """Tell the end of the run, and wait until all is told, but not for a server that does not answer."""
        self._do(lambda: self._tell_report(report))
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)

    # -- the thread

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._context.run, args=(self._loop,), name="artifacts", daemon=True)
            self._thread.start()

    def _do(self, what: Callable[[], None]) -> None:
        self._waiting.put(what)
        self._start()

    def _loop(self) -> None:
        while True:
            try:
                what = self._waiting.get(timeout=self._pause())
            except queue.Empty:
                for one in list(self._watched.values()):
                    if not one.is_over:
                        self._try(lambda one=one: self._look(one))  # type: ignore[misc]
                continue
            if what is None:
                return
            self._try(what)

    def _pause(self) -> float:
        return max(_EVERY_SECONDS, min(_SHARE * (time.monotonic() - self._began), _MOST_SECONDS))

    def _try(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:  # a server that is away or too old: the run goes on without
            logger.debug("could not tell Prefect of an artifact: %s", error)

    # -- progress

    def _look(self, watched: _Watched) -> None:
        """Make or change the artifact of a task, when there is something new to tell."""
        run = watched.run
        now = _progress(watched)
        if now is None or now == watched.told or (watched.id is None and watched.is_over):
            return
        if watched.id is None:
            if time.monotonic() < run.began + _EVERY_SECONDS:
                return
            watched.id = self._create("progress", f"{run.name}-progress", now[0], description=now[1], task_run=run)
        else:
            self._client.update_artifact(watched.id, ArtifactUpdate(data=now[0], description=now[1]))
        watched.told = now

    # -- tables

    def _tell_table(self, watched: _Watched) -> None:
        run = watched.run
        slices = [
            one for one in run.slices if not watched.wrote or one.index in watched.wrote or run.step.task.is_split
        ]
        slices.sort(key=lambda one: (one.report.state == "completed", one.index))
        rows = [_row(run, one, watched.wrote.get(one.index)) for one in slices[:_MOST_ROWS]]
        done = sum(one.report.state == "completed" for one in run.slices)
        text = f"task {run.name}: {done} of {len(run.slices)} slices completed" if run.step.task.is_split else ""
        if done < len(run.slices) and text:
            text += "; those that did not complete come first"
        if len(slices) > len(rows):
            text += f"; {len(rows)} are shown"
        kind = "loads" if watched.wrote else "slices"
        text = text or f"what task {run.name} loaded"
        self._create("table", f"{run.name}-{kind}", json.dumps(rows, default=str), description=text, task_run=run)

    def _tell_asset(self, run: StepRun, task_run: str, written: Written) -> None:
        """As Prefect's own `materialize` does it: an event for each table that was read, one for the table with all of them."""
        related = [{"prefect.resource.id": one, "prefect.resource.role": "asset"} for one in written.sources]
        for one in written.sources:
            emit_event(event="prefect.asset.referenced", resource={"prefect.resource.id": one})
        emit_event(
            event="prefect.asset.materialization.succeeded",
            resource={"prefect.resource.id": written.key},
            related=[
                *related,
                {"prefect.resource.id": _BY, "prefect.resource.role": "asset-materialized-by"},
                {"prefect.resource.id": f"prefect.task-run.{task_run}", "prefect.resource.role": "task-run"},
            ],
            payload=run.world.secrets.mask_data(dict(written.report)),
        )

    # -- the report

    def _tell_report(self, report: Report) -> None:
        self._create("markdown", "report", markdown(report), description=f"how pipeline {report.pipeline} went")

    def _create(
        self, kind: str, name: str, data: Any, *, description: str = "", task_run: StepRun | None = None
    ) -> UUID:
        slices = [] if task_run is None or task_run.step.task.is_split else task_run.slices
        made = self._client.create_artifact(
            ArtifactCreate(
                type=kind,
                key=key_of(self._pipeline, name),
                data=data,
                description=description,
                flow_run_id=self._run_id,
                task_run_id=UUID(slices[0].id) if slices and slices[0].id else None,
            )
        )
        return made.id


def key_of(*names: str) -> str:
    """A key as Prefect takes it: lowercase letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", "-".join(names).lower()).strip("-") or "run"


def _progress(watched: _Watched) -> tuple[float, str] | None:
    """How far a task has come, in percent, and in words; None when nobody knows."""
    run, moved = watched.run, list(watched.moved.values())
    done = sum(one.is_over for one in run.slices)
    slices = f"{done} of {len(run.slices)} slices are over" if run.step.task.is_split else ""
    share = done / len(run.slices) if slices and run.slices else 0.0
    if not moved and not slices:
        return None
    text = slices
    if moved:
        both = together(moved, len(run.slices))
        share = share if both.share is None else both.share
        text = "; ".join(one for one in (str(both), slices) if one)
    if watched.is_over and run.state == "completed":
        share = 1.0
    return round(100 * share, 1), text


def _row(run: StepRun, one: Slice, written: Written | None) -> dict[str, Any]:
    report = one.report
    row: dict[str, Any] = {}
    if run.step.task.is_split:
        row = {"slice": one.index, "input": run.shown(report.input), "state": report.state}
    if written is not None:
        return row | {name: written.report[name] for name in _COLUMNS if name in written.report}
    return row | {
        "seconds": round(report.seconds, 3),
        "attempts": report.attempts,
        "message": report.message[:_MOST_CHARACTERS],
    }


# -- the report as text


def markdown(report: Report) -> str:
    """What ran, how many rows were moved, what failed, and what to do next."""
    lines = [f"# {report.pipeline}: {_words(report.state)}", ""]
    if report.message:
        lines += [_quoted(report.message), ""]
    rows = [_of_task(one) for one in report.tasks]
    moved = any(one[-1] for one in rows)
    heads = ["task", "state", "slices", "seconds", *(["rows"] if moved else [])]
    lines += [_line(heads), _line(["---"] * len(heads)), *(_line(one[: len(heads)]) for one in rows)]
    failed = [one for one in report.tasks if one.state in ("failed", "timed_out")]
    if failed:
        lines += ["", "## What failed", ""]
        lines += [f"- **{_escaped(one.task)}**: {_escaped(_short(one.message))}" for one in failed]
    if report.warnings:
        lines += ["", "## Warnings", "", *(f"- {_escaped(one)}" for one in report.warnings)]
    lines += ["", "## Next step", "", *_next(report)]
    return "\n".join(lines) + "\n"


def _of_task(one: TaskReport) -> list[str]:
    done = sum(part.state == "completed" for part in one.partitions)
    slices = f"{done} of {len(one.partitions)}" if one.partitions else ""
    return [one.task, _words(one.state), slices, f"{one.seconds:.1f}", _moved(one)]


def _moved(one: TaskReport) -> str:
    """The rows that a task wrote, of all its slices; '' when it tells of none."""
    counts = [
        part.output["rows_written"]
        for part in one.partitions
        if isinstance(part.output, Mapping) and isinstance(part.output.get("rows_written"), int)
    ]
    return f"{sum(counts):,}" if counts else ""


def _next(report: Report) -> Sequence[str]:
    command = f"`rainbow logs {report.flow_run_id}`"
    if report.completed:
        return [f"Nothing is left to do. {command} shows what the tasks printed."]
    return [
        f"{command} shows what the tasks printed. Mend the cause, then run `rainbow retry {report.flow_run_id}`: what has",
        "completed is not run again.",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(one) for one in cells)} |"


def _words(state: str) -> str:
    return state.replace("_", " ")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def _quoted(text: str) -> str:
    return f"> {_escaped(_short(text))}"


def _escaped(text: str) -> str:
    """Text in which nothing is Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
