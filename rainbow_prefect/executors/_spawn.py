"""Starts commands through the spawner, one warm process per process of ours; see `_spawner` for what it promises."""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TaskFailed
from ._spawner import MARKER

_SCRIPT = Path(__file__).with_name("_spawner.py")


@dataclass(eq=False)
class Child:
    """A command under way: `out` is what it prints; the control socket tells its end and takes orders."""

    out: int
    control: socket.socket
    _rest: bytes = field(default=b"", repr=False)

    def end(self) -> None:
        """SIGTERM to the whole tree, after the grace time SIGKILL."""
        self._order(b"t")

    def kill(self) -> None:
        """SIGKILL to the whole tree."""
        self._order(b"k")

    def message(self) -> dict[str, Any] | None:
        """What the guard says, once its socket can be read; None while only a part of it is there.

        Raises:
            EOFError: the guard is gone without a word.
        """
        try:
            data = self.control.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self._rest += data
        return json.loads(self._rest) if self._rest.endswith(b"\n") else None

    def close(self) -> None:
        """Let go of it; a command that still runs is ended by its guard."""
        self.control.close()
        os.close(self.out)

    def _order(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self.control.sendall(word)


class _Spawner:
    def __init__(self) -> None:
        self.pid = os.getpid()
        ours, theirs = socket.socketpair()
        self.sock = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SCRIPT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )

    def close(self) -> None:
        self.sock.close()
        if self.pid == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


_lock = threading.Lock()
_spawner: _Spawner | None = None


def warm() -> None:
    """Start the spawner of this process unless it runs."""
    with _lock:
        _current()


def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, folder: Path, grace_seconds: float, marker: str
) -> Child:
    """Start a command in its own session; `folder` is removed by its guard when this process dies.

    `marker` is a text in its environment that no other command has.

    Raises:
        TaskFailed: an argument or a variable holds a NUL, or this process has no more descriptors.
    """
    check(argv, env)
    spec = {
        "argv": [*argv],
        "env": {**env, MARKER: marker},
        "cwd": str(cwd),
        "folder": str(folder),
        "grace": grace_seconds,
    }
    data = json.dumps(spec).encode()
    try:
        return _start(len(data).to_bytes(8, "big") + data)
    except OSError as error:
        raise TaskFailed(f"the command could not be started: {error.strerror}") from error


def _start(message: bytes) -> Child:
    ours, theirs = socket.socketpair()
    try:
        out, write = os.pipe()
    except OSError:
        ours.close()
        theirs.close()
        raise
    try:
        with _lock:
            _pass([theirs.fileno(), write])
    except OSError:
        ours.close()
        os.close(out)
        raise
    finally:
        theirs.close()
        os.close(write)
    child = Child(out, ours)
    # A guard that could not be forked has answered and closed its end; its answer is still there to be read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        ours.sendall(message)
    return child


def _pass(fds: list[int]) -> None:
    """Hand the descriptors to the spawner; a new one when somebody killed it."""
    try:
        socket.send_fds(_current().sock, [b"+"], fds)
    except (BrokenPipeError, ConnectionResetError):
        close()
        socket.send_fds(_current().sock, [b"+"], fds)


def _current() -> _Spawner:
    global _spawner
    if _spawner is None or _spawner.pid != os.getpid():
        _spawner = _Spawner()
    return _spawner


@atexit.register
def close() -> None:
    """Let the spawner go; it ends when the last command did."""
    global _spawner
    if _spawner is not None:
        _spawner.close()
        _spawner = None


def failure(error: Sequence[Any], argv: Sequence[str], cwd: Path) -> str:
    """Why a command could not be started, for people."""
    number, step = error
    program = argv[0]
    if number == 0:
        return f"the command could not be started: {step}"
    if step == "exec" and number == errno.ENOENT:
        return f"the program '{program}' is not on the PATH; install it, or name it with its folder"
    if step == "exec" and number == errno.EACCES:
        return f"the program '{program}' may not be executed; make it executable (chmod +x)"
    if step == "exec" and number == errno.E2BIG:
        return "the command and its environment variables are too long for this system; pass large values as files"
    if step == "chdir":
        return f"the working directory {cwd} cannot be entered: {os.strerror(number)}"
    if step == "fork":
        return f"this machine starts no more processes: {os.strerror(number)}; use fewer executors"
    return f"the program '{program}' cannot be started: {os.strerror(number)}"


def check(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Refuse what no process can be started with."""
    for name, value in env.items():
        if "\0" in name or "\0" in value or "=" in name or not name:
            raise TaskFailed(f"the environment variable {name!r} cannot be set: its name or value holds a NUL or a '='")
    if any("\0" in word for word in argv):
        raise TaskFailed("the command holds a NUL character")
