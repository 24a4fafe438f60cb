"""A Prefect server that is killed in the middle of a run: it comes back, or it does not."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rainbow_prefect.server import Child, launch
from tests.commands.conftest import Started, api
from tests.conftest import Project, Rainbow

CONFIG = """
    name: shop
    pipelines:
      - pipeline: sales
        tasks:
          - task: wait
            type: python
            cmd: "echo x > $HERE/begun; echo wait >> $HERE/ran; until [ -e $HERE/go ]; do sleep 0.1; done"
          - {task: add, type: python, cmd: "echo add >> $HERE/ran", input: [1, 2, 3], split_input: true, executors: 3}
"""
SECONDS = 600


class OwnServer:
    """A Prefect server of this test alone: it can be killed and started again on its port with its database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child: Child | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(("127.0.0.1", self.port))
        self.port = own.getsockname()[1]
        env = {"PREFECT_HOME": str(self.folder), "PREFECT_SERVER_UI_ENABLED": "false"}
        log = self.folder / "server.log"
        self.child, _ = launch(log, listening=own, cwd=self.folder, env=env, parent=os.getpid())

    def kill(self) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
            self.child = None


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = OwnServer(folder)
    yield server
    server.kill()


@pytest.fixture
def folder(project: Project, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = project({"rainbow.yml": CONFIG})
    monkeypatch.setenv("HERE", str(root))
    monkeypatch.setenv("PREFECT_API_URL", own_server.url)
    return root


def states(url: str, count: int) -> list[str]:
    """How so many task runs ended; their events reach the server a moment later."""
    deadline = time.monotonic() + 60
    while True:
        found = [one["state_name"] for one in api(url, "task_runs/filter", {})]
        if time.monotonic() > deadline or found == ["Completed"] * count:
            return found
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
def test_a_run_goes_on_when_its_server_comes_back(
    start_anywhere: Callable[..., Started], folder: Path, own_server: OwnServer
) -> None:
    run = start_anywhere("run", cwd=folder)
    run.wait_for("begun", SECONDS)

    own_server.kill()
    own_server.start()
    (folder / "go").touch()
    done = run.end(SECONDS)

    assert done.code == 0, done.err
    assert "sales completed in" in done.out
    assert (folder / "ran").read_text().split() == ["wait", "add", "add", "add"]
    assert run.left_over() == []
    (flow_run,) = api(own_server.url, "flow_runs/filter", {})
    assert flow_run["state_name"] == "Completed"
    assert states(own_server.url, 4) == ["Completed"] * 4


@pytest.mark.slow
@pytest.mark.timeout(4 * SECONDS)
def test_a_run_whose_server_stays_away_says_so_and_is_completed_by_a_retry(
    start_anywhere: Callable[..., Started], rainbow: Rainbow, folder: Path, own_server: OwnServer
) -> None:
    run = start_anywhere("run", cwd=folder, env={"PREFECT_CLIENT_MAX_RETRIES": "1"})
    run.wait_for("begun", SECONDS)

    own_server.kill()
    (folder / "go").touch()
    done = run.end(SECONDS)
    left = run.left_over()
    own_server.start()
    (flow_run,) = api(own_server.url, "flow_runs/filter", {})
    again = rainbow("retry", flow_run["id"], "--json", timeout=SECONDS).json

    assert done.code == 1, done.err
    told = re.sub(r"\[Errno \d+\] ", "", done.err)
    assert (
        "warning: the Prefect server was not told that the run completed (Connection refused); when it answers again, "
        f"run `rainbow retry {flow_run['id']}`, which runs nothing again that completed\n"
    ) in told
    assert left == []
    assert again["state"] == "completed"
    assert (folder / "ran").read_text().split() == ["wait", "add", "add", "add"]
    assert api(own_server.url, f"flow_runs/{flow_run['id']}")["state_name"] == "Completed"
