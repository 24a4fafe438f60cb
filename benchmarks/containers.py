"""The cases of containers: slices of the executor `docker`, run by this very process, beside Docker's own command line."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rainbow_prefect.executors.docker import Docker
from rainbow_prefect.run import Command, Run
from rainbow_prefect.secrets import Secrets

from .measure import Usage, interleaved, median, run
from .table import Row

if TYPE_CHECKING:
    from .cases import Bench

IMAGE = "python:3.11-slim"
LINE = "this is a line of a log with some words in it"


class Slices:
    """Runs commands as the engine has slices run: one executor, many threads."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self.out_of_order = 0
        self._executor = Docker()
        self._run = Run(
            app="bench",
            pipeline="bench",
            task="bench",
            run_id=f"bench-{os.getpid()}",
            root=folder,
            folder=folder,
            executor=self._executor,
            secrets=Secrets(environ={}),
            write=self._write,
        )

    def _write(self, line: str) -> None:
        self.count += 1
        if line.partition(" ")[0] != str(self.count):
            self.out_of_order += 1

    def one(self, shell: str, index: int = 0) -> None:
        self._executor.run(Command(shell=shell, image=IMAGE), replace(self._run, index=index))

    def many(self, shell: str, *, count: int, at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda index: self.one(shell, index), range(count)))


def timed(work: Callable[[], None]) -> Callable[[], Usage]:
    """What this process does, as a command is measured: wall time only."""

    def measured() -> Usage:
        begun = time.perf_counter()
        work()
        return Usage(time.perf_counter() - begun, 0, 0, 0, "", "")

    return measured


def container(bench: Bench) -> list[Row]:
    """One container from start to removal, beside `docker run --rm` of the same command."""
    slices = Slices(bench.home("container"))
    slices.one("true")
    usages = interleaved(
        {"ours": timed(lambda: slices.one("true")), "peer": lambda: _docker(bench, "run", "--rm", IMAGE, "true")},
        repeats=3 * bench.repeats,
    )
    ours, peer = (median(usages[name], "wall_seconds") for name in ("ours", "peer"))
    return [Row("one container task, start to removal", ours, "s", 1.15, peer, "`docker run --rm`")]


def containers(bench: Bench) -> list[Row]:
    """40 containers, 4 at a time, beside `xargs -P4 docker run --rm`."""
    count = bench.count(40)
    slices = Slices(bench.home("containers"))
    line = f"seq {count} | xargs -P4 -I_ docker run --rm {IMAGE} true"
    usages = interleaved(
        {
            "ours": timed(lambda: slices.many("true", count=count, at_once=4)),
            "peer": lambda: run(["sh", "-c", line], env=bench.env),
        },
        repeats=max(1, bench.repeats - 2),
    )
    ours, peer = (median(usages[name], "wall_seconds") for name in ("ours", "peer"))
    return [Row(f"{count} containers, 4 at a time", ours, "s", 1.1, peer, "`xargs -P4 docker run --rm`")]


def lines(bench: Bench) -> list[Row]:
    """A container that prints 1,000,000 lines, beside `docker logs -f` of the same to a file."""
    count = bench.count(1_000_000)
    folder = bench.home("lines")
    shell = f"seq {count} | sed 's/$/ {LINE}/'"
    slices = Slices(folder)
    slices.one("true")
    before = _peak_megabytes()
    follow = f'id=$(docker run -d {IMAGE} sh -c "$1"); docker logs -f $id > "$2"; docker rm -f $id'

    def ours() -> None:
        slices.count = 0
        slices.one(shell)

    usages = interleaved(
        {
            "ours": timed(ours),
            "peer": lambda: run(["sh", "-c", follow, "sh", shell, folder / "log"], env=bench.env),
        },
        repeats=max(1, bench.repeats - 2),
    )
    mine, other = (median(usages[name], "wall_seconds") for name in ("ours", "peer"))
    return [
        Row(f"a container that prints {count:,} lines", mine, "s", 1.3, other, "`docker logs -f`"),
        Row("of these, lines that were lost or out of order", count - slices.count + slices.out_of_order, "", 0),
        Row("growth of the parent's memory while they came", _peak_megabytes() - before, "MB", 32),
    ]


def _docker(bench: Bench, *words: str) -> Usage:
    return run(["docker", *words], env=bench.env)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
