"""Runs that end early: deadlines, cancels, signals, and tasks that do not listen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import engine
from rainbow_prefect.engine import loop
from rainbow_prefect.errors import Cancelled, TimedOut
from rainbow_prefect.observers.base import RecordingObserver

pytestmark = pytest.mark.usefixtures("prefect_api")


def wait(run: Any) -> None:
    """Wait as an executor does: until it is told to stop, or its deadline has passed."""
    while not run.stop.wait(0.05):
        if run.remaining_seconds() == 0:
            raise TimedOut("the deadline has passed")
    raise (TimedOut if run.timed_out else Cancelled)("stopped")


def test_the_timeout_of_a_pipeline_ends_all_of_it(load: Any, functions: Any, seen: Any) -> None:
    functions["slow"] = wait
    recording = RecordingObserver()
    pipeline = load(
        """
        - {task: quick, type: call}
        - {task: slow, type: call}
        - {task: tidy, type: call, when: always}
        """,
        more="timeout_minutes: 0.02",
    )

    report = pipeline.run(observers=[recording])

    assert (report.state, report.message) == ("timed_out", "pipeline 'p' timed out after 1.2 s")
    assert [(one.task, one.state) for one in report.tasks] == [
        ("quick", "completed"),
        ("slow", "failed"),
        ("tidy", "not_run"),
    ]
    assert report["slow"].message == "pipeline 'p' timed out after 1.2 s"
    assert report["slow"].partitions[0].state == "timed_out"
    state = seen(report.flow_run_id).state
    assert (state.type.value, state.name, state.message) == ("FAILED", "TimedOut", report.message)
    assert seen(report.flow_run_id).states(2) == [("quick", "Completed"), ("slow", "TimedOut")]
    assert recording.events[-1].state == "timed_out"


def test_the_timeout_of_a_task_fails_its_slice(load: Any, functions: Any, seen: Any) -> None:
    functions["slow"] = lambda run: wait(run) if run.index else "done"
    pipeline = load("- {task: slow, type: call, executors: 2, timeout_minutes: 0.01, retries: 1}")

    report = pipeline.run()

    assert report.state == "failed"
    assert [(one.state, one.attempts) for one in report["slow"].partitions] == [("completed", 1), ("timed_out", 2)]
    assert report["slow"].message == "1 of 2 slices failed: slow[1] (input null): timed out after 0.6 s"
    assert seen(report.flow_run_id).states(2) == [("slow[0]", "Completed"), ("slow[1]", "TimedOut")]


def test_a_task_without_a_deadline_of_its_own_is_told_to_stop(load: Any, functions: Any) -> None:
    functions["slow"] = lambda run: run.stop.wait(30)
    pipeline = load("- {task: slow, type: call, timeout_minutes: 0.01}")

    began = time.monotonic()
    report = pipeline.run()

    assert report["slow"].message == "timed out after 0.6 s"
    assert time.monotonic() - began < 15


def test_a_task_that_does_not_listen_is_left_alone(
    load: Any, functions: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GRACE_SECONDS", 0.5)
    released = threading.Event()
    functions["deaf"] = lambda run: released.wait(60)
    pipeline = load(
        "- {task: deaf, type: call}\n- {task: tidy, type: call, when: always}", more="timeout_minutes: 0.01"
    )

    began = time.monotonic()
    report = pipeline.run()

    assert time.monotonic() - began < 20
    assert report.state == "timed_out"
    assert report["deaf"].partitions[0].message == "timed out; it did not stop within 0.5 s and was left alone"
    assert seen(report.flow_run_id).states(1) == [("deaf", "TimedOut")]
    released.set()


def test_a_wait_before_a_retry_ends_with_the_run(load: Any, functions: Any) -> None:
    functions["boom"] = lambda run: 1 / 0
    pipeline = load("- {task: boom, type: call, retries: 3, retry_delay_seconds: 60}", more="timeout_minutes: 0.02")

    began = time.monotonic()
    report = pipeline.run()

    assert report.state == "timed_out"
    assert time.monotonic() - began < 20


def test_a_cancel_in_prefect_ends_the_run(load: Any, functions: Any, seen: Any) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    def cancel(run: Any) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.run_id, Cancelling())
        wait(run)

    functions["slow"] = cancel
    pipeline = load("- {task: slow, type: call, retries: 5}\n- {task: tidy, type: call, when: always}")

    report = pipeline.run()

    assert (report.state, report.message) == ("cancelled", "the run was cancelled")
    assert [(one.task, one.state, one.message) for one in report.tasks] == [
        ("slow", "failed", "cancelled"),
        ("tidy", "not_run", ""),
    ]
    assert report["slow"].partitions[0].state == "cancelled"
    assert seen(report.flow_run_id).state.name == "Cancelled"
    assert seen(report.flow_run_id).states(1) == [("slow", "Cancelled")]


def test_a_cancelled_run_can_be_retried(load: Any, functions: Any, calls: Any) -> None:
    stop = threading.Event()

    def slow(run: Any) -> int:
        if not stop.is_set():
            stop.set()
            wait(run)
        return 5

    functions["slow"] = slow
    plan = load("- {task: first, type: call}\n- {task: slow, type: call}").plan()
    report = engine.run(plan, stop=stop)
    assert (report.state, report.message) == ("cancelled", "interrupted")

    again = engine.retry(plan, report.flow_run_id)

    assert (again.state, again["slow"].output) == ("completed", 5)
    assert [name for name, _, _ in calls] == ["first", "slow", "slow"]


def test_slices_that_wait_for_their_turn_do_not_start_after_a_cancel(load: Any, functions: Any, calls: Any) -> None:
    stop = threading.Event()

    def slow(run: Any) -> None:
        stop.set()
        wait(run)

    functions["slow"] = slow
    pipeline = load("- {task: slow, type: call, input: [1, 2, 3, 4], split_size: 1, executors: 2}")

    report = engine.run(pipeline.plan(), stop=stop)

    assert [one.state for one in report["slow"].partitions] == ["cancelled", "cancelled", "not_run", "not_run"]
    assert report["slow"].message == "0 of 4 slices completed; interrupted"
    assert len(calls) <= 2


PLUGIN = """
import time
from typing import Literal

from rainbow_prefect.errors import Cancelled
from rainbow_prefect.tasks.base import Task


class Slow(Task):
    type: Literal["slow"] = "slow"

    def run(self, run):
        print("begun", flush=True)
        run.stop.wait(60)
        raise Cancelled("stopped")
"""

RUN = """
import sys
from rainbow_prefect import check, engine

report = engine.run(check.load(sys.argv[1]).pipeline("p").plan())
print(report.state, report.message, report.flow_run_id)
"""


@pytest.mark.parametrize("number, message", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")])
def test_a_signal_cancels_the_run(number: int, message: str, tmp_path: Path, seen: Any) -> None:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "slow.py").write_text(PLUGIN)
    (root / "rainbow.yml").write_text(
        "name: s\nplugins: [plugins]\npipelines:\n- {pipeline: p, tasks: [{task: a, type: slow}]}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root)],
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"

    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    state, _, rest = out.strip().partition(" ")
    assert (state, rest.rpartition(" ")[0]) == ("cancelled", message), err
    assert seen(rest.rpartition(" ")[2]).state.name == "Cancelled"
