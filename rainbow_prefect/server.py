"""Which Prefect server a run talks to, and a local one in the background; Prefect itself is not imported here.

`connect()` takes, in this order: the server that Prefect's settings name; the one of `rainbow server start`; one that
answers on Prefect's own port 4200; else one of its own that ends with this process. All of them but the first two keep
their runs in the same database (`PREFECT_HOME`), so that a later `rainbow server start` shows every earlier run.

The state folder is `$PREFECT_HOME/rainbow`, else `~/.rainbow`: `server.json` (which process it is), `server.log`, locks.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from .errors import CallError, RunError

HOST = "127.0.0.1"
PORT = 4200
START_SECONDS = 300.0
"""A first start takes 12 s on a quiet machine, and five times that on a loaded one without compiled files."""

_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 5.0
_BUSY_SECONDS = 30.0
_PORTS = range(PORT, PORT + 100)

Tell = Callable[[str], None]
Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Connection:
    """The server that a run talks to; `ui_url` is None when it has no UI or ends with the run."""

    api_url: str
    ui_url: str | None
    kind: Literal["configured", "local", "ephemeral"]

    def run_url(self, flow_run_id: str) -> str | None:
        """The page of a flow run in the Prefect UI."""
        return None if self.ui_url is None else f"{self.ui_url}/runs/flow-run/{flow_run_id}"


@dataclass(frozen=True)
class Server:
    """The background server as it was started; `born` tells its process from a later one with the same pid."""

    pid: int
    born: str
    port: int
    since: float
    log: str

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True)
class Status:
    """What `rainbow server status` tells; `uses` is the address that `rainbow run` would use, None: one of its own."""

    state: Literal["running", "not answering", "stopped"]
    server: Server | None
    uses: str | None


# -- which server a run talks to --------------------------------------------------------------------------------------


def connect(*, tell: Tell = lambda text: None) -> Connection:
    """Choose the Prefect server of this process and make Prefect use it; starts one when there is none.

    Raises:
        RunError: the configured server refuses connections, or the server does not start; says why.
    """
    if url := configured_url():
        if not _is_address(url):
            raise RunError(
                f"'{bare(url)}' is not the address of a Prefect server (PREFECT_API_URL); "
                f"write one such as http://{HOST}:{PORT}/api, or unset it to use a local one"
            )
        if refusal := _refusal(url):
            raise RunError(
                f"the Prefect server at {bare(url)} does not answer ({refusal}); "
                "start it, or unset PREFECT_API_URL to use a local one"
            )
        return Connection(url, ui_url(url), "configured")
    connection = _local() or _ephemeral(tell)
    _use(connection.api_url)
    return connection


def configured_url() -> str | None:
    """The API address that Prefect's own settings name: environment, `.env`, prefect.toml, pyproject.toml, profile."""
    if settings := sys.modules.get("prefect.settings"):
        url = settings.get_current_settings().api.url
        return None if url is None or _ephemeral_url() == url else str(url)
    url = setting("PREFECT_API_URL", "api", "url")
    return url.rstrip("/") if url and url != _ephemeral_url() else None


def ui_url(api_url: str) -> str | None:
    """Where a person looks at what is behind this API address."""
    if url := os.environ.get("PREFECT_UI_URL"):
        return url.rstrip("/")
    if "//api.prefect.cloud" in api_url:
        url = api_url.replace("//api.prefect.cloud/api", "//app.prefect.cloud")
        return url.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
    return bare(api_url).removesuffix("/api")


def setting(name: str, *keys: str) -> str | None:
    """A setting of Prefect by the name of its variable and by its keys in a file; None when nothing sets it.

    Reads what Prefect would read, in its order: importing its settings costs 1.5 CPU seconds.
    """
    if value := os.environ.get(name) or _dotenv().get(name):
        return value
    for file, above in (("prefect.toml", ()), ("pyproject.toml", ("tool", "prefect"))):
        if value := _below(_toml(Path(file)), *above, *keys):
            return str(value)
    value = _profile().get(name)
    return None if value is None else str(value)


def _dotenv() -> Mapping[str, str | None]:
    if not Path(".env").is_file():
        return {}
    from dotenv import dotenv_values

    return dotenv_values(".env")


def _profile() -> Mapping[str, Any]:
    """The settings of the active profile."""
    data = _toml(_profiles_path())
    active = os.environ.get("PREFECT_PROFILE") or data.get("active") or ""
    found = _below(data, "profiles", active)
    return found if isinstance(found, dict) else {}


