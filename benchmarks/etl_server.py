"""The PostgreSQL that `make bench-etl` measures with; the CPU of its backends counts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from .measure import Usage

SCRIPT = Path(__file__).parents[1] / "scripts" / "postgres.sh"


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of this benchmark alone."""

    url: str
    process: psutil.Process

    def sql(self, text: str) -> str:
        """What psql prints for it.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url, "-c", text],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def cpu_seconds(self) -> float:
        """User and system time of the server and of all its backends, also those that have ended."""
        own = self.process.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in self.process.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def counted(self, work: Callable[[], Usage]) -> Callable[[], Usage]:
        """The same, the CPU of the server in it."""

        def measured() -> Usage:
            before = self.cpu_seconds()
            usage = work()
            return replace(usage, cpu_seconds=usage.cpu_seconds + self.cpu_seconds() - before)

        return measured


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """A server that is there while the benchmark runs."""
    url = subprocess.run(
        [SCRIPT, "start", folder, str(os.getpid())], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        pid = int(
            subprocess.run(
                ["psql", "-qXAt", url, "-c", "select pg_read_file('postmaster.pid')"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()[0]
        )
        yield Server(url, psutil.Process(pid))
    finally:
        subprocess.run([SCRIPT, "stop", folder], capture_output=True, check=False)
