"""Measures one command: wall time, CPU time of its whole process tree, peak memory; no case is known here."""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """What one command used: seconds, and bytes of its largest process; `code` is its exit status."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    code: int
    out: str
    err: str


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends, so that what they used is counted (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float = 900,
) -> Usage:
    """Run a command to its end and tell what it and all its children used.

    CPU is user and system time of the command, of the children it waited for, and of those that outlived it (they are
    waited for, at most 10 s). Children that were there before, such as a server, are left out.

    Source: getrusage(2) and wait4(2); ru_maxrss is in KiB on Linux and in bytes on macOS.
    """
    others = {child.pid for child in psutil.Process().children(recursive=True)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(word) for word in argv], env=env, cwd=cwd, stdout=out, stderr=err)
        overdue = threading.Timer(timeout_seconds, process.kill)
        overdue.daemon = True
        overdue.start()
        _, status, usage = os.wait4(process.pid, 0)
        overdue.cancel()
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime + _orphans(others)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(wall, cpu, usage.ru_maxrss * unit, process.returncode, *texts)


def _orphans(others: set[int], limit_seconds: float = 10) -> float:
    """CPU seconds of the processes that the command left behind; waits for them."""
    cpu = 0.0
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        left = [child for child in psutil.Process().children() if child.pid not in others]
        if not left:
            break
        for child in left:
            with contextlib.suppress(ChildProcessError):
                pid, _, usage = os.wait4(child.pid, os.WNOHANG)
                cpu += (usage.ru_utime + usage.ru_stime) if pid else 0.0
        time.sleep(0.01)
    return cpu


def interleaved(commands: Mapping[str, Callable[[], Usage]], *, repeats: int) -> dict[str, list[Usage]]:
    """Run all commands in turn, `repeats` times, so that a busy minute of the machine hits all of them.

    Raises:
        RuntimeError: a command failed; the text ends with what it wrote.
    """
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            usage = command()
            if usage.code:
                raise RuntimeError(f"{name}: exit status {usage.code}\n{usage.out[-2000:]}\n{usage.err[-4000:]}")
            usages[name].append(usage)
    return usages


def median(usages: Sequence[Usage], what: str) -> float:
    """The median of `cpu_seconds`, `wall_seconds` or `peak_bytes`."""
    return float(statistics.median(getattr(usage, what) for usage in usages))
