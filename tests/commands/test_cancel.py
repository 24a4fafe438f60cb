"""`rainbow cancel` of runs that live, that are over, and that nobody executes."""

from __future__ import annotations

import signal
from typing import Any
from uuid import uuid4

from tests.commands.conftest import Call, api, latest
from tests.commands.test_runs import flow_run
from tests.conftest import Project

SLOW = """
    name: shop
    pipelines:
      - pipeline: {name}
        tasks:
          - {{task: wait, type: python, cmd: "echo here > $HERE/begun$RAINBOW_SPLIT_ID; sleep 301", executors: 2}}
          - {{task: report, type: python, cmd: echo reported}}
"""


def test_run_is_stopped_with_all_it_started(
    call: Call, start: Any, project: Project, prefect_server: str, name: str
) -> None:
    folder = project({"rainbow.yml": SLOW.format(name=name)})
    run = start("run", "--json", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun0")
    run.wait_for("begun1")

    done = call("cancel", latest(call, name))
    ended = run.end()

    run_id = ended.json["flow_run_id"]
    assert done.out == f"run {run_id} of {name} is cancelled\n"
    assert (ended.code, ended.json["state"]) == (1, "cancelled")
    assert ended.json["message"] == "the run was cancelled"
    assert run.left_over() == []
    assert api(prefect_server, f"flow_runs/{run_id}")["state"]["type"] == "CANCELLED"


def test_run_that_is_over_stays_as_it_is(call: Call, project: Project, name: str) -> None:
    folder = project({"rainbow.yml": SLOW.format(name=name).replace("sleep 301", "true")})
    report = call("run", folder, "--quiet", "--json", code=None).json

    done = call("cancel", report["flow_run_id"])
    shown = call("cancel", report["flow_run_id"], "--json").json

    state = report["state"]
    assert done.out == f"run {report['flow_run_id']} of {name} is over already: {state}\n"
    assert shown == {"flow_run_id": report["flow_run_id"], "pipeline": name, "state": state}


def test_run_whose_process_was_killed_is_cancelled_at_once(call: Call, start: Any, project: Project, name: str) -> None:
    folder = project({"rainbow.yml": SLOW.format(name=name)})
    run = start("run", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun0")
    run_id = latest(call, name)
    run.send(signal.SIGKILL)
    run.end()

    done = call("cancel", run_id, "--wait", "5")

    assert done.out == f"run {run_id} of {name} is cancelled\n"
    assert run.left_over() == []


def test_run_that_has_not_begun_is_cancelled_at_once(call: Call, prefect_api: str, name: str) -> None:
    run_id = flow_run(prefect_api, name, "SCHEDULED")

    shown = call("cancel", run_id, "--json").json

    assert shown["state"] == "cancelled"


def test_run_that_does_not_stop_in_time_is_told(call: Call, prefect_api: str, name: str) -> None:
    run_id = flow_run(prefect_api, name, "RUNNING")

    done = call("cancel", run_id, "--wait", "1", code=1)

    assert done.out == (
        f"run {run_id} of {name} has not stopped yet; is the process alive that runs it? "
        "`rainbow cancel` can be called again\n"
    )


def test_unknown_run(call: Call) -> None:
    run_id = str(uuid4())

    done = call("cancel", run_id, code=2)

    assert done.err == f"Error: there is no run '{run_id}'; `rainbow runs` lists them\n"
