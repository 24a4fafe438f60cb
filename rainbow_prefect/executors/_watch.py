"""Runs one command to its end: reads what it prints, minds the deadline, the stop of the run, the limits."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import Cancelled, TaskFailed, TimedOut
from ..run import Run
from . import _disk, _spawn
from ._lines import Lines

LOOK_SECONDS = 0.2
DRAIN_SECONDS = 2.0
"""How long the last output is waited for when all processes ended but somebody else still holds the pipe."""
MAX_PRINTED_BYTES = 4 << 30
READ_BYTES = 1 << 16

_lock = threading.Lock()
_running: dict[str, set[_spawn.Child]] = {}


def execute(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    folder: Path,
    run: Run,
    lines: Lines,
    grace_seconds: float,
    max_lines: int,
) -> int:
    """Run a command and give its exit status, negative for a signal; when it returns the whole process tree is gone.

    Raises:
        TaskFailed: it could not be started, or printed more than the limits.
        TimedOut: the deadline of the run passed.
        Cancelled: the run was stopped.
    """
    begun = time.monotonic()
    if run.stop.is_set() or run.remaining_seconds() == 0:
        raise _stopped(run, 0)
    marker = f"{folder.parent.name}/{folder.name}"
    child = _spawn.start(argv, env=env, cwd=cwd, folder=folder, grace_seconds=grace_seconds, marker=marker)
    _note(run.run_id, child)
    _disk.watch(str(folder))
    try:
        reason, answer = _Watch(child, run, lines, max_lines, str(folder)).until_end()
    finally:
        _disk.forget(str(folder))
        _forget(run.run_id, child)
        child.close()
        lines.close()
    if reason == "stop":
        raise _stopped(run, time.monotonic() - begun)
    if reason:
        raise TaskFailed(reason)
    if answer is None:
        raise TaskFailed("the process that watched the command was killed; the command was ended with it")
    if "error" in answer:
        raise TaskFailed(_spawn.failure(answer["error"], argv, cwd))
    if answer.get("left"):
        raise TaskFailed(f"{answer['left']} processes of the command could not be ended, not even by SIGKILL")
    return int(answer["status"])


def end_all(run_id: str) -> None:
    """End the commands of a run that still are under way."""
    with _lock:
        children = list(_running.get(run_id, ()))
    for child in children:
        child.kill()


class _Watch:
    """The loop around one child."""

    def __init__(self, child: _spawn.Child, run: Run, lines: Lines, max_lines: int, folder: str) -> None:
        self.child = child
        self.run = run
        self.lines = lines
        self.max_lines = max_lines
        self.folder = folder
        self.disk_at = time.monotonic()
        self.reason = ""
        self.poll = select.poll()
        self.poll.register(child.out, select.POLLIN)
        self.poll.register(child.control.fileno(), select.POLLIN)
        self.is_open = True

    def until_end(self) -> tuple[str, dict[str, Any] | None]:
        """Why it was ended ('' when it ended by itself), and what its guard told of its end."""
        while True:
            for fd, _ in self.poll.poll(self._wait() * 1000):
                if fd == self.child.out:
                    self._read()
                    continue
                try:
                    answer = self.child.message()
                except EOFError:
                    return self._ended(None)
                if answer is not None:
                    return self._ended(answer)
            self._mind()

    def _ended(self, answer: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
        self.poll.unregister(self.child.control.fileno())
        until = time.monotonic() + DRAIN_SECONDS
        while self.is_open and (left := until - time.monotonic()) > 0:
            for _ in self.poll.poll(left * 1000):
                self._read()
            if self.lines.count > self.max_lines or self.lines.size_bytes > MAX_PRINTED_BYTES:
                break
        return self.reason, answer

    def _read(self) -> None:
        data = os.read(self.child.out, READ_BYTES)
        if data:
            self.lines.feed(data)
        else:
            self.poll.unregister(self.child.out)
            self.is_open = False

    def _wait(self) -> float:
        remaining = None if self.reason else self.run.remaining_seconds()
        return LOOK_SECONDS if remaining is None else min(LOOK_SECONDS, remaining + 0.001)

    def _mind(self) -> None:
        if self.reason:
            return
        if self.run.stop.is_set() or self.run.remaining_seconds() == 0:
            self.reason = "stop"
            self.child.end()
        elif self.lines.count > self.max_lines:
            self._too_much(f"{self.max_lines} lines", "`max_lines`")
        elif self.lines.size_bytes > MAX_PRINTED_BYTES:
            self._too_much(f"{MAX_PRINTED_BYTES >> 30} GiB", "a file")
        elif time.monotonic() - self.disk_at > _disk.LOOK_SECONDS:
            self._mind_disk()

    def _mind_disk(self) -> None:
        self.disk_at = time.monotonic()
        taken = _disk.filled_by(self.folder)
        if taken:
            self.reason = (
                f"it filled the disk and was ended: {taken >> 20} MiB are in its working directory; write less, "
                "or set TMPDIR to a larger disk"
            )
            self.child.kill()

    def _too_much(self, limit: str, other: str) -> None:
        fix = f"raise {other} of the executor" if other.startswith("`") else f"write to {other} instead"
        self.reason = f"it printed more than {limit} and was ended; print less, or {fix}"
        self.child.kill()


def _stopped(run: Run, seconds: float) -> TaskFailed:
    if run.stop.is_set() and not run.timed_out:
        return Cancelled("cancelled; all its processes were ended")
    return TimedOut(f"timed out after {seconds:.1f} s; all its processes were ended")


def _note(run_id: str, child: _spawn.Child) -> None:
    with _lock:
        _running.setdefault(run_id, set()).add(child)


def _forget(run_id: str, child: _spawn.Child) -> None:
    with _lock:
        _running[run_id].discard(child)
        if not _running[run_id]:
            del _running[run_id]
