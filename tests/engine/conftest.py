"""Pipelines whose tasks call functions of the test, and what Prefect knows of their runs."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest

from rainbow_prefect import check, registry
from rainbow_prefect.app import Pipeline
from rainbow_prefect.run import Run
from rainbow_prefect.tasks.base import Task

FUNCTIONS: dict[str, Callable[[Run], Any]] = {}
CALLS: list[tuple[str, int, int]] = []


class Call(Task):
    """Calls a function of the test with the run; `do` is its name, absent: the name of the task, else the input."""

    type: Literal["call"] = "call"
    do: str | None = None
    note: str = ""

    def run(self, run: Run) -> Any:
        CALLS.append((run.task, run.index, run.attempt))
        name = self.do or (run.task if run.task in FUNCTIONS else None)
        return FUNCTIONS[name](run) if name else run.input


@pytest.fixture(autouse=True)
def _call_type() -> Iterator[None]:
    registry.tasks.add("call", Call)
    FUNCTIONS.clear()
    CALLS.clear()
    yield
    registry.tasks.discard("call")


@pytest.fixture
def calls() -> list[tuple[str, int, int]]:
    """Every attempt that was begun: task, slice, attempt."""
    return CALLS


@pytest.fixture
def functions() -> dict[str, Callable[[Run], Any]]:
    """The functions that tasks of type `call` call, by name."""
    return FUNCTIONS


Load = Callable[..., Pipeline]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """The pipeline `p` of an app `shop` with these tasks (YAML); `more` is YAML of the pipeline, `root` of the file."""

    def made(tasks: str, *, more: str = "", root: str = "") -> Pipeline:
        folder = tmp_path / "app"
        folder.mkdir(exist_ok=True)
        text = "name: shop\n" + textwrap.dedent(root) + "\npipelines:\n- pipeline: p\n"
        text += textwrap.indent(textwrap.dedent(more), "  ") + "\n  tasks:\n"
        text += textwrap.indent(textwrap.dedent(tasks), "  ")
        (folder / "rainbow.yml").write_text(text)
        return check.load(folder).pipeline("p")

    return made


class Seen:
    """What Prefect knows of a flow run."""

    def __init__(self, run_id: str) -> None:
        from prefect.client.orchestration import get_client

        self._client = get_client(sync_client=True)
        self.id = UUID(run_id)

    @property
    def run(self) -> Any:
        return self._client.read_flow_run(self.id)

    @property
    def state(self) -> Any:
        return self.run.state

    def task_runs(self, count: int | None = None) -> list[Any]:
        """The task runs in the order of their names; events reach the server a moment later."""
        deadline = time.monotonic() + 30
        while True:
            found = self._client.request(
                "POST",
                "/task_runs/filter",
                json={"flow_runs": {"id": {"any_": [str(self.id)]}}, "limit": 200},
            ).json()
            settled = all(one["state_type"] not in ("PENDING", "RUNNING") for one in found)
            if time.monotonic() > deadline or (settled and (count is None or len(found) >= count)):
                return sorted(found, key=lambda one: (one["name"], one["start_time"] or ""))
            time.sleep(0.2)

    def states(self, count: int | None = None) -> list[tuple[str, str]]:
        return [(one["name"], one["state_name"]) for one in self.task_runs(count)]

    def logs(self, *wanted: str) -> list[str]:
        """The messages of its logs, once these are among them."""
        deadline = time.monotonic() + 30
        while True:
            found = self._client.request(
                "POST",
                "/logs/filter",
                json={"logs": {"flow_run_id": {"any_": [str(self.id)]}}, "limit": 200, "sort": "TIMESTAMP_ASC"},
            ).json()
            messages = [one["message"] for one in found]
            if time.monotonic() > deadline or all(any(text in one for one in messages) for text in wanted):
                return messages
            time.sleep(0.2)


@pytest.fixture
def seen(prefect_api: str) -> type[Seen]:
    return Seen
