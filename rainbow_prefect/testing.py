"""Fixtures for tests of your own pipelines, a pytest plugin that is there once rainbow-prefect is installed.

    def test_prices_become_numbers(run_task):
        report = run_task("clean", [{"price": "3"}])

        assert report.output == [{"price": 3}]

    def test_the_whole_pipeline(run_pipeline):
        report = run_pipeline("sales", {"day": "2024-01-31"})

        assert report.completed
        assert report["load"].output == {"rows": 3}

    def test_an_endpoint(service_client):
        assert service_client("prices").post("/total", json={"prices": [1, 2]}).json() == {"total": 3}

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

    from starlette.testclient import TestClient

    from .app import App, Pipeline, Service
    from .check import Project
    from .observers.base import Observer
    from .run import PartitionReport, Report, Run, TaskReport
    from .tasks.base import Task

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


class ServiceClient(Protocol):
    """What the fixture `service_client` gives."""

    def __call__(self, service: str | None = None) -> TestClient:
        """A client of a service in this process; the name may be left out when there is only one.

        Its `on_start` has been called, `on_stop` is at the end of the test. An error of a function is an answer, as over
        HTTP.

        Raises:
            ConfigError: the file is wrong.
            CallError: no such service.
            RunError: a module or function is missing, or `on_start` failed.
        """


@pytest.fixture
def rainbow_config(request: pytest.FixtureRequest) -> Path:
    """The file under test: the nearest in or above the folder of the test, else the only one below pytest's root."""
    from .errors import CallError
    from .files import NAMES, find

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
def rainbow_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of the Prefect server of all tests; Prefect talks to it while they run."""
    given = os.environ.get(API_URL)
    is_worker = hasattr(request.config, "workerinput")
    home = _shared_folder(tmp_path_factory, is_worker=is_worker)
    with pytest.MonkeyPatch.context() as patch:
        for name in [one for one in os.environ if one.startswith("PREFECT_") and one not in _KEPT]:
            patch.delenv(name)
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_PROFILES_PATH", str(home / "profiles.toml"))
        url, child = (given, None) if given else _server(home, is_worker=is_worker)
        patch.setenv("PREFECT_API_URL", url)
        _refresh()
        yield url
        if child is not None and not is_worker:
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


@pytest.fixture
def run_task(rainbow_project: Project, tmp_path: Path) -> RunTask:
    """Run one task with an input: `run_task("clean", [{"price": "3"}])` gives its `TaskReport`."""

    def run(
        task: str,
        input: Any = None,
        *,
        pipeline: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        executor: str = "process",
    ) -> TaskReport:
        found = _pipeline(rainbow_project, pipeline) if pipeline else _pipeline_with(rainbow_project, task)
        values = found.values(parameters or {})
        folder = tmp_path / "run_task"
        folder.mkdir(exist_ok=True)
        return _run_task(found.bind(parameters), task, input, parameters=values, executor=executor, folder=folder)

    return run


@pytest.fixture
def service_client(rainbow_project: Project) -> Iterator[ServiceClient]:
    """A client of a service in this process: `service_client("prices").post("/total", json={...}).json()`."""
    import sys
    import warnings
    from contextlib import ExitStack

    path, modules = list(sys.path), set(sys.modules)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def client(service: str | None = None) -> TestClient:
            from .services import create_service
            from .services.local import definition_of

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                from starlette.testclient import TestClient
            definition = definition_of(_service(rainbow_project, service))
            for name, value in definition.env.items():
                patch.setenv(name, value)
            app = create_service(definition)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield client
        stack.close()
    own = [one for one in sys.path if one not in path]
    sys.path[:] = path
    for name in [one for one in sys.modules if one not in modules and _is_below(sys.modules[one], own)]:
        del sys.modules[name]  # the next test may have other code under this name


def _is_below(module: Any, folders: Sequence[str]) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places for folder in folders)


def _service(project: Project, name: str | None) -> Service:
    from .errors import CallError

    if name is not None:
        return project.service(name)
    if len(project.services) != 1:
        raise CallError(f"which service? there are: {', '.join(project.services) or 'none'}")
    return next(iter(project.services.values()))


def _pipeline_with(project: Project, task: str) -> Pipeline:
    """The only pipeline that has this task, else the only one at all."""
    having = [one for app in project.apps for one in app.pipelines if any(own.task == task for own in one.tasks)]
    return having[0] if len(having) == 1 else _pipeline(project, None)


def _run_task(
    pipeline: Pipeline, name: str, input: Any, *, parameters: Mapping[str, Any], executor: str, folder: Path
) -> TaskReport:
    """The task with the code, the variables and the secrets that a run would give it, its slices one after the other."""
    import time

    from .blocks import aws, secret, store
    from .run import Run, TaskReport
    from .secrets import Secrets

    app, task = pipeline.app, pipeline.task(name)
    secrets = Secrets(app.secrets, app.root, secret, load_aws=aws.secret)
    secrets.learn_from(app.data)
    report = TaskReport(name, "completed")
    slices = _slices(task, input)

    def run_of(index: int, given: Any) -> Run:
        return Run(
            app=app.name,
            pipeline=pipeline.pipeline,
            task=name,
            run_id="run_task",
            root=app.root,
            folder=folder,
            executor=app.executor_named(executor),
            secrets=secrets,
            index=index,
            count=len(slices),
            input=given,
            parameters=parameters,
            env=secrets.render({**app.env_vars, **pipeline.env_vars}),
            source=app.source_of(task),
            volumes={one.volume: app.root / one.local.path if one.local else None for one in app.volumes},
            claims={one.volume: one.claim for one in app.volumes},
            sources={one.source: one for one in app.sources if one.source},
            sinks={one.sink: one for one in app.sinks if one.sink},
            saved=store,
            deadline=None if task.timeout_minutes is None else time.monotonic() + 60 * task.timeout_minutes,
            write=lambda line: report.log_tail.append(secrets.mask(line)),
        )

    rendered = secrets.render(task)
    began = time.monotonic()
    for index, given in enumerate(slices):
        report.partitions.append(_run_slice(rendered, run_of(index, given)))
    rendered.end("run_task")
    report.seconds = time.monotonic() - began
    outputs = [one.output for one in report.partitions]
    report.output = outputs if task.is_split else outputs[0]
    for one in report.partitions:
        if one.state != "completed":
            report.state, report.message = one.state, report.message or one.message
    return report


def _run_slice(task: Task, run: Run) -> PartitionReport:
    import time
    from dataclasses import replace

    from .errors import TaskFailed, TimedOut
    from .run import PartitionReport, value_of

    report = PartitionReport(run.index, run.input, "completed", attempts=1)
    began = time.monotonic()
    try:
        if run.index == 0:
            task.prepare(replace(run, input=None))
        report.output = value_of(task.run(run))
        report.exit_code = 0
    except TaskFailed as error:
        report.state = "timed_out" if isinstance(error, TimedOut) else "failed"
        report.exit_code = error.status
        report.message = run.secrets.mask(str(error))
    except Exception as error:
        report.state = "failed"
        report.message = run.secrets.mask(f"{type(error).__name__}: {error}")
    report.seconds = time.monotonic() - began
    return report


def _slices(task: Task, input: Any) -> list[Any]:
    from .errors import CallError
    from .run import chunks, split

    if not (task.split_input or task.split_size):
        return [input] * task.slice_count
    if not isinstance(input, list):
        raise CallError(f"task '{task.task}' splits its input, so it must be a list, got {type(input).__name__}")
    return list(chunks(input, task.split_size) if task.split_size else split(input, task.executors))


def _pipeline(project: Project, name: str | None) -> Pipeline:
    from .errors import CallError

    if name is not None:
        return project.pipeline(name)
    names = [one.pipeline for app in project.apps for one in app.pipelines]
    if len(names) != 1:
        raise CallError(f"which pipeline? there are: {', '.join(names) or 'none'}")
    return project.pipeline(names[0])


_KEPT = ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "PREFECT_LOGGING_LEVEL", "PREFECT_TEST_MODE")


def _shared_folder(factory: pytest.TempPathFactory, *, is_worker: bool) -> Path:
    """A folder that all workers of pytest-xdist share; pytest removes those of older runs."""
    base = factory.getbasetemp()
    folder = (base.parent if is_worker else base) / "rainbow-prefect"
    folder.mkdir(exist_ok=True)
    return folder


def _server(home: Path, *, is_worker: bool) -> tuple[str, Popen[bytes] | None]:
    """Start a Prefect server, or use the one that another worker has started; it ends with the run of pytest."""
    import fcntl

    from . import server

    with (home / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = home / "server.url"
        if known.exists():
            return known.read_text(), None
        parent = os.getppid() if is_worker else os.getpid()
        env = {"PREFECT_SERVER_UI_ENABLED": "false"}
        child, url = server.launch(home / "server.log", cwd=home, env=env, parent=parent)
        known.write_text(url)
        return url, child


def _refresh() -> None:
    """Make Prefect, when it is imported already, read its settings again."""
    import sys

    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()
