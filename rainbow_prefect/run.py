"""What moves while a pipeline runs: Run, Command, Output, Event and the reports; no Prefect, no YAML here."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from .executors.base import Executor
    from .secrets import Secrets
    from .sql_etl.config import Sink, Source

T = TypeVar("T")

TaskState = Literal["completed", "failed", "skipped", "not_run", "running", "pending", "timed_out", "cancelled"]
RunState = Literal["completed", "failed", "timed_out", "cancelled", "crashed", "running", "pending"]

ENV_INPUT_BYTES = 64 * 1024
"""An input whose JSON is larger than this is given by file only, not in `RAINBOW_INPUT`."""

LARGE_OUTPUT_BYTES = 1024 * 1024
"""An output whose JSON is larger than this stays a file and is passed by reference."""


def split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cut `items` into exactly `parts` contiguous slices; the first ones are longer by one.

    Shape: `len(result) == parts`; sizes differ by at most one; empty slices when parts > len(items).

    Raises:
        ValueError: `parts` is below 1.

    Source: Apache Liminal 249aa74; the float stepping before it lost items.
    """
    if parts < 1:
        raise ValueError(f"parts must be at least 1, got {parts}")
    size, longer = divmod(len(items), parts)
    starts = [index * size + min(index, longer) for index in range(parts + 1)]
    return [items[start:end] for start, end in itertools.pairwise(starts)]


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut `items` into contiguous slices of `size`; the last may be shorter; one empty slice when there are none."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return [items[start : start + size] for start in range(0, len(items), size)] or [items[:0]]


@dataclass(frozen=True, slots=True)
class Large:
    """A JSON value that is kept in a file, not in memory; `items` is its length when it is a list, else None."""

    path: Path
    size_bytes: int
    items: int | None = None

    def load(self) -> Any:
        """The value itself."""
        with self.path.open("rb") as file:
            return json.load(file)


def value_of(value: Any) -> Any:
    """The value itself, read from its file when it is `Large`; lists of slices are looked through."""
    if isinstance(value, Large):
        return value.load()
    if isinstance(value, list) and any(isinstance(one, Large) for one in value):
        return [value_of(one) for one in value]
    return value


@dataclass(frozen=True, slots=True)
class FileMount:
    """A secret or a volume that a task sees as a file or folder: `source` on this machine, `target` in the task.

    In a cluster a volume is its claim, `claim_name`, of which only `sub_path` is mounted when that is given.
    """

    target: str
    source: Path | None = None
    text: str | None = None
    read_only: bool = True
    claim_name: str | None = None
    secret: bool = False
    sub_path: str = ""


