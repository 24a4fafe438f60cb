"""Commands that talk to Prefect: called in this process, or started as a process that a test looks at while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from rainbow_prefect import cli
from tests.conftest import RAINBOW, Done

Call = Callable[..., Done]


@pytest.fixture
def call(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`rainbow ARGS` in this process, which has Prefect loaded already: `call("runs", code=0)`."""

    from prefect.logging.handlers import APILogHandler

    def run(*args: str | Path, cwd: Path | None = None, code: int | None = 0) -> Done:
        monkeypatch.chdir(cwd or tmp_path)
        capfd.readouterr()
        status = cli._call([*map(str, args)])
        APILogHandler().flush()  # as the end of a process does
        out, err = capfd.readouterr()
        if code is not None:
            assert status == code, f"exit status {status}\n{out[-3000:]}\n{err[-3000:]}"
        return Done(status, out, err)

    return run


@pytest.fixture
def name() -> str:
    """The name of a pipeline of this test alone: all tests share one server."""
    return f"p{uuid4().hex[:12]}"


def sales(tasks: str) -> str:
    """A file with one pipeline `sales` of these tasks, a list in YAML."""
    lines = textwrap.indent(textwrap.dedent(tasks).strip("\n"), " " * 6)
    return f"name: shop\npipelines:\n  - pipeline: sales\n    tasks:\n{lines}\n"


def three_tasks(hurdle: str) -> str:
    """`make` gives [1, 2, 3], `add` runs this shell command in each of three slices of it, `report` prints them.

    What runs is noted in the file `ran` of the folder $HERE.
    """
    return sales(f"""
        - {{task: make, type: python, cmd: "echo make >> $HERE/ran; echo '[1, 2, 3]' > out.json", output_path: out.json}}
        - task: add
          type: python
          cmd: |
            echo add $RAINBOW_SPLIT_ID >> $HERE/ran
            {hurdle}
            cp rainbow_input.json out.json
          output_path: out.json
          input: task:make
          split_input: true
          executors: 3
        - {{task: report, type: python, cmd: "echo report >> $HERE/ran; cat rainbow_input.json", input: task:add}}
    """)


def ran(folder: Path) -> list[str]:
    """What `three_tasks` ran since the last look, slices in no order."""
    path = folder / "ran"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(lines)


def latest(call: Call, pipeline: str) -> str:
    """The id of the latest run of a pipeline."""
    run_id: str = call("runs", "--pipeline", pipeline, "--limit", "1", "--json").json["runs"][0]["flow_run_id"]
    return run_id


class Started:
    """A `rainbow` that runs; `folder` is where its tasks write what a test waits for."""

    def __init__(self, words: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [RAINBOW, *words], cwd=folder, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._family: list[psutil.Process] = []

    def wait_for(self, name: str, seconds: float = 90) -> str:
        """Wait until a file of this name has text; gives it."""
        path = self.folder / name
        deadline = time.monotonic() + seconds
        while not (path.exists() and path.read_text()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{name} did not come"
            time.sleep(0.05)
        self._family = psutil.Process(self.process.pid).children(recursive=True)
        return path.read_text()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 60) -> Done:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=seconds)
        return Done(self.process.returncode, out.decode(), err.decode())

    def left_over(self, seconds: float = 20) -> list[str]:
        """The commands of processes that it started and that still run."""
        _, alive = psutil.wait_procs(self._family, timeout=seconds)
        return [" ".join(one.cmdline()) for one in alive]


@pytest.fixture
def start(prefect_server: str, start_anywhere: Callable[..., Started]) -> Callable[..., Started]:
    """Start `rainbow ARGS` in a folder, without waiting for it."""
    return start_anywhere


@pytest.fixture
def start_anywhere() -> Iterator[Callable[..., Started]]:
    """As `start`, with the server that this test's environment names."""
    all_: list[Started] = []

    def begin(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Started:
        all_.append(Started([*args], cwd, env or {}))
        return all_[-1]

    yield begin
    for one in all_:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGKILL)
        one.process.communicate()


def api(url: str, path: str, data: Any = None) -> Any:
    """What Prefect's API itself says."""
    from urllib.request import Request, urlopen

    body = None if data is None else json.dumps(data).encode()
    with urlopen(Request(f"{url}/{path}", body, {"content-type": "application/json"}), timeout=30) as answer:
        return json.loads(answer.read() or "null")