def _profiles_path() -> Path:
    named = (
        os.environ.get("PREFECT_PROFILES_PATH")
        or _dotenv().get("PREFECT_PROFILES_PATH")
        or _below(_toml(Path("prefect.toml")), "profiles_path")
        or _below(_toml(Path("pyproject.toml")), "tool", "prefect", "profiles_path")
    )
    return Path(named) if named else prefect_home() / "profiles.toml"


def _toml(path: Path) -> dict[str, Any]:
    """The data of a file, {} when it is missing or broken: Prefect itself complains about a broken one."""
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _below(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _use(api_url: str) -> None:
    """Make Prefect, and the processes this one starts, talk to this server."""
    os.environ["PREFECT_API_URL"] = api_url
    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()


def lasting() -> Connection | None:
    """The server that keeps what it is told: the configured one, else one on this machine; None when there is none.

    Raises:
        RunError: the configured server refuses connections.
    """
    return connect() if configured_url() else _local()


def has_own_database() -> bool:
    """Whether this process' settings give servers that it starts another database than SQLite."""
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    return any("sqlite" not in (setting(name, "server", "database", "connection_url") or "sqlite") for name in names)


def _local() -> Connection | None:
    """A healthy server on this machine: ours, else any on Prefect's own port."""
    if server := running():
        if not _wait_until(lambda: _answers(server.api_url), _BUSY_SECONDS):
            raise RunError(
                f"the Prefect server of `rainbow server start` (pid {server.pid}) does not answer at {server.api_url}; "
                "run `rainbow server stop`, then try again"
            )
        return Connection(server.api_url, server.ui_url, "local")
    url = f"http://{HOST}:{PORT}/api"
    return Connection(url, ui_url(url), "local") if _is_usable(url) else None


# -- asking a server --------------------------------------------------------------------------------------------------


def _get(url: str, *, seconds: float = _ANSWER_SECONDS) -> Any:
    """The JSON answer to a GET.

    Raises:
        OSError: no answer, or not status 200.
        ValueError: not JSON.
    """
    from urllib.parse import unquote
    from urllib.request import ProxyHandler, Request, build_opener

    request = Request(bare(url))  # noqa: S310  the address is a server's, never a file's
    user = url.partition("//")[2].partition("/")[0].rpartition("@")[0]
    if auth := unquote(user) or setting("PREFECT_API_AUTH_STRING", "api", "auth_string"):
        request.add_header("Authorization", f"Basic {base64.b64encode(auth.encode()).decode()}")
    handlers = [ProxyHandler({})] if url.startswith(f"http://{HOST}") else []
    with build_opener(*handlers).open(request, timeout=seconds) as answer:
        return json.loads(answer.read())


def _answers(api_url: str) -> bool:
    try:
        return _get(f"{api_url}/health") is True
    except (OSError, ValueError):
        return False


def _is_usable(api_url: str) -> bool:
    """Whether it is a Prefect server of our major version that lets us in."""
    try:
        found = str(_get(f"{api_url}/admin/version"))
    except (OSError, ValueError):
        return False
    return found.split(".", maxsplit=1)[0] == version("prefect").split(".")[0] and _answers(api_url)


def _refusal(api_url: str) -> str | None:
    """Why nothing at all answers there; None when something does, be it slow or with an error of its own."""
    from urllib.error import HTTPError, URLError

    try:
        _get(f"{api_url}/health")
    except HTTPError:
        return None
    except URLError as error:
        if isinstance(error.reason, ConnectionRefusedError | socket.gaierror):
            return str(error.reason.strerror).lower()
    except (OSError, ValueError):
        return None
    return None


def _is_address(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def bare(url: str) -> str:
    """An address without user name and password."""
    scheme, slashes, rest = url.partition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# -- a server in the background ---------------------------------------------------------------------------------------


def prefect_home() -> Path:
    """Where Prefect keeps its database and profiles."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().absolute()


def state_folder() -> Path:
    """Where the background server's pid, log and locks are."""
    home = os.environ.get("PREFECT_HOME")
    return Path(home).expanduser().absolute() / "rainbow" if home else Path("~/.rainbow").expanduser()


def _made_folder() -> Path:
    """The state folder, made when it is missing, for this user only.

    Raises:
        RunError: it cannot be made.
    """
    folder = state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RunError(f"cannot make the folder {folder}: {why}; set PREFECT_HOME to another one") from error
    return folder


def running() -> Server | None:
    """The background server, when its process is still the one that was started."""
    try:
        server = Server(**json.loads((state_folder() / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return server if _born(server.pid) == server.born else None


def status() -> Status:
    """How the background server is, and which one `rainbow run` would use."""
    server = running()
    answers = server is not None and _answers(server.api_url)
    state: Literal["running", "not answering", "stopped"] = "stopped"
    if server is not None:
        state = "running" if answers else "not answering"
    uses = configured_url()
    if uses is None and server is not None:
        uses = server.api_url
    if uses is None and _is_usable(default := f"http://{HOST}:{PORT}/api"):
        uses = default
    return Status(state, server, bare(uses) if uses else None)


def start(
    *, port: int | None = None, seconds: float = START_SECONDS, tell: Tell = lambda text: None
) -> tuple[Server, bool]:
    """Start the background server and wait until it is healthy; `(server, False)` when it ran already.

    Without `port`: 4200, else the next free one.

    Raises:
        CallError: the port that was asked for is taken.
        RunError: it did not start; tells the end of its log.
    """
    with _lock("server.lock"):
        if server := running():
            return _still_fine(server, port), False
        listening = _bound(_PORTS if port is None else [port])
        if listening is not None:
            return _start(listening, seconds, tell), True
    if port is not None:
        raise CallError(f"port {port} is taken; choose another with --port, or leave it out")
    raise RunError(f"ports {_PORTS[0]} to {_PORTS[-1]} are all taken; choose one with --port")


def stop() -> Server | None:
    """Stop the background server and wait for its end; None when none runs.

    Raises:
        RunError: it does not end.
    """
    if not state_folder().exists():
        return None
    with _lock("server.lock"):
        server = running()
        if server is not None:
            _end(server.pid, server.born)
        (state_folder() / "server.json").unlink(missing_ok=True)
    return server


def _still_fine(server: Server, port: int | None) -> Server:
    if not _wait_until(lambda: _answers(server.api_url), _BUSY_SECONDS):
        raise RunError(
            f"the server (pid {server.pid}) runs but does not answer at {server.api_url}; run `rainbow server stop`, "
            f"then start it again; its log: {server.log}"
        )
    if port not in (None, server.port):
        raise CallError(f"the server runs already, on port {server.port}; run `rainbow server stop` first")
    return server


def _start(listening: socket.socket, seconds: float, tell: Tell) -> Server:
    folder = _made_folder()
    log = folder / "server.log"
    if log.exists():
        log.replace(folder / "server.log.1")
    known = folder / "server.json"
    port = listening.getsockname()[1]
    started: list[Server] = []

    def spawned(child: Child) -> None:
        started.append(Server(child.pid, _born(child.pid) or "", port, time.time(), str(log)))
        _write(known, json.dumps(asdict(started[0])))
        tell(f"starting a Prefect server on {started[0].ui_url} ...")

    try:
        launch(log, listening=listening, cwd=folder, seconds=seconds, spawned=spawned)
    except BaseException:
        known.unlink(missing_ok=True)
        raise
    return started[0]


def launch(
    log: Path,
    *,
    cwd: Path,
    listening: socket.socket | None = None,
    env: Mapping[str, str] | None = None,
    parent: int | None = None,
    seconds: float = START_SECONDS,
    spawned: Callable[[Child], None] = lambda child: None,
) -> tuple[Child, str]:
    """Start Prefect's own server and wait until it is healthy; gives its process and its API address.

    It is detached from this terminal, so that Ctrl-C does not reach it; with `parent` it ends when that process does.
    It takes over `listening`, a bound socket (default: on a free port), so nobody can take the port meanwhile.
    `spawned` is called before the wait. A server that does not start is ended.

    Raises:
        RunError: it ended, or took longer than `seconds`.
    """
    with listening or _any_port() as own:
        url = f"http://{HOST}:{own.getsockname()[1]}/api"
        child = _spawn(own, log, cwd=cwd, env={"PREFECT_API_URL": url, **(env or {})}, parent=parent)
    try:
        spawned(child)
        _wait_for(child, url, log, seconds)
    except BaseException:
        _kill(child)
        raise
    return child, url


def _spawn(own: socket.socket, log: Path, *, cwd: Path, env: Mapping[str, str], parent: int | None) -> Child:
    settings = {
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(own.getsockname()[1]),
        "PREFECT_SERVER_ANALYTICS_ENABLED": os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        "PREFECT_SERVER_LOGGING_LEVEL": os.environ.get("PREFECT_SERVER_LOGGING_LEVEL", "WARNING"),
        "PREFECT_HOME": str(prefect_home()),
    }
    inherited = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    words = [sys.executable, "-P", "-m", "rainbow_prefect._prefect_server", str(own.fileno())]
    with log.open("wb") as out:
        return subprocess.Popen(
            words if parent is None else [*words, str(parent)],
            cwd=cwd,
            env={**inherited, **settings, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=[own.fileno()],
        )


_NOT_INHERITED = ("PREFECT_API_URL", "PREFECT_API_KEY", "PYTHONDONTWRITEBYTECODE")
"""The server is nobody's client; without compiled files its start takes three times as long."""


def _wait_for(child: Child, api_url: str, log: Path, seconds: float) -> None:
    """Wait until the server is healthy.

    Raises:
        RunError: it ended, or took longer than `seconds`.
    """
    ready = _wait_until(lambda: child.poll() is not None or _answers(api_url), seconds)
    if ready and child.poll() is None:
        return
    what = "did not start" if ready else f"was not healthy after {seconds:g} s"
    raise RunError(f"the Prefect server {what}: {_reason(log)}\nits log: {log}")


def _reason(log: Path) -> str:
    """The line of the log that tells most: the last that names an error, else the last."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    telling = [line for line in lines if "Error" in line.split(" ")[0] or "error while" in line or "[Errno" in line]
    return (telling or lines or ["it printed nothing"])[-1]


def _bound(ports: Iterable[int]) -> socket.socket | None:
    """A socket on the first of these ports that is free, not listening yet; None when all are taken."""
    for port in ports:
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind((HOST, port))
        except (OSError, OverflowError):
            own.close()
        else:
            return own
    return None


def _any_port() -> socket.socket:
    found = _bound([0])
    if found is None:
        raise RunError(f"no port is free on {HOST}")
    return found


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """One process at a time."""
    with (_made_folder() / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- a server for this process only -----------------------------------------------------------------------------------


@dataclass
class _Own:
    child: Child
    connection: Connection
    parent: int


_own: _Own | None = None


def _ephemeral_url() -> str | None:
    return _own.connection.api_url if _own is not None and _own.parent == os.getpid() else None


def _ephemeral(tell: Tell) -> Connection:
    """Prefect's server without UI and services, which ends with this process however that ends."""
    global _own
    if _own is not None and _own.parent == os.getpid() and _own.child.poll() is None:
        return _own.connection
    seconds = float(os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS") or START_SECONDS)
    tell("starting a temporary Prefect server; `rainbow server start` keeps one running ...")
    log = _made_folder() / f"temporary-{os.getpid()}.log"
    for left in state_folder().glob("temporary-*.log"):
        if _born(int(left.stem.partition("-")[2])) is None:
            left.unlink(missing_ok=True)
    with _migrating():
        env = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_SERVER_UI_ENABLED": "false"}
        child, url = launch(log, cwd=Path.cwd(), env=env, parent=os.getpid(), seconds=seconds)
    _own = _Own(child, Connection(url, None, "ephemeral"), os.getpid())
    atexit.register(_end_own, _own, log)
    return _own.connection


def _end_own(own: _Own, log: Path) -> None:
    if own.parent == os.getpid():
        _kill(own.child)
        log.unlink(missing_ok=True)


@contextlib.contextmanager
def _migrating() -> Iterator[None]:
    """Two servers that make the same database at the same time break it: the first start is done alone."""
    done = state_folder() / "database"
    wanted = f"{version('prefect')} {prefect_home()}"
    if done.exists() and done.read_text() == wanted and (prefect_home() / "prefect.db").exists():
        yield
        return
    with _lock("database.lock"):
        yield
        _write(done, wanted)


# -- processes --------------------------------------------------------------------------------------------------------


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When the process with this pid was started, in words that no other process shares; None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{_boot()} {fields[19]}"
    except OSError:
        return None if Path("/proc/self/stat").exists() else _born_by_ps(pid)


def _born_by_ps(pid: int) -> str | None:
    """As `_born`, where there is no /proc: macOS."""
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, born = shown.stdout.strip().partition(" ")
    return born.strip() if born and not state.startswith("Z") else None


def _end(pid: int, born: str) -> None:
    """End a process of ours: first asked, then forced; never another one that has its pid by now."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        _send(pid, born, sign)
        if _wait_until(lambda: _born(pid) != born, _STOP_SECONDS):
            return
    raise RunError(f"the server (pid {pid}) does not end; it may be waiting for its disk")


def _send(pid: int, born: str, sign: signal.Signals) -> None:
    """A file descriptor stands for one process for ever, so between looking and sending nothing can be mixed up."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "pidfd_open"):
            handle = os.pidfd_open(pid)
            try:
                if _born(pid) == born:
                    signal.pidfd_send_signal(handle, sign)
            finally:
                os.close(handle)
        elif _born(pid) == born:
            os.kill(pid, sign)


def _kill(child: Child) -> None:
    """End a child of this process and wait for it."""
    child.terminate()
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
