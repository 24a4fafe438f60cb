"""Fixtures for tests of your own pipelines, a pytest plugin that is there once rainbow-prefect is installed.

    def test_prices_become_numbers(run_task):
        report = run_task("clean", [{"price": "3"}])

        assert report.output == [{"price": 3}]

    def test_the_whole_pipeline(run_pipeline):
        report = run_pipeline("sales", {"day": "2024-01-31"})

        assert report.completed
        assert report["load"].output == {"rows": 3}

Tasks run as processes of this machine, whatever executor the file names: no Docker, no account. `run_task` needs no
server; `run_pipeline` starts a Prefect server of its own, once for all tests (and all workers of pytest-xdist), with
its data in a folder that is removed at the end. To use one that runs already, set RAINBOW_TEST_API_URL.

The file under test is the nearest `rainbow.yml` in or above the folder of the test; another one is chosen by a fixture
`rainbow_config` of your own that returns its path.

pytest imports this module in each of its runs, so nothing is imported here that costs time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from subprocess import Popen

    from .app import App, Pipeline
    from .check import Project
    from .observers.base import Observer
    from .run import Report, TaskReport

API_URL = "RAINBOW_TEST_API_URL"


class RunPipeline(Protocol):
    """What the fixture `run_pipeline` gives."""

    def __call__(
        self,
        pipeline: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        executor: str = "process",
        observers: Sequence[Observer] = (),
    ) -> Report:
        """Run a pipeline to its end; the name may be left out when there is only one.

        A run that fails gives its report, too.

        Raises:
            ConfigError: the file is wrong.
            CallError: no such pipeline, or a parameter is missing.
        """


class RunTask(Protocol):
    """What the fixture `run_task` gives."""

    def __call__(
        self,
        task: str,
        input: Any = None,
        *,
        pipeline: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        executor: str = "process",
    ) -> TaskReport:
        """Run one task with this input (JSON data; cut into slices when the task says so) and nothing before it.

        A task that fails gives its report, too. Retries are left out.

        Raises:
            ConfigError: the file is wrong.
            CallError: no such pipeline or task, or a parameter is missing.
        """


@pytest.fixture
def rainbow_config(request: pytest.FixtureRequest) -> Path:
    """The file under test: the nearest in or above the folder of the test, else the only one below pytest's root."""
    from .document import NAMES, find
    from .errors import CallError

    root = request.config.rootpath
    for folder in request.path.parents:
        for name in sorted(NAMES, reverse=True):
            if (folder / name).is_file():
                return folder / name
        if folder == root:
            break
    below = find(root)
    if len(below) == 1:
        return below[0]
    shown = ", ".join(str(one.relative_to(root)) for one in below) or "none"
    raise CallError(
        f"which rainbow.yml is under test? none is above {request.path.name}, and below {root} there are: {shown}; "
        "write a fixture rainbow_config that returns its path"
    )


@pytest.fixture
def rainbow_project(rainbow_config: Path) -> Project:
    """All that is checked and loaded from `rainbow_config`, a file or a folder."""
    from .check import load

    return load(rainbow_config)


@pytest.fixture
def rainbow_app(rainbow_project: Project) -> App:
    """The app of the file under test."""
    return rainbow_project.apps[0]


@pytest.fixture(scope="session")
def rainbow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of the Prefect server of all tests; Prefect talks to it while they run."""
    given = os.environ.get(API_URL)
    home = _shared_folder(tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        for name in [one for one in os.environ if one.startswith("PREFECT_") and one not in _KEPT]:
            patch.delenv(name)
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_PROFILES_PATH", str(home / "profiles.toml"))
        url, child = (given, None) if given else _server(home)
        patch.setenv("PREFECT_API_URL", url)
        _refresh()
        yield url
        if child is not None and "PYTEST_XDIST_WORKER" not in os.environ:
            child.terminate()
            child.wait()
    _refresh()


@pytest.fixture
def run_pipeline(rainbow_project: Project, rainbow_server: str) -> RunPipeline:
    """Run a pipeline: `run_pipeline("sales", {"day": "2024-01-31"})` gives its `Report`."""

    def run(
        pipeline: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        executor: str = "process",
        observers: Sequence[Observer] = (),
    ) -> Report:
        return _pipeline(rainbow_project, pipeline).run(dict(parameters or {}), executor=executor, observers=observers)

    return run


def _pipeline(project: Project, name: str | None) -> Pipeline:
    from .errors import CallError

    if name is not None:
        return project.pipeline(name)
    names = [one.pipeline for app in project.apps for one in app.pipelines]
    if len(names) != 1:
        raise CallError(f"which pipeline? there are: {', '.join(names) or 'none'}")
    return project.pipeline(names[0])


_KEPT = ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "PREFECT_LOGGING_LEVEL", "PREFECT_TEST_MODE")


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist share; pytest removes those of older runs."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rainbow-prefect"
    folder.mkdir(exist_ok=True)
    return folder


def _server(home: Path) -> tuple[str, Popen[bytes] | None]:
    """Start a Prefect server, or use the one that another worker has started; it ends with the run of pytest."""
    import fcntl
    import socket

    from . import server

    with (home / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = home / "server.url"
        if known.exists():
            return known.read_text(), None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        env = {"PREFECT_API_URL": url, "PREFECT_SERVER_UI_ENABLED": "false"}
        log = home / "server.log"
        child = server._spawn(port, log, cwd=home, env=env, parent=parent)
        server._wait_for(child, url, log, server.START_SECONDS)
        known.write_text(url)
        return url, child


def _refresh() -> None:
    """Make Prefect, when it is imported already, read its settings again."""
    import sys

    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()