@dataclass(frozen=True)
class Command:
    """What an executor starts for one slice.

    Exactly one is set: `shell`, a shell line (`cmd`); `argv`, a program with its arguments; `call`.
    `env` holds the user's variables only, secrets already in it: the executor adds those of the contract
    (`contract_env`). `source` is the folder with the code (None: an empty working directory).
    `call` is `module:function` for a function to be called with the input instead of a command. `pip_conf` is the
    configuration of pip for an environment of the code. `resources` holds what the task says of `request_cpu`,
    `request_memory`, `limit_cpu` and `limit_memory`; `labels` are the task's.
    """

    shell: str | None = None
    argv: tuple[str, ...] | None = None
    call: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None
    image: str | None = None
    output_path: str | None = None
    mounts: tuple[FileMount, ...] = ()
    pip_conf: Path | None = None
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What a command left: its value (JSON or `Large`; None without an output), exit status and last lines."""

    value: Any = None
    status: int = 0
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a slice has come: rows and bytes that were moved in so many seconds.

    `total_rows` is how many there will be, which may be an estimate; None when nobody knows.
    """

    rows: int
    seconds: float
    size_bytes: int = 0
    total_rows: int | None = None

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float | None:
        """The part that is done, 0 to 1; None when nobody knows."""
        return min(1.0, self.rows / self.total_rows) if self.total_rows else None

    @property
    def seconds_left(self) -> float | None:
        """None when nobody knows, or an estimate was too low."""
        if not self.total_rows or not self.rows or self.rows > self.total_rows:
            return None
        return (self.total_rows - self.rows) / self.rows * self.seconds

    def __str__(self) -> str:
        """`1,200,000 rows, 150 MB, 95,000 rows/s, about 1 min 20 s left`."""
        told = [f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"]
        if self.size_bytes:
            told.append(_bytes(self.size_bytes))
        if self.rows and self.seconds > 0:
            told.append(f"{self.rows_per_second:,.0f} rows/s")
        left = self.seconds_left
        if left:
            whole = max(1, round(left))
            shown = f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
            told.append(f"about {shown if whole < 3600 else f'{whole // 3600} h {whole % 3600 // 60:02d} min'} left")
        return ", ".join(told)


def together(parts: Collection[Progress], count: int) -> Progress:
    """How far a task has come of whose `count` slices these have begun; the total is known when it is of all of them."""
    totals = [one.total_rows for one in parts if one.total_rows is not None]
    return Progress(
        sum(one.rows for one in parts),
        max((one.seconds for one in parts), default=0.0),
        sum(one.size_bytes for one in parts),
        sum(totals) if len(totals) == count else None,
    )


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:,.{0 if size >= 10 * factor else 1}f} {unit}"
    return f"{size} bytes"


@dataclass(frozen=True, slots=True)
class Written:
    """A table or file that a slice wrote: `key` names it among all data (an URI), `sources` name what it was made of.

    `report` says what was done: JSON data.
    """

    key: str
    sources: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What one slice of a task is given while it runs; made by the engine, handed to `Task.run` and `Executor.run`.

    `input` is JSON data or `Large`; None when the task has no input. `deadline` is a `time.monotonic()` value.
    `env` holds the variables of the app and the pipeline; those of the task win over them.
    `stop` is set when the run is cancelled or timed out: whoever waits must look at it at least every 0.2 s.
    `write` takes one line of output (already without its newline) to the log of this slice; it masks secrets.
    `image` is the image to run in when the task names none: one that was built of its source, or None.
    `source` is the folder with the task's code (`App.source_of`); `volumes` gives each volume of the app its folder on
    this machine, or None when it has none; `claims` gives it its claim in a cluster. `sources` and `sinks` are those of
    the app, by name; `saved("TYPE/NAME", "source")` gives one that is kept as a Prefect block.
    `progress` is told how far the slice has come, as often as it likes but not for each row; `wrote` each table it wrote.
    """

    app: str
    pipeline: str
    task: str
    run_id: str
    root: Path
    folder: Path
    executor: Executor
    secrets: Secrets
    task_run_id: str = ""
    index: int = 0
    count: int = 1
    attempt: int = 1
    input: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None
    image: str | None = None
    volumes: Mapping[str, Path | None] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    sinks: Mapping[str, Sink] = field(default_factory=dict)
    saved: Callable[[str, str], Source | Sink] | None = None
    deadline: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    write: Callable[[str], None] = print
    progress: Callable[[Progress], None] = lambda progress: None
    wrote: Callable[[Written], None] = lambda written: None
    logs_sent: Callable[[], None] = lambda: None
    timed_out: bool = False

    def remaining_seconds(self) -> float | None:
        """Seconds until the deadline (never below 0), None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def input_bytes(self) -> bytes:
        """The input as UTF-8 JSON, `{}` when there is none."""
        if isinstance(self.input, Large):
            return self.input.path.read_bytes()
        value = {} if self.input is None else self.input
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half of a surrogate pair, from a file of the user
            return json.dumps(value).encode()

    def contract_env(self, *, input_path: str, output_path: str | None, data: bytes | None) -> dict[str, str]:
        """The variables that user code is promised; `data` is None when the input is too large for one of them."""
        env = {
            "RAINBOW_INPUT_PATH": input_path,
            "RAINBOW_SPLIT_ID": str(self.index),
            "RAINBOW_NUM_SPLITS": str(self.count),
            "LIMINAL_SPLIT_ID": str(self.index),
            "LIMINAL_NUM_SPLITS": str(self.count),
            "RAINBOW_PIPELINE": self.pipeline,
            "RAINBOW_TASK": self.task,
            "RAINBOW_ATTEMPT": str(self.attempt),
            "run_id": self.run_id,
        }
        if data is not None and len(data) <= ENV_INPUT_BYTES:
            env["RAINBOW_INPUT"] = data.decode()
        if output_path is not None:
            env["RAINBOW_OUTPUT_PATH"] = output_path
        return env


