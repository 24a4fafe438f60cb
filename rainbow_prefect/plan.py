"""The DAG of one pipeline, computed from the checked file: plain data, no Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .app import App, Pipeline
    from .executors.base import Executor
    from .tasks.base import Input, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One task in its place: what must end before it (`needs`, all of them earlier in the plan), and with what settings.

    `input_task` is the task whose output it reads, if any; it is always among `needs`.
    `partitions` is None when the number of slices is known only at run time.
    """

    task: Task
    needs: tuple[str, ...]
    when: str
    executor: Executor
    executor_name: str
    partitions: int | None
    retries: int
    retry_delay_seconds: float
    timeout_seconds: float | None
    input_task: str | None = None

    @property
    def name(self) -> str:
        return self.task.task

    def as_dict(self) -> dict[str, Any]:
        """What `rainbow plan --json` prints for it."""
        return {
            "task": self.name,
            "type": self.task.type,
            "needs": list(self.needs),
            "when": self.when,
            "executor": self.executor_name,
            "partitions": self.partitions,
            "command": self.task.command_line(),
            "retries": self.retries,
            "retry_delay_seconds": self.retry_delay_seconds,
            "timeout_minutes": None if self.timeout_seconds is None else self.timeout_seconds / 60,
        }


@dataclass(frozen=True)
class Plan:
    """The steps of one pipeline in an order that can run; `executor` is where all of them were asked to run."""

    app: App
    pipeline: Pipeline
    steps: Sequence[Step] = field(default_factory=tuple)
    executor: str | None = None

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """What `rainbow plan --json` prints."""
        return {"pipeline": self.pipeline.pipeline, "steps": [step.as_dict() for step in self.steps]}


def plan(pipeline: Pipeline, *, executor: str | None = None) -> Plan:
    """The DAG of a pipeline: what each task needs, in an order that can run, with settings that count.

    A task without `depends_on` needs the one listed before it; the task whose output it reads is needed in any case.
    `executor` is where all tasks run, whatever the file says.

    Raises:
        CallError: there is no executor of this name.
        ConfigError: see `check`, which finds all that is wrong.
    """
    app = pipeline.app
    steps = {}
    before: str | None = None
    for task in pipeline.tasks:
        steps[task.task] = _step(app, pipeline, task, before, executor)
        before = task.task
    return Plan(app, pipeline, tuple(steps[name] for name in _order(steps)), executor)


def _step(app: App, pipeline: Pipeline, task: Task, before: str | None, executor: str | None) -> Step:
    reads = task.input_of()
    input_task = str(reads.value) if reads.kind == "task" else None
    name = executor or app.executor_name(pipeline, task)
    minutes = task.timeout_minutes
    return Step(
        task=task,
        needs=_needs(task, before, input_task),
        when=_when(app, pipeline, task),
        executor=executor_named(app, name),
        executor_name=name,
        partitions=_partitions(task, reads),
        retries=_first(task.retries, pipeline.retries, 0),
        retry_delay_seconds=_first(task.retry_delay_seconds, pipeline.retry_delay_seconds, 0.0),
        timeout_seconds=None if minutes is None else minutes * 60,
        input_task=input_task,
    )


def _needs(task: Task, before: str | None, input_task: str | None) -> tuple[str, ...]:
    if task.depends_on is None:
        needs = [before] if before is not None else []
    else:
        needs = list(dict.fromkeys(task.depends_on))
    if input_task is not None and input_task not in needs:
        needs.append(input_task)
    return tuple(needs)


def _when(app: App, pipeline: Pipeline, task: Task) -> str:
    if task.when is not None:
        return task.when
    always = _first(task.always_run, pipeline.always_run, app.always_run, False)
    return "always" if always else "on_success"


def _partitions(task: Task, reads: Input) -> int | None:
    """How many slices there will be; None when that depends on data that is not there yet."""
    if task.split_size is None:
        return task.slice_count
    if reads.kind == "none":
        return 1
    if reads.kind == "static" and isinstance(reads.value, list):
        return max(1, -(-len(reads.value) // task.split_size))
    return None


def executor_named(app: App, name: str) -> Executor:
    """The executor of this name; a reference `block:TYPE/NAME` becomes a stand-in until a run starts.

    Raises:
        CallError: there is no such executor.
    """
    if name.startswith("block:"):
        from pydantic import ValidationError

        from .errors import CallError
        from .executors.base import BlockReference

        try:
            return BlockReference(block=name)
        except ValidationError:
            raise CallError(f"'{name}' is not a reference to a block; write `block:TYPE/NAME`") from None
    return app.executor_named(name)


def _order(steps: Mapping[str, Step]) -> list[str]:
    """The names as listed, but each after what it needs; tasks of a cycle, which `check` forbids, come last."""
    ordered: dict[str, None] = {}
    waiting = list(steps)
    while waiting:
        ready = (name for name in waiting if all(one in ordered or one not in steps for one in steps[name].needs))
        first = next(ready, waiting[0])
        ordered[first] = None
        waiting.remove(first)
    return list(ordered)


def _first(*values: T | None) -> T:
    """The first of these that is given; the last one always is."""
    return next(value for value in values if value is not None)
