"""`kill -9` of a run: its processes end with it, and a retry runs only what is missing."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Call, latest, ran, three_tasks
from tests.conftest import Project

CONFIG = three_tasks("if [ $RAINBOW_SPLIT_ID = 1 ] && [ ! -e $HERE/mended ]; then echo x > $HERE/begun; sleep 301; fi")


@pytest.fixture
def folder(project: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    root = project({"rainbow.yml": CONFIG.replace("sales", name)})
    monkeypatch.setenv("HERE", str(root))
    return root


def completed(call: Call, run_id: str, task: str, count: int) -> None:
    """Wait until Prefect knows that so many slices of a task completed."""
    deadline = time.monotonic() + 60
    while call("logs", run_id, "--task", task, "--grep", "Completed").out.count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_killed_run_leaves_nothing_and_goes_on_where_it_was(call: Call, start: Any, folder: Path, name: str) -> None:
    run = start("run", cwd=folder)
    run.wait_for("begun")
    run_id = latest(call, name)
    completed(call, run_id, "add", 2)

    run.send(signal.SIGKILL)
    run.end()
    left = run.left_over()
    at_first = ran(folder)
    (folder / "mended").touch()
    report = call("retry", run_id, "--quiet", "--json", cwd=folder).json

    assert left == []
    assert at_first == ["add 0", "add 1", "add 2", "make"]
    assert ran(folder) == ["add 1", "report"]
    assert report["state"] == "completed"
    assert report["tasks"][2]["log_tail"] == ["[[1], [2], [3]]"]


def test_run_that_is_under_way_cannot_be_retried(call: Call, start: Any, folder: Path, name: str) -> None:
    run = start("run", cwd=folder)
    run.wait_for("begun")
    run_id = latest(call, name)

    done = call("retry", run_id, cwd=folder, code=2)

    assert done.err == (
        f"Error: run {run_id} is under way in another process; wait for it, or stop it: rainbow cancel {run_id}\n"
    )
    run.send(signal.SIGINT)
    assert run.end().code == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 2.0])
def test_kill_at_any_moment_loses_nothing(call: Call, start: Any, folder: Path, name: str, seconds: float) -> None:
    (folder / "mended").touch()
    run = start("run", cwd=folder)
    deadline = time.monotonic() + 60
    while not (folder / "ran").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds - 0.2)

    run.send(signal.SIGKILL)
    run.end()
    (found,) = call("runs", "--pipeline", name, "--json").json["runs"]
    if found["state"] != "completed":
        report = call("retry", found["flow_run_id"], "--quiet", "--json", cwd=folder).json
        assert report["tasks"][2]["log_tail"][-1:] in ([], ["[[1], [2], [3]]"])
        assert report["state"] == "completed"

    assert set(ran(folder)) == {"add 0", "add 1", "add 2", "make", "report"}
