"""The DAG of one pipeline, computed from the checked file: plain data, no Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import App, Pipeline
    from .executors.base import Executor
    from .tasks.base import Task


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
    """The steps of one pipeline in an order that can run."""

    app: App
    pipeline: Pipeline
    steps: Sequence[Step] = field(default_factory=tuple)

    def __getitem__(self, name: str) -> Step:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """What `rainbow plan --json` prints."""
        return {"pipeline": self.pipeline.pipeline, "steps": [step.as_dict() for step in self.steps]}
