"""One task of a run: its slices, and the work of one slice in its thread. Knows no flow and no future."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..blocks import store
from ..errors import Cancelled, RunError, TaskFailed, TimedOut
from ..executors.base import Executor
from ..plan import Plan, Step
from ..run import Event, EventKind, Large, PartitionReport, Progress, Run, TaskReport, value_of
from ..secrets import Secrets
from ..tasks.base import Task
from .artifacts import Artifacts
from .events import Events
from .logs import Logs
from .logs import Slice as LogSource
from .storage import Kept, Storage

logger = logging.getLogger(__name__)

Cause = Literal["timed_out", "cancelled", "failed"]

TAIL_LINES = 100
"""How many of the last lines of a task its report holds."""

_SHOWN_INPUT = 200
_TOLD_LINES = 20
_SHOWN_FAILURES = 5


@dataclass
class World:
    """What all tasks of one run share."""

    plan: Plan
    parameters: Mapping[str, Any]
    run_id: str
    link: str
    secrets: Secrets
    events: Events
    logs: Logs
    storage: Storage
    executors: Mapping[str, Executor]
    env: Mapping[str, str]
    artifacts: Artifacts
    deadline: float | None
    images: Mapping[str, str] = field(default_factory=dict)
    is_continued: bool = False
    stopped: Cause | None = None
    message: str = ""
    abandoned: list[Slice] = field(default_factory=list)

    @property
    def is_late(self) -> bool:
        """Whether the deadline of the pipeline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def late_message(self) -> str:
        minutes = self.plan.pipeline.timeout_minutes or 0
        return f"pipeline '{self.plan.pipeline.pipeline}' timed out after {duration(60 * minutes)}"

    def send(self, kind: EventKind, **more: Any) -> None:
        """Tell observers."""
        if self.events.observers:
            pipeline = self.plan.pipeline
            self.events.send(
                Event(kind, time.time(), self.plan.app.name, pipeline.pipeline, self.run_id, link=self.link, **more)
            )


@dataclass(slots=True)
class Slice:
    """One slice: what it is given, and how it went so far."""

    report: PartitionReport
    key: str
    log: LogSource | None = None
    run: Run | None = None
    id: str = ""
    began: float = 0.0
    waited: float | None = None
    cause: Cause | None = None
    stopped_at: float = 0.0
    is_over: bool = False
    output: Any = None

    @property
    def index(self) -> int:
        return self.report.index


