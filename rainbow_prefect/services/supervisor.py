"""Looks after worker processes: starts them, replaces those that die or whose code changed, ends them. Serves nothing.

All workers of a service accept from one socket, which this process keeps open: when one is killed the rest go on, and
while all are being replaced connections wait. A worker ends when this process does, however that happens.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RunError
from .definition import Definition

START_SECONDS = 600.0
_TICK_SECONDS = 0.1
_STOP_SECONDS = 40.0
_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker that died is replaced: longer each time, until one has lived for a minute."""

_STEADY_SECONDS = 60.0


class Worker:
    """One child process and what it says."""

    def __init__(self, group: Group, folder: str) -> None:
        ready, says = os.pipe()
        command = [sys.executable, "-m", "rainbow_prefect.services", "-"]
        command += ["--socket", str(group.sock.fileno()), "--ready", str(says)]
        try:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                pass_fds=(group.sock.fileno(), says),
                env={**os.environ, "RAINBOW_SERVICE_FOLDER": folder},
                start_new_session=True,  # Ctrl-C of a terminal is for this process, which tells them
            )
        finally:
            os.close(says)
        self.ready = ready
        self.begun = time.monotonic()
        self.is_ready = False
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):
            self.child.stdin.write(f"{group.definition.as_json()}\n".encode())
            self.child.stdin.flush()

    def look(self) -> None:
        """See whether it has become ready."""
        if not self.is_ready and self.ready >= 0 and select.select([self.ready], [], [], 0)[0]:
            self.is_ready = os.read(self.ready, 16) == b"ready"
            os.close(self.ready)
            self.ready = -1

    @property
    def has_ended(self) -> bool:
        return self.child.poll() is not None

    def stop(self) -> None:
        """Ask it to end; it finishes what is in flight."""
        with suppress(ProcessLookupError):
            self.child.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and end it at the deadline."""
        try:
            self.child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.close()

    def close(self) -> None:
        if self.child.stdin is not None:
            with suppress(OSError):
                self.child.stdin.close()
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1


@dataclass
class Group:
    """The workers of one service."""

    definition: Definition
    sock: socket.socket
    count: int = 1
    workers: list[Worker] = field(default_factory=list)
    old: list[Worker] = field(default_factory=list)
    deaths: int = 0
    next_start: float = 0.0
    was_ready: bool = False

    def start(self, folder: str) -> None:
        """Start the workers that are missing."""
        while len(self.workers) < self.count:
            self.workers.append(Worker(self, folder))

    def look(self, folder: str, tell: Callable[[str], None]) -> None:
        """Replace what died, and end old workers once the new ones are ready.

        Raises:
            RunError: the first worker did not start.
        """
        now = time.monotonic()
        for one in [*self.workers, *self.old]:
            one.look()
        self.old = [one for one in self.old if not _gone(one)]
        for one in [one for one in self.workers if one.has_ended]:
            self.workers.remove(one)
            one.close()
            if not self.was_ready:
                raise RunError(
                    f"service '{self.definition.service}' did not start (exit status {one.child.returncode})"
                )
            self.deaths = 0 if now - one.begun > _STEADY_SECONDS else self.deaths + 1
            pause = _PAUSES[min(self.deaths, len(_PAUSES)) - 1] if self.deaths else 0.0
            self.next_start = now + pause
            tell(
                f"service '{self.definition.service}': a worker ended ({_how(one.child.returncode)}); starting another"
            )
        if len(self.workers) < self.count and now >= self.next_start:
            self.start(folder)
        if self.workers and all(one.is_ready for one in self.workers):
            self.was_ready = True
            for one in self.old:
                one.stop()

    @property
    def is_ready(self) -> bool:
        return len(self.workers) == self.count and all(one.is_ready for one in self.workers)

    def replace(self, definition: Definition) -> None:
        """Let new workers take over; the old ones serve until then."""
        self.definition = definition
        self.old += self.workers
        self.workers = []
        self.deaths = 0
        self.next_start = 0.0


def _gone(one: Worker) -> bool:
    if one.has_ended:
        one.close()
        return True
    return False


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


Changed = Callable[[], Sequence[Definition] | None]


def supervise(
    groups: Sequence[Group],
    *,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201
    ready: Callable[[], None] = lambda: None,
    changed: Changed | None = None,
) -> None:
    """Serve with worker processes until SIGINT or SIGTERM.

    `ready` is called once all have started; `changed` is asked now and then for definitions that take over.

    Raises:
        RunError: a service did not start.
    """
    stop: list[int] = []
    folders = [tempfile.mkdtemp(prefix="rainbow-service-") for _ in groups]
    is_told = False
    with _signals(stop):
        try:
            for group, folder in zip(groups, folders, strict=True):
                group.start(folder)
            while not stop:
                for group, folder in zip(groups, folders, strict=True):
                    group.look(folder, tell)
                if not is_told and all(group.is_ready for group in groups):
                    is_told = True
                    ready()
                if changed is not None and (found := changed()) is not None:
                    for group, definition in zip(groups, found, strict=True):
                        group.replace(definition)
                time.sleep(_TICK_SECONDS)
        finally:
            _end(groups)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


def _end(groups: Sequence[Group]) -> None:
    every = [one for group in groups for one in (*group.workers, *group.old)]
    for one in every:
        one.stop()
    deadline = time.monotonic() + _STOP_SECONDS
    for one in every:
        one.end(deadline)
    for group in groups:
        group.sock.close()


@contextmanager
def _signals(stop: list[int]) -> Iterator[None]:
    def on_signal(number: int, _: Any) -> None:
        stop.append(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Files:
    """The files of some folders, to see whether one changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._seen = self._states()
        self._next = 0.0

    def changed(self) -> bool:
        """Whether a file is new, gone or written since this was asked the last time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 0.3
        states = self._states()
        is_other = states != self._seen
        self._seen = states
        return is_other

    def _states(self) -> dict[str, tuple[int, int]]:
        found = {}
        for top in self._folders:
            for folder, folders, files in os.walk(top):
                folders[:] = [one for one in folders if not one.startswith(".") and one not in _SKIPPED]
                for name in files:
                    if name.endswith((".py", ".yml", ".yaml", ".json", ".toml")):
                        path = os.path.join(folder, name)  # noqa: PTH118  thousands of them, three times a second
                        with suppress(OSError):
                            state = os.stat(path)  # noqa: PTH116
                            found[path] = (state.st_mtime_ns, state.st_size)
        return found


_SKIPPED = frozenset({"__pycache__", "node_modules", "venv"})