EventKind = Literal[
    "run_started", "run_finished", "task_started", "task_finished", "slice_started", "slice_finished", "log", "progress"
]


FIGURES = (
    "slices_completed",
    "slices_failed",
    "slices_retried",
    "rows",
    "bytes",
    "exit_code",
    "queue_seconds",
)
"""What is counted of a task: its slices, the rows and bytes that it moved, its highest exit status, and the longest that
one of its slices waited between the start of the task and its own."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run; times are UTC seconds since 1970.

    `task` and `index` are None for events of the run, `index` is None for events of a task. `state`, `message` and
    `seconds` are set by the `_finished` kinds; `seconds` of `run_started` is how late a deployed run began. `count` is the
    number of slices; `line` is the text of a `log` event,
    `progress` is how far a slice has come.
    `tail` and `figures` are of `task_finished`: the last lines of the task, and what is counted of it (`FIGURES`).
    """

    kind: EventKind
    time: float
    app: str
    pipeline: str
    run_id: str
    task: str | None = None
    index: int | None = None
    count: int | None = None
    state: str = ""
    message: str = ""
    seconds: float = 0.0
    attempt: int = 1
    line: str = ""
    link: str = ""
    tail: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    progress: Progress | None = None


@dataclass(frozen=True)
class Metric:
    """One metric that was sent: `value` without unit (JobDuration in whole seconds)."""

    namespace: str
    name: str
    value: float
    unit: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "dimensions": dict(self.dimensions),
        }


@dataclass
class PartitionReport:
    """One slice of a task in a report."""

    index: int
    input: Any = None
    state: str = "not_run"
    output: Any = None
    exit_code: int | None = None
    attempts: int = 0
    message: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "input": value_of(self.input),
            "state": self.state,
            "output": value_of(self.output),
            "exit_code": self.exit_code,
            "attempts": self.attempts,
            "message": self.message,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class TaskReport:
    """One task in a report; a task that is not split has one partition and that one's output."""

    task: str
    state: str = "not_run"
    message: str = ""
    seconds: float = 0.0
    output: Any = None
    log_tail: list[str] = field(default_factory=list)
    partitions: list[PartitionReport] = field(default_factory=list)

    @property
    def completed(self) -> bool:
        return self.state == "completed"

    def as_dict(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "state": self.state,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "output": value_of(self.output),
            "log_tail": list(self.log_tail),
            "partitions": [one.as_dict() for one in self.partitions],
        }


@dataclass
class Report:
    """How a run ended; `tasks` in the order in which they started, those that never started last."""

    pipeline: str
    flow_run_id: str
    state: str
    message: str = ""
    seconds: float = 0.0
    link: str = ""
    tasks: list[TaskReport] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, task: str) -> TaskReport:
        """The report of one task, by its name."""
        for one in self.tasks:
            if one.task == task:
                return one
        raise KeyError(task)

    @property
    def completed(self) -> bool:
        return self.state == "completed"

    def as_dict(self) -> dict[str, Any]:
        """The JSON that `rainbow run --json` prints."""
        return {
            "pipeline": self.pipeline,
            "flow_run_id": self.flow_run_id,
            "state": self.state,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "link": self.link,
            "metrics": [one.as_dict() for one in self.metrics],
            "warnings": list(self.warnings),
            "tasks": [one.as_dict() for one in self.tasks],
        }
