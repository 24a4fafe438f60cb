"""The base class of tasks: the YAML keys that all types share, and what to do with one slice. No Prefect here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ..registry import alerts, tasks
from ..schema import Config, Count, EnvVars, Minutes, Name, Positive, Seconds, Text, wrong

if TYPE_CHECKING:
    from ..app import App, Pipeline
    from ..run import Run

InputType = Literal["static", "task", "file"]
When = Literal["on_success", "on_failure", "always"]


class Input(NamedTuple):
    """What a task reads: `value` is the data (static), the name of a task (task) or a path or glob (file).

    `key` is the YAML key that says so (`input` or `input_path`), for messages.
    """

    kind: Literal["none", "static", "task", "file"]
    value: Any = None
    key: str = "input"


class Flaw(NamedTuple):
    """A problem that a task finds in itself: `keys` is the path below the task, e.g. `('env_vars', 'A')`.

    `on_key` puts the mark on the key instead of its value.
    """

    keys: tuple[str | int, ...]
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"
    on_key: bool = False


class Place(NamedTuple):
    """Where a task stands while it is checked: its app (as written so far) and pipeline, and the YAML's folder."""

    app: App
    pipeline: Pipeline
    root: Path
    earlier: tuple[str, ...]


def leads_out(path: str) -> bool:
    """Whether a path leaves, on its way, the folder it begins in."""
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False


def _below(value: str) -> str:
    """A path that stays below the folder it is told for."""
    if value.startswith("/"):
        raise wrong(f"'{value}' must be relative", hint=f"write '{value.lstrip('/')}'")
    if leads_out(value):
        raise wrong(f"'{value}' leads out of the folder it is in", hint="write a path without '..'")
    return value


Below = Annotated[str, AfterValidator(_below)]


class Mount(Config):
    """A volume in a task."""

    mount: Name = Field(description="The name of the mount.")
    volume: Name = Field(description="The name of a volume in the root section `volumes`.")
    path: str = Field(min_length=1, description="The absolute path in the task.")
    sub_path: Below = Field(default="", description="A path below the volume; only that is mounted.")
    read_only: bool = Field(default=False, description="Mount it read-only.")


class TaskSecret(Config):
    """A secret in a task: as a file `<remote_path>/credentials`, or as the variable `env`."""

    secret: Name = Field(description="The name of a secret in the root section `secrets`.")
    remote_path: str | None = Field(default=None, description="A folder in the task; the file `credentials` is in it.")
    sub_path: Below = Field(default="", description="The file is `<remote_path>/<sub_path>` instead.")
    env: str | None = Field(default=None, description="The environment variable that holds the value.")
    read_only: bool = Field(default=True, description="The file is always read-only.")

    @property
    def file(self) -> str | None:
        """The path of the file in the task, None when it is given as a variable only."""
        if self.remote_path is None and self.env is not None:
            return None
        return f"{(self.remote_path or '/secrets').rstrip('/')}/{self.sub_path or 'credentials'}"


class Resources(Config):
    """What a task asks of the machine; used by container executors."""

    request_cpu: Text | None = Field(default=None, description="CPUs that are kept for it, e.g. `500m` or `2`.")
    request_memory: Text | None = Field(default=None, description="Memory that is kept for it, e.g. `512Mi`.")
    limit_cpu: Text | None = Field(default=None, description="CPUs it may use at most.")
    limit_memory: Text | None = Field(default=None, description="Memory it may use at most.")


_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")


def _share(value: Any) -> Any:
    """`95%` and `0.95` as 0.95."""
    if isinstance(value, str) and (found := _PERCENT.match(value.strip())):
        value = float(found[1]) / 100
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise wrong(f"must be a share such as 95% or 0.95, got {value!r}")
    return float(value)


Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"},
            ]
        }
    ),
]
"""A part of a whole, `95%` or `0.95`."""

_AnyAlert = Annotated[Config, alerts]