class Once:
    """Does something once for many threads; the others wait. A failure is told to all, a later attempt tries again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._error: Exception | None = None
        self._attempt = 0

    def do(self, what: Callable[[], None], attempt: int) -> None:
        if self._done.is_set():
            return
        with self._lock:
            if self._done.is_set():
                return
            if self._error is not None and attempt <= self._attempt:
                raise self._error
            try:
                what()
            except Exception as error:
                self._error, self._attempt = error, attempt
                raise
            self._done.set()


@dataclass
class StepRun:
    """One task while its pipeline runs."""

    world: World
    step: Step
    state: str = "pending"
    slices: list[Slice] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    waiting: deque[int] = field(default_factory=deque)
    under_way: int = 0
    most: int = 1
    message: str = ""
    broken: str = ""
    output: Any = None
    identity: str = ""
    began: float = 0.0
    seconds: float = 0.0
    prepared: Once = field(default_factory=Once)
    _task: Task | None = None

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def is_over(self) -> bool:
        return self.state not in ("pending", "running")

    # -- before

    @cached_property
    def folder(self) -> Path:
        """Where its slices may leave files until the run ends."""
        made = self.world.storage.scratch / self.name
        made.mkdir(exist_ok=True)
        return made

    def lineage(self, value: Any, count: int, before: str) -> str:
        """What makes a slice the same when a run is continued: its data, the number of slices, what ran before it."""
        digest = hashlib.blake2b(digest_size=9)
        digest.update(f"{count} {before}".encode())
        if self.step.input_task is None and value is not None:
            digest.update(_digest_of(value))
        return digest.hexdigest()

    # -- the work of a slice, in its thread

    def work(self, one: Slice, *, task_run_id: str, task_run_name: str) -> dict[str, Any] | None:
        """Do one attempt of a slice; what is returned is kept by Prefect, None says that it did not complete."""
        report = one.report
        one.id = task_run_id
        report.attempts += 1
        one.waited = time.monotonic() - self.began if one.waited is None else one.waited
        one.log = one.log or LogSource(
            flow_run_id=self.world.run_id,
            task_run_id=task_run_id,
            task_run_name=task_run_name,
            task_name=self.name,
            flow_run_name=self.world.run_id,
            flow_name=self.world.plan.pipeline.pipeline,
        )
        try:
            with self._run_of(one) as run:
                output = self._attempt(one, run)
        except BaseException as error:
            self._fail(one, report, error)
            if not isinstance(error, Exception):
                raise
            return None
        one.output = output
        report.state, report.message, report.exit_code = "completed", "", 0
        report.seconds = time.monotonic() - one.began
        return self.world.storage.pack(Kept(one.id, output, report.attempts, report.seconds), one.key)

    def _attempt(self, one: Slice, run: Run) -> Any:
        if run.attempt > 1:
            self._wait(run)
        self._look(one)
        if self.broken:
            raise TaskFailed(self.broken)
        self.world.send("slice_started", task=self.name, index=one.index, count=len(self.slices), attempt=run.attempt)
        if self.step.timeout_seconds is not None:
            own = time.monotonic() + self.step.timeout_seconds
            run.deadline = own if run.deadline is None else min(own, run.deadline)
        task = self._rendered()
        self.prepared.do(lambda: task.prepare(replace(run, input=None)), run.attempt)
        self._look(one)
        output = self.world.storage.settle(task.run(run), one.key, run.folder / f"large-{one.index}-{run.attempt}.json")
        self._look(one)
        return output

    def _wait(self, run: Run) -> None:
        delay = self.step.retry_delay_seconds
        if delay > 0:
            run.write(f"waiting {delay:g} s before attempt {run.attempt}")
            run.stop.wait(delay)

    def _look(self, one: Slice) -> None:
        """Stop here when the run was stopped."""
        cause = one.cause or self.world.stopped
        if cause == "timed_out":
            raise TimedOut("timed out")
        if cause == "cancelled":
            raise Cancelled("cancelled")

    def _rendered(self) -> Task:
        if self._task is None:
            self._task = self.world.secrets.render(self.step.task)
        return self._task

    @contextmanager
    def _run_of(self, one: Slice) -> Iterator[Run]:
        world, app = self.world, self.world.plan.app
        run = Run(
            app=app.name,
            pipeline=world.plan.pipeline.pipeline,
            task=self.name,
            run_id=world.run_id,
            root=app.root,
            folder=self.folder,
            executor=world.executors[self.name],
            secrets=world.secrets,
            task_run_id=one.id,
            index=one.index,
            count=len(self.slices),
            attempt=one.report.attempts,
            input=one.report.input,
            parameters=world.parameters,
            env=world.env,
            source=app.source_of(self.step.task),
            image=world.images.get(self.name),
            volumes={two.volume: app.root / two.local.path if two.local else None for two in app.volumes},
            claims={two.volume: two.claim for two in app.volumes},
            sources={two.source: two for two in app.sources if two.source},
            sinks={two.sink: two for two in app.sinks if two.sink},
            saved=store,
            deadline=world.deadline,
            write=lambda line: self._write(one, line),
            progress=lambda progress: self._progress(one, progress),
            wrote=lambda written: world.artifacts.wrote(self, one, written),
            logs_sent=world.logs.flush,
        )
        one.run = run
        try:
            yield run
        finally:
            one.run = None

    def _write(self, one: Slice, line: str) -> None:
        line = self.world.secrets.mask(line)
        self.tail.append(line)
        if one.log is not None:
            self.world.logs.write(one.log, line)
        if self.world.events.wants_logs:
            self.world.send("log", task=self.name, index=one.index, line=line)

    def _progress(self, one: Slice, progress: Progress) -> None:
        self.world.artifacts.progress(self, one.index, progress)
        self.world.send("progress", task=self.name, index=one.index, progress=progress)

    def _fail(self, one: Slice, report: PartitionReport, error: BaseException) -> None:
        cause = one.cause or self.world.stopped
        if cause is None and isinstance(error, TimedOut):
            cause = "timed_out"
        elif cause is None and isinstance(error, Cancelled):
            cause = "cancelled"
        report.seconds = time.monotonic() - one.began
        report.exit_code = error.status if isinstance(error, TaskFailed) else None
        report.state = cause or "failed"
        report.message = self._told(one, error, cause)
        if cause is None and not isinstance(error, RunError):
            self._trace(one, error)

    def _told(self, one: Slice, error: BaseException, cause: Cause | None) -> str:
        if cause == "cancelled":
            return "cancelled"
        if cause == "timed_out" and (self.world.stopped == "timed_out" or self.world.is_late):
            return self.world.late_message
        if cause == "timed_out" and self.step.timeout_seconds is not None:
            return f"timed out after {duration(self.step.timeout_seconds)}"
        if isinstance(error, RunError):
            tail = getattr(error, "tail", ())
            text = str(error)
            if tail and not any(line.strip() and line.strip() in text for line in tail[-1:]):
                text = f"{text}; last lines: " + " | ".join(line for line in tail[-5:])
        else:
            text = _words(error)
        return self.world.secrets.mask(text)[:4000]

    def _trace(self, one: Slice, error: BaseException) -> None:
        """An exception that nobody raised on purpose: its author wants to see where it comes from."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_HERE)]
        if own:
            for text in ["Traceback (most recent call last):\n", *traceback.format_list(own)]:
                for line in text.rstrip("\n").split("\n"):
                    self._write(one, line)
            self._write(one, _words(error))

    # -- after

    def stop(self, cause: Cause) -> None:
        """Ask all slices that are under way to end, and start no more."""
        for index in self.waiting:
            self.slices[index].report.state = "not_run"
        self.waiting.clear()
        for one in self.slices:
            if not one.is_over and one.report.state != "not_run":
                self.stop_slice(one, cause)

    def stop_slice(self, one: Slice, cause: Cause) -> None:
        one.cause = one.cause or cause
        one.stopped_at = one.stopped_at or time.monotonic()
        run = one.run
        if run is not None:
            run.timed_out = cause == "timed_out"
            run.stop.set()

    def conclude(self) -> None:
        """Decide how the task went, once none of its slices is under way."""
        self._end()
        reports = [one.report for one in self.slices]
        bad = [one for one in self.slices if one.report.state != "completed"]
        done = len(reports) - len(bad)
        task = self.step.task
        if not bad:
            self.state = "completed"
        elif self.world.stopped is not None and any(one.report.state in ("not_run", self.world.stopped) for one in bad):
            self.state = "failed"
        elif task.min_success is not None:
            self.state = "completed" if done >= task.min_success * len(reports) - 1e-9 else "failed"
        else:
            self.state = "completed" if task.on_failure == "continue" else "failed"
        self.message = self.message or self._summary(bad, done)
        outputs = [one.output for one in self.slices if one.report.state == "completed"]
        if task.is_split:
            self.output = outputs
        else:
            self.output = outputs[0] if outputs else None
        self.identity = hashlib.blake2b(
            " ".join(one.id or "-" for one in self.slices).encode(), digest_size=9
        ).hexdigest()
        self.seconds = time.monotonic() - self.began
        self.world.artifacts.end(self)
        self.world.send(
            "task_finished",
            task=self.name,
            count=len(reports),
            state=self.state,
            message=self.message,
            seconds=self.seconds,
            tail=tuple(self.tail)[-_TOLD_LINES:],
            figures=self._figures(done, len(bad)),
        )

    def _figures(self, done: int, failed: int) -> dict[str, float]:
        """What is counted of it, for observers; see `run.FIGURES`."""
        reports = [one.report for one in self.slices]
        outputs = [one.output for one in self.slices if isinstance(one.output, dict)]
        return {
            "slices_completed": done,
            "slices_failed": failed,
            "slices_retried": sum(max(0, one.attempts - 1) for one in reports),
            "rows": sum(_number(one, "rows_written", "rows") for one in outputs),
            "bytes": sum(_number(one, "bytes") for one in outputs),
            "exit_code": max((one.exit_code or 0 for one in reports), default=0),
            "queue_seconds": max((one.waited or 0.0 for one in self.slices), default=0.0),
        }

    def _end(self) -> None:
        """Let the task give back what it took; the slices are as they are."""
        if self._task is None:
            return
        try:
            self._task.end(self.world.run_id)
        except Exception:
            logger.warning("task '%s' could not clean up", self.name, exc_info=True)

    def _summary(self, bad: list[Slice], done: int) -> str:
        """What failed, with its input."""
        if not bad:
            return ""
        if self.broken:
            return self.broken
        if not self.step.task.is_split:
            return bad[0].report.message
        total = len(self.slices)
        if self.world.stopped is not None and all(one.report.state in ("not_run", self.world.stopped) for one in bad):
            return f"{done} of {total} slices completed; {self.world.message or self.world.stopped}"
        failed = [one for one in bad if one.report.state != "not_run"]
        parts = [
            f"{self.name}[{one.index}] (input {self.shown(one.report.input)}): {one.report.message}"
            for one in failed[:_SHOWN_FAILURES]
        ]
        more = [f"and {len(failed) - _SHOWN_FAILURES} more"] if len(failed) > _SHOWN_FAILURES else []
        wanted = self.step.task.min_success
        bar = f", at least {wanted:.4%} must complete".replace(".0000%", "%") if wanted is not None else ""
        return f"{len(failed)} of {total} slices failed{bar}: " + "; ".join([*parts, *more])

    def shown(self, value: Any) -> str:
        """An input in one line, without any secret."""
        if isinstance(value, Large):
            return f"of {value.size_bytes} bytes"
        text = self.world.secrets.mask(json.dumps(value, ensure_ascii=False, default=str))
        return text if len(text) <= _SHOWN_INPUT else f"{text[:_SHOWN_INPUT]}..."

    def report(self) -> TaskReport:
        """The task in the report of the run, without any secret."""
        for one in self.slices:
            one.report.output = one.output
            if one.report.state == "pending":
                one.report.state = "not_run"
        partitions = [self._masked(one.report) for one in self.slices]
        if self.step.task.is_split and self.slices:
            output: Any = [one.output for one in partitions if one.state == "completed"]
        else:
            output = partitions[0].output if partitions else None
        return TaskReport(self.name, self.state, self.message, self.seconds, output, list(self.tail), partitions)

    def _masked(self, report: PartitionReport) -> PartitionReport:
        report.input = self._clean(report.input)
        report.output = self._clean(report.output)
        return report

    def _clean(self, value: Any) -> Any:
        mask = self.world.secrets
        if isinstance(value, Large):
            text = value.path.read_text()
            return value if mask.mask(text) == text else mask.mask_data(value_of(value))
        return mask.mask_data(value) if value is not None else None


def _number(output: Mapping[str, Any], *keys: str) -> float:
    """The first of these of an output that is a number."""
    found = (output.get(key) for key in keys)
    return next((one for one in found if isinstance(one, int | float) and not isinstance(one, bool)), 0)


def _digest_of(value: Any) -> bytes:
    data = (
        value.path.read_bytes() if isinstance(value, Large) else json.dumps(value, sort_keys=True, default=str).encode()
    )
    return hashlib.blake2b(data, digest_size=9).digest()


def _words(error: BaseException) -> str:
    """An exception as `ValueError: text`."""
    try:
        text = str(error)
    except Exception:  # an exception may be as broken as what raised it
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def duration(seconds: float) -> str:
    """`3 s`, `45 min`."""
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"


_HERE = str(Path(__file__).parent)
