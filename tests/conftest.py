"""What all tests share: one Prefect server for all workers, the command line, folders of files."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).parent.parent
RAINBOW = Path(sys.executable).with_name("rainbow")
HOME = "RAINBOW_TEST_HOME"

# A run of the suite sees nothing of the person who runs it: no profile, no server, no cache, no AWS account.
_FOREIGN = ("PREFECT_", "RAINBOW_", "AWS_", "LIMINAL_")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Started in the background or by nohup, the tests would hand on that these are ignored, and nothing could be ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if hasattr(config, "workerinput"):
        return
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and name not in ("RAINBOW_FUZZ", "RAINBOW_ETL_KILLS", "AWS_CA_BUNDLE"):
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="rainbow-tests-")
    os.environ |= {
        HOME: home,
        "PREFECT_HOME": f"{home}/prefect",
        "XDG_CACHE_HOME": f"{home}/cache",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "COLUMNS": "120",
    }
    if "NO_COLOR" not in os.environ:
        os.environ["NO_COLOR"] = "1"
    os.environ.pop("FORCE_COLOR", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or HOME not in os.environ:
        return
    home = Path(os.environ[HOME])
    pid = home / "server.pid"
    if pid.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)
    if (home / "docker").exists():
        remove_containers((home / "docker").stat().st_mtime)
    for name in ("registry", "postgres", "mariadb"):
        if (home / name).exists():
            command = [ROOT / "scripts" / f"{name}.sh", "stop", str(home / name)]
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    shutil.rmtree(home, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that the last minutes are not one worker's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skipped test is a failed test."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def _server_url() -> str:
    from rainbow_prefect.server import launch

    home = Path(os.environ[HOME])
    with (home / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        url = home / "server.url"
        if not url.exists():
            parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            env = {"PREFECT_HOME": str(home / "prefect-server")}
            child, found = launch(home / "server.log", cwd=home, env=env, parent=parent)
            (home / "server.pid").write_text(str(child.pid))
            url.write_text(found)
        return url.read_text()


@pytest.fixture
def prefect_server(_server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The API address of a real Prefect server that all tests share; it is the server of this test and its children."""
    monkeypatch.setenv("PREFECT_API_URL", _server_url)
    return _server_url


@pytest.fixture
def prefect_api(prefect_server: str) -> Iterator[str]:
    """As `prefect_server`, also for Prefect itself in this process."""
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    refresh_global_settings_context()  # for Prefect's own threads, which do not see temporary settings
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        yield prefect_server
        for worker in (EventsWorker, APILogWorker):  # later there is no server to send the rest to
            worker.drain_all(timeout=10, at_exit=False)


@contextlib.contextmanager
def once(name: str) -> Iterator[Path]:
    """Let one worker of pytest at a time in; it gives the file that tells the others what the first one made."""
    home = Path(os.environ[HOME])
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home / name


def script(name: str, *args: str, timeout: float = 900) -> str:
    """What this script printed. Its test is skipped where it has nothing to work with, and says what to install."""
    done = subprocess.run(
        [ROOT / "scripts" / name, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of a real Docker engine, started if none runs. Skips on a laptop that has none; fails in CI."""
    import docker

    with once("docker") as started:
        if not started.exists():
            script("docker.sh")
            started.write_text(engine_address())
        if started.read_text():
            os.environ["DOCKER_HOST"] = started.read_text()
    client = docker.from_env(timeout=300)
    yield client
    client.close()


def remove_containers(since: float, of: str = "rainbow.flow-run") -> None:
    """Remove the containers that this run of the tests left: made since then, by a process that is gone, not kept on purpose."""
    import docker
    import docker.errors

    from rainbow_prefect.executors._docker_engine import KEEP, OWNER
    from rainbow_prefect.executors._docker_watch import is_gone

    with contextlib.suppress(docker.errors.DockerException, OSError):
        client = docker.from_env(timeout=60)
        try:
            for one in client.api.containers(all=True, filters={"label": of}):
                labels = one["Labels"]
                if one["Created"] >= since and KEEP not in labels and is_gone(labels.get(OWNER, "")):
                    print(f"removed a container that a test left: {one['Names']} {labels}", file=sys.stderr)
                    with contextlib.suppress(docker.errors.APIError):
                        client.api.remove_container(one["Id"], force=True, v=True)
        finally:
            client.close()


def engine_address() -> str:
    """The engine of the chosen `docker context`, which only Docker's own command line looks at."""
    shown = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], capture_output=True, text=True
    ).stdout.strip()
    return "" if shown == "unix:///var/run/docker.sock" else shown


@pytest.fixture(scope="session")
def base_image(docker_engine: docker.DockerClient) -> str:
    """The name of an image with Python 3.11, no matter how it came here."""
    with once("base-image") as made:
        if not made.exists():
            script("base_image.sh", "3.11")
            made.write_text("python:3.11-slim")
        return made.read_text()


@pytest.fixture(scope="session")
def registry(docker_engine: docker.DockerClient) -> str:
    """host:port of an empty image registry of this run of the tests, on loopback, which asks for no name and password."""
    with once("registry-address") as address:
        if not address.exists():
            parent = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            address.write_text(script("registry.sh", "start", str(address.with_name("registry")), str(parent)))
        return address.read_text()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of an AWS in memory."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty AWS in memory, which is the AWS of this test and its children."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"), timeout=10).close()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": moto,
    }.items():
        monkeypatch.setenv(name, value)
    return moto


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Rainbow = Callable[..., Done]


@pytest.fixture
def rainbow(tmp_path: Path) -> Rainbow:
    """Run `rainbow ARGS` in a process of its own: `rainbow("check", ".", cwd=folder, code=0, env={...})`.

    The exit status must be `code` (None: any). There is never a traceback.
    """

    def run(
        *args: str | Path,
        cwd: Path | None = None,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
        stdin: str | None = None,
        program: Sequence[str] = (str(RAINBOW),),
    ) -> Done:
        done = subprocess.run(
            [*program, *map(str, args)],
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=timeout,
            input=(stdin or "").encode(),
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert not re.search(r"^Traceback", err, re.M), err  # one of user code has its task before it
        if code is not None:
            assert done.returncode == code, f"exit status {done.returncode}\n{out[-3000:]}\n{err[-3000:]}"
        return Done(done.returncode, out, err)

    return run


Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Write files and give their folder: `project({"rainbow.yml": "...", "src/a.py": "..."})`; texts are dedented."""

    def write(files: Mapping[str, str], folder: str = "project") -> Path:
        root = tmp_path / folder
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"))
        return root

    return write