class Task(Config):
    """One step of a pipeline: the YAML keys that every type has, and `run` for one slice of its input.

    A third party writes one class and one line, `shout = "my_package:Shout"` in the entry points
    `rainbow_prefect.tasks`:

        class Shout(Task):
            \"\"\"Say the input louder.\"\"\"

            type: Literal["shout"] = "shout"
            mark: str = Field(default="!", description="What ends each word.")

            def run(self, run: Run) -> list[str]:
                return [f"{word}{self.mark}" for word in run.input]
    """

    task: Name = Field(description="The name of the task; unique in its pipeline.")
    type: str = Field(description="The type of the task.")
    description: str = Field(default="", description="What the task does; shown in the Prefect UI.")
    depends_on: tuple[Name, ...] | None = Field(
        default=None, description="Tasks that must end before; absent: the one listed before; `[]`: starts at once."
    )
    when: When | None = Field(
        default=None, description="Run when all it depends on completed (on_success), one failed, or always."
    )
    always_run: bool | None = Field(default=None, description="The older spelling of `when: always`.")
    retries: Count | None = Field(default=None, description="How often a slice that failed is tried again.")
    retry_delay_seconds: Seconds | None = Field(default=None, description="Seconds to wait before each retry.")
    timeout_minutes: Minutes | None = Field(
        default=None, description="Minutes after which the task is ended as failed."
    )
    executor: Text | None = Field(
        default=None,
        description="Where it runs: a name from the root `executors`, an executor type, or `block:TYPE/NAME`.",
    )
    variables: dict[str, Any] | str | None = Field(
        default=None, description="Variables of this task only, or the name of a root variable that is a mapping."
    )
    env_vars: EnvVars = Field(default_factory=dict, description="Environment variables of the user's code.")
    labels: dict[str, Text] = Field(default_factory=dict, description="Labels: Prefect tags, labels of containers.")
    input: Any = Field(
        default=None, description="What it reads: data, `task:NAME` or `file:PATH` (short for input_type, input_path)."
    )
    input_type: InputType | None = Field(default=None, description="What `input_path` is: static, task or file.")
    input_path: Any = Field(default=None, description="JSON text or data (static), a task's name, or a path or glob.")
    split_input: bool = Field(default=False, description="Cut the input, a list, into `executors` slices.")
    split_size: Positive | None = Field(
        default=None, description="Cut slices of this many items instead, `executors` of them run at once."
    )
    executors: Positive = Field(default=1, description="How many slices (or copies without `split_input`).")
    on_failure: Literal["fail", "continue"] = Field(
        default="fail", description="What a failed slice does to the task: fail it, or continue without it."
    )
    min_success: Share | None = Field(
        default=None, description="The share of slices that must complete, e.g. `95%`; fewer fail the task."
    )
    request_cpu: Text | None = Field(default=None, description="CPUs that a container is promised.")
    request_memory: Text | None = Field(default=None, description="Memory that a container is promised.")
    limit_cpu: Text | None = Field(default=None, description="CPUs that a container may use at most.")
    limit_memory: Text | None = Field(default=None, description="Memory that a container may use at most.")
    alerts: tuple[_AnyAlert, ...] = Field(
        default=(), description="Who is told when this task fails, hangs or recovers."
    )

    def run(self, run: Run) -> Any:
        """Do the work of one slice and return its output: JSON data, `Large`, or None.

        Raises:
            TaskFailed, TimedOut, Cancelled: told in the report; any other exception is told with its type and text.
        """
        raise TypeError(f"task type '{self.type}' does not implement run()")

    def prepare(self, run: Run) -> None:
        """What is done once before the first slice starts, e.g. making an environment; `run.input` is None here."""

    def end(self, run_id: str) -> None:
        """What is done once after the last slice, however it went: give back what `prepare` took."""

    def check(self, place: Place) -> Iterator[Flaw]:
        """What is wrong with it that its fields alone cannot tell: files, modules, names. Reads, never imports."""
        yield from ()

    def command_line(self) -> list[str] | None:
        """The command that `rainbow plan` shows, None when there is none."""
        return None

    def image_source(self) -> tuple[str | None, str | None]:
        """The image it runs in and the folder of its code, as written; (None, None) for tasks without."""
        return None, None

    @property
    def is_incremental(self) -> bool:
        """Whether a run goes on where the last one ended; it heeds `full_refresh`, `load_from` and `load_to` then."""
        return False

    @property
    def slice_count(self) -> int:
        """How many slices (or copies) there are without `split_size`, and how many run at once."""
        return self.executors

    @property
    def is_split(self) -> bool:
        """Whether its output is the list of the outputs of its slices."""
        return self.split_input or self.split_size is not None or self.slice_count > 1

    def input_of(self) -> Input:
        """What it reads, whichever spelling says so; `static` JSON text is decoded.

        Raises:
            ValueError: the static text is not JSON (`check` tells it at its place).
        """
        if self.input_type is not None:
            if self.input_type == "static":
                return Input("static", _decoded(self.input_path), "input_path")
            return Input(self.input_type, self.input_path, "input_path")
        if self.input is None:
            return Input("none")
        if isinstance(self.input, str):
            kind, colon, rest = self.input.partition(":")
            if colon and kind == "task":
                return Input("task", rest.strip())
            if colon and kind == "file":
                return Input("file", rest.strip())
            return Input("static", _decoded(self.input))
        return Input("static", self.input)


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A config value as plain JSON data: models, tuples and mappings as dicts and lists."""
    if isinstance(value, Config):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


AnyTask = Annotated[Task, tasks]
