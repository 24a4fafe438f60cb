"""Stops the ECS tasks of a process that is killed: a second process waits for the end of a pipe and then cleans up.

    python -P -m rainbow_prefect.executors._ecs_watch

It reads lines of JSON: `{"run": ID, "executor": {...}}` when a run has tasks, `{"over": ID, ...}` when it has none any
more, `{"bye": true}` when the process ends as it should. Until then it has imported nothing and needs little memory.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ecs import Ecs

SWEEPS = (0, 3, 15)
"""Seconds between them: AWS may still be making a task that it was asked for."""
_FIELDS = {
    "cluster",
    "launch_type",
    "capacity_provider",
    "subnets",
    "region",
    "endpoint_url",
    "credentials",
    "exchange",
}

_lock = threading.Lock()
_watcher: tuple[int, subprocess.Popen[bytes]] | None = None
_told: set[str] = set()


def begin(executor: Ecs, run_id: str) -> None:
    """A run has tasks from now on."""
    line = _line("run", executor, run_id)
    with _lock:
        if line not in _told:
            _say(line, start=True)
            _told.add(line)


def end(executor: Ecs, run_id: str) -> None:
    """A run has no tasks any more."""
    with _lock:
        line = _line("run", executor, run_id)
        if line in _told:
            _told.discard(line)
            _say(_line("over", executor, run_id), start=False)


def _line(word: str, executor: Ecs, run_id: str) -> str:
    data = executor.model_dump(mode="json", include=_FIELDS, exclude_defaults=True)
    return json.dumps({word: run_id, "executor": data}, sort_keys=True)


def _say(line: str, *, start: bool) -> None:
    global _watcher
    if _watcher is None or _watcher[0] != os.getpid() or _watcher[1].poll() is not None:
        if not start:
            return
        _watcher = (os.getpid(), _started())
        for known in _told:
            _write(_watcher[1], known)
    _write(_watcher[1], line)


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


def _write(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


@atexit.register
def _close() -> None:
    if _watcher is not None and _watcher[0] == os.getpid():
        _write(_watcher[1], json.dumps({"bye": True}))
        assert _watcher[1].stdin is not None
        with contextlib.suppress(OSError):
            _watcher[1].stdin.close()


# -- the other process


def main() -> None:
    """Read until the end of the pipe; clean up what was not over."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    runs: dict[str, dict[str, Any]] = {}
    for line in sys.stdin:
        said = json.loads(line)
        if "bye" in said:
            return
        key = json.dumps([said.get("run") or said.get("over"), said["executor"]], sort_keys=True)
        if "run" in said:
            runs[key] = said
        else:
            runs.pop(key, None)
    for pause in SWEEPS if runs else ():
        time.sleep(pause)
        for said in runs.values():
            with contextlib.suppress(Exception):
                _clean(said)


def _clean(said: dict[str, Any]) -> None:
    from .ecs import Ecs

    Ecs(executor="gone", **said["executor"]).clean(said["run"])


if __name__ == "__main__":
    main()
