"""The flow by itself, as a deployment, a worker or the Retry button runs it."""

from __future__ import annotations

import inspect
import re
from datetime import date
from typing import Any

import pytest

from rainbow_prefect import build_flow
from rainbow_prefect.errors import TaskFailed

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_a_flow_has_the_name_and_the_typed_parameters_of_its_pipeline(load: Any) -> None:
    pipeline = load(
        "- {task: a, type: call, input: ['{{day}}', '{{count}}']}",
        more="description: Count the days.\nparameters:\n- {name: day, type: date}\n- {name: count, default: 3}",
    )

    flow = build_flow(pipeline.plan())

    assert (flow.name, flow.description, flow.retries) == ("p", "Count the days.", 0)
    parameters = inspect.signature(flow.fn).parameters
    assert [(one.name, one.annotation) for one in parameters.values()] == [("day", date), ("count", int)]
    assert flow.parameters.required == ["day"]
    assert flow.parameters.properties["day"]["format"] == "date"
    assert flow.parameters.properties["count"]["default"] == 3


def test_a_flow_can_be_called_with_parameters(load: Any) -> None:
    pipeline = load("- {task: a, type: call, input: {n: '{{count}}'}}", more="parameters:\n- {name: count, type: int}")

    state = build_flow(pipeline.plan())(count=4, return_state=True)

    assert state.is_completed()


def test_a_flow_that_fails_ends_as_failed_with_the_reason(load: Any, functions: Any) -> None:
    functions["a"] = lambda run: 1 / 0

    state = build_flow(load("- {task: a, type: call}").plan())(return_state=True)

    assert (state.name, state.message) == ("Failed", "task 'a' failed: ZeroDivisionError: division by zero")


def test_a_flow_that_takes_too_long_ends_as_timed_out(load: Any, functions: Any) -> None:
    functions["a"] = lambda run: run.stop.wait(30)

    state = build_flow(load("- {task: a, type: call}", more="timeout_minutes: 0.01").plan())(return_state=True)

    assert (state.type.value, state.name) == ("FAILED", "TimedOut")


def test_the_retry_button_runs_what_did_not_complete(load: Any, functions: Any, calls: Any) -> None:
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import AwaitingRetry

    broken = {1}

    def part(run: Any) -> int:
        if run.index in broken:
            raise TaskFailed("not now")
        return run.index

    functions["part"] = part
    plan = load("- {task: part, type: call, executors: 3}\n- {task: sum, type: call, input: task:part}").plan()
    failed = build_flow(plan)(return_state=True)
    calls.clear()
    broken.clear()

    with get_client(sync_client=True) as client:
        run_id = failed.state_details.flow_run_id
        client.set_flow_run_state(run_id, AwaitingRetry(), force=True)
        state = run_flow(build_flow(plan), flow_run=client.read_flow_run(run_id), return_type="state")

    assert state.is_completed()
    assert calls == [("part", 1, 1), ("sum", 0, 1)]


def test_observers_of_the_config_are_told_in_a_flow(load: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = load("- {task: a, type: call}", more="metrics: {namespace: Shop, backends: [log]}")

    with caplog.at_level("INFO", "rainbow_prefect"):
        build_flow(pipeline.plan())()

    told = [one.message for one in caplog.records if "metric" in one.message]
    assert [re.sub(r"JobDuration=\d+", "JobDuration=N", one) for one in told] == [
        "metric Shop JobStarted=1 (ApplicationName=p)",
        "metric Shop JobResult=1 (ApplicationName=p)",
        "metric Shop JobDuration=N (ApplicationName=p)",
    ]


def test_two_runs_of_a_pipeline_do_not_meet(load: Any, functions: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    pipeline = load(
        "- {task: a, type: call, input: ['{{n}}'], executors: 2}\n- {task: b, type: call, input: task:a}",
        more="parameters:\n- {name: n, type: int}",
    )
    contexts = [copy_context() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(context.run, pipeline.run, {"n": n}) for n, context in enumerate(contexts)]
        reports = [one.result() for one in running]

    assert [one["b"].output for one in reports] == [[[n], [n]] for n in range(4)]
    assert len({one.flow_run_id for one in reports}) == 4
