"""Starts the process that removes this one's containers when this one is killed, and tells it what it must know."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._docker_engine import Engine

_SCRIPT = Path(__file__).with_name("_docker_watcher.py")
_DEFAULT = "unix:///var/run/docker.sock"
_PROC = Path("/proc")


@dataclass
class Watch:
    """The watcher of this process for one engine; without one (an engine over ssh) nothing is told."""

    process: subprocess.Popen[bytes] | None
    runs: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, run_id: str) -> None:
        """A run has containers from now on."""
        with self._lock:
            if run_id not in self.runs:
                self.runs.add(run_id)
                self._say(f"run {run_id}")

    def end(self, run_id: str) -> None:
        """The run is over and has no container any more."""
        with self._lock:
            if run_id in self.runs:
                self.runs.discard(run_id)
                self._say(f"over {run_id}")

    def keep(self, container: str) -> None:
        """Leave this container alone: it failed, and somebody wants to look at it."""
        with self._lock:
            self._say(f"keep {container}")

    def close(self) -> None:
        """This process ends as it should."""
        with self._lock:
            self._say("bye")
            if self.process is not None and self.process.stdin is not None:
                with contextlib.suppress(OSError):
                    self.process.stdin.close()

    @property
    def is_alive(self) -> bool:
        return self.process is None or self.process.poll() is None

    def _say(self, line: str) -> None:
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self.process.stdin.write(f"{line}\n".encode())
                self.process.stdin.flush()


_lock = threading.Lock()
_watches: dict[tuple[int, str], Watch] = {}


def watch(engine: Engine) -> Watch:
    """The watcher for this engine, started when there is none."""
    address = engine.address or _DEFAULT
    key = (os.getpid(), address)
    with _lock:
        found = _watches.get(key)
        if found is None or not found.is_alive:
            before = set() if found is None else found.runs
            found = _watches[key] = Watch(_start(address))
            for run_id in before:
                found.begin(run_id)
        return found


def known(engine: Engine) -> Watch | None:
    """The watcher for this engine when there is one."""
    return _watches.get((os.getpid(), engine.address or _DEFAULT))


@atexit.register
def _close() -> None:
    for (pid, _), one in _watches.items():
        if pid == os.getpid():
            one.close()


def _start(address: str) -> subprocess.Popen[bytes] | None:
    if address.partition("://")[0] not in ("unix", "tcp", "http", "https"):
        return None
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    settings = {"address": address, "owner": owner(), "tls": _tls(address), "prefect": _prefect()}
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    return process


def _tls(address: str) -> dict[str, Any] | None:
    """The certificates that Docker's own variables name."""
    folder = os.environ.get("DOCKER_CERT_PATH")
    verify = os.environ.get("DOCKER_TLS_VERIFY", "")
    if address.startswith("unix") or not (folder or verify or address.startswith("https")):
        return None
    place = Path(folder) if folder else Path.home() / ".docker"
    files = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    return {key: str(place / name) for key, name in files.items() if (place / name).exists()} | {"verify": bool(verify)}


def _prefect() -> dict[str, str]:
    names = {"url": "PREFECT_API_URL", "key": "PREFECT_API_KEY", "auth": "PREFECT_API_AUTH_STRING"}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def owner() -> str:
    """This process, as labels name it: host, process id and when it started."""
    return _owner(os.getpid())


@lru_cache(maxsize=4)
def _owner(pid: int) -> str:
    return f"{_host()}:{pid}:{started(pid)}"


def _host() -> str:
    """Where process ids mean something: the host, and the number of its namespace of them where there are such.

    Source: pid_namespaces(7).
    """
    try:
        return f"{socket.gethostname()}/{(_PROC / 'self' / 'ns' / 'pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def is_gone(label: str) -> bool | None:
    """Whether the process of such a label is gone; None when it is of another machine."""
    host, _, rest = label.rpartition(":")[0].rpartition(":")
    if host != _host() or not rest.isdigit():
        return None
    return started(int(rest)) != label.rpartition(":")[2]


def started(pid: int) -> str:
    """When a process started, in the words of the system; '' when there is none.

    Source: proc(5), field 22 of /proc/PID/stat.
    """
    if (_PROC / "self").exists():
        try:
            return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "-".join(done.stdout.replace(":", ".").split())
