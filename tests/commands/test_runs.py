"""`rainbow runs`, and what a run may be called."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest

from rainbow_prefect.commands.runs import find_run
from rainbow_prefect.errors import CallError
from tests.commands.conftest import Call, api
from tests.conftest import Project, Rainbow

CONFIG = """
    name: shop
    pipelines:
      - pipeline: {name}
        parameters: [{{name: fail, type: bool, default: false}}]
        tasks:
          - {{task: work, type: python, cmd: "if [ {{{{fail}}}} = true ]; then exit 1; fi"}}
"""


@pytest.fixture
def pipeline(call: Call, project: Project) -> str:
    """The name of a pipeline with a run that completed and, after it, one that failed."""
    name = f"p{uuid4().hex[:8]}"
    folder = project({"rainbow.yml": CONFIG.format(name=name)})
    call("run", folder, "--quiet")
    call("run", folder, "--quiet", "--param", "fail=true", code=1)
    return name


def flow_run(url: str, pipeline: str, state: str, **more: object) -> str:
    """A run that no process executes; gives its id."""
    flow = api(url, "flows/", {"name": pipeline})
    made = api(url, "flow_runs/", {"flow_id": flow["id"], "state": {"type": state}, **more})
    return str(made["id"])


def test_runs_are_listed_the_newest_first(call: Call, pipeline: str) -> None:
    shown = call("runs", "--pipeline", pipeline).out.splitlines()
    runs = call("runs", "--pipeline", pipeline, "--json").json["runs"]

    assert shown[0].split() == ["RUN", "NAME", "PIPELINE", "STATE", "STARTED", "TOOK"]
    assert [line.split()[2:4] for line in shown[1:]] == [[pipeline, "failed"], [pipeline, "completed"]]
    assert [one["state"] for one in runs] == ["failed", "completed"]
    assert runs[0]["message"] == "task 'work' failed: exit status 1"
    assert runs[0]["link"].endswith(f"/runs/flow-run/{runs[0]['flow_run_id']}")
    assert runs[0]["started"] > runs[1]["started"]
    assert all(0 < one["seconds"] < 100 for one in runs)


def test_runs_of_a_state(call: Call, pipeline: str, prefect_api: str) -> None:
    late = flow_run(prefect_api, pipeline, "RUNNING")
    failed = call("runs", "--pipeline", pipeline, "--state", "failed", "--json").json["runs"]
    two = call("runs", "--pipeline", pipeline, "--state", "COMPLETED", "--state", "running", "--json").json["runs"]
    none = call("runs", "--pipeline", pipeline, "--state", "timed_out")

    assert [one["state"] for one in failed] == ["failed"]
    assert sorted(one["state"] for one in two) == ["completed", "running"]
    assert late in [one["flow_run_id"] for one in two]
    assert none.out == "no runs\n"


def test_limit(call: Call, pipeline: str) -> None:
    assert len(call("runs", "--pipeline", pipeline, "--limit", "1", "--json").json["runs"]) == 1


def test_more_runs_than_one_page(call: Call, prefect_api: str) -> None:
    name = f"p{uuid4().hex[:8]}"
    for _ in range(205):
        flow_run(prefect_api, name, "COMPLETED")

    assert len(call("runs", "--pipeline", name, "--limit", "1000", "--json").json["runs"]) == 205


def test_runs_to_come_are_listed_only_when_asked_for(call: Call, prefect_api: str) -> None:
    name = f"p{uuid4().hex[:8]}"
    flow = api(prefect_api, "flows/", {"name": name})
    details = {"scheduled_time": "2099-01-01T00:00:00Z"}
    body = {"flow_id": flow["id"], "state": {"type": "SCHEDULED", "state_details": details}}
    to_come = api(prefect_api, "flow_runs/", body)["id"]

    assert call("runs", "--pipeline", name).out == "no runs\n"
    shown = call("runs", "--pipeline", name, "--state", "scheduled", "--json").json["runs"]
    assert [(one["flow_run_id"], one["state"]) for one in shown] == [(to_come, "scheduled")]


def test_unknown_state(call: Call) -> None:
    done = call("runs", "--state", "faild", code=2)

    assert done.err == "Error: unknown state 'faild'; did you mean 'failed'?\n"


def test_run_has_many_names(call: Call, pipeline: str) -> None:
    _, oldest = call("runs", "--pipeline", pipeline, "--json").json["runs"]

    for called in (
        oldest["flow_run_id"],
        oldest["flow_run_id"][:13],
        oldest["flow_run_id"][:8].upper(),
        oldest["name"],
    ):
        assert find_run(called).id == oldest["flow_run_id"]


@pytest.mark.parametrize("called", ["last", "latest"])
def test_last_is_the_latest_of_all_or_of_these_states(call: Call, prefect_api: str, called: str) -> None:
    flow_run(prefect_api, "lonely", "CRASHED")

    assert find_run(called, states=("crashed",)).state == "crashed"
    assert find_run(called, states=("paused",)).id  # there is none: the latest of all


def test_name_that_fits_many_runs(call: Call, prefect_api: str) -> None:
    ids = sorted(flow_run(prefect_api, "twins", "COMPLETED", name="the-twins") for _ in range(2))

    with pytest.raises(CallError) as caught:
        find_run("the-twins")

    assert str(caught.value).startswith("'the-twins' fits more than one run: ")
    assert all(one in str(caught.value) for one in ids)
    assert str(caught.value).endswith("; give more of the id")


def test_name_of_no_run_has_a_near_match(call: Call, prefect_api: str) -> None:
    flow_run(prefect_api, "lonely", "COMPLETED", name="extraordinary-platypus")

    with pytest.raises(CallError) as caught:
        find_run("extraordinary-platipus")

    assert str(caught.value) == ("there is no run 'extraordinary-platipus'; did you mean 'extraordinary-platypus'?")


def test_id_of_no_run(call: Call) -> None:
    run_id = str(uuid4())

    with pytest.raises(CallError, match=f"there is no run '{run_id}'; `rainbow runs` lists them"):
        find_run(run_id)


@pytest.mark.parametrize("words", [["runs"], ["logs", "last"], ["cancel", "last"], ["retry", "last"]])
def test_server_that_does_not_answer_is_told(rainbow: Rainbow, words: list[str]) -> None:
    done = rainbow(*words, env={"PREFECT_API_URL": "http://user:hidden@127.0.0.1:9/api"}, code=1)

    assert (done.out, done.err) == (
        "",
        "Error: the Prefect server at http://127.0.0.1:9/api does not answer (connection refused); "
        "start it, or unset PREFECT_API_URL to use a local one\n",
    )


@pytest.fixture
def broken_server() -> Iterator[str]:
    """A server that answers 500, whatever is asked."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *args: object) -> None: ...

    app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{app.server_port}/api"
    app.shutdown()
    app.server_close()


def test_server_that_breaks_is_told(rainbow: Rainbow, broken_server: str) -> None:
    env = {"PREFECT_API_URL": broken_server, "PREFECT_CLIENT_MAX_RETRIES": "0"}

    done = rainbow("runs", env=env, code=1)

    assert done.err == (
        f"Error: the Prefect server at {broken_server} answered 500 Internal Server Error; its log says why\n"
    )
