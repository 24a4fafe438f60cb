"""`make bench-etl`: SQL ETL beside the pipe of psql, `\\copy` and other tools; makes its data with a seed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from .cases import MEGABYTE, Bench, prefect_server
from .measure import Usage, adopt_orphans, interleaved, median, run
from .run import _FOREIGN, _arguments, _machine
from .table import Row, markdown, write

HERE = Path(__file__).parent
ROWS = 6_000_000

LINEITEM = """
    select i as l_orderkey, (i * 7 % 200000)::int as l_partkey, (i % 10000)::int as l_suppkey,
        (i % 7)::int as l_linenumber, (i % 50)::numeric(15,2) as l_quantity,
        (i * 1.13)::numeric(15,2) as l_extendedprice, (i % 11 / 100.0)::numeric(15,2) as l_discount,
        (i % 9 / 100.0)::numeric(15,2) as l_tax, 'N'::char(1) as l_returnflag, 'O'::char(1) as l_linestatus,
        date '1995-01-01' + (i % 2000)::int as l_shipdate, date '1995-02-01' + (i % 2000)::int as l_commitdate,
        date '1995-03-01' + (i % 2000)::int as l_receiptdate, 'DELIVER IN PERSON'::char(25) as l_shipinstruct,
        'TRUCK'::char(10) as l_shipmode, md5(i::text)::varchar(44) as l_comment
    from generate_series(1::bigint, {count}) as i
"""
"""Rows like those of TPC-H's lineitem: its 16 columns with their types, made by arithmetic."""

YAML = """\
name: etl
sources: [{{source: shop, url: '{url}'}}]
sinks: [{{sink: mart, url: '{url}', schema: mart}}]
pipelines:
  - pipeline: copy
    tasks:
      - {{task: rows, type: sql_etl, source: {source}, sink: {sink}, {keys}}}
"""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of this benchmark alone."""

    url: str
    process: psutil.Process

    def sql(self, text: str) -> str:
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


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """A server that is there while the benchmark runs."""
    script = HERE.parent / "scripts" / "postgres.sh"
    url = subprocess.run(
        [script, "start", folder, str(os.getpid())], capture_output=True, text=True, check=True
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
        subprocess.run([script, "stop", folder], capture_output=True, check=False)


class Etl:
    """The cases, on one server with one table of lineitem."""

    def __init__(self, bench: Bench, server: Server) -> None:
        self.bench, self.server = bench, server
        self.count = bench.count(ROWS)
        server.sql("create schema mart")
        server.sql(f"create table lineitem as {LINEITEM.format(count=self.count)}")
        server.sql("vacuum analyze lineitem")

    def with_server(self, work: Callable[[], Usage]) -> Callable[[], Usage]:
        """The same, the CPU of the server in it."""

        def measured() -> Usage:
            before = self.server.cpu_seconds()
            usage = work()
            return replace(usage, cpu_seconds=usage.cpu_seconds + self.server.cpu_seconds() - before)

        return measured

    def rainbow(self, name: str, keys: str, *, source: str = "shop", sink: str = "mart") -> Callable[[], Usage]:
        """`rainbow run` of one task with these keys."""
        folder = self.bench.home(name)
        (folder / "rainbow.yml").write_text(YAML.format(url=self.server.url, keys=keys, source=source, sink=sink))
        return self.with_server(lambda: self.bench.rainbow("run", folder, "--quiet"))

    def shell(self, line: str) -> Callable[[], Usage]:
        return self.with_server(
            lambda: run(["bash", "-o", "pipefail", "-c", line], env={**self.bench.env, "URL": self.server.url})
        )

    def less_start(self, name: str, usages: dict[str, list[Usage]]) -> tuple[float, float]:
        """CPU and wall of a run without the start, which a run over no rows has alone."""
        cpu, wall = (
            median(usages[name], what) - median(usages["start"], what) for what in ("cpu_seconds", "wall_seconds")
        )
        return max(cpu, 0.001), max(wall, 0.001)

    # -- the cases

    def copy(self) -> list[Row]:
        """PostgreSQL to PostgreSQL, beside two psql with a pipe between them."""
        self.server.sql("create table mart.by_hand (like lineitem)")
        pipe = (
            'psql -qX "$URL" -c "truncate mart.by_hand" && psql -qX "$URL" -c "copy (select * from lineitem) to stdout'
            ' (format binary)" | psql -qX "$URL" -c "copy mart.by_hand from stdin (format binary)"'
        )
        usages = interleaved(
            {
                "start": self.rainbow(
                    "start", 'table: none, query: "select * from lineitem where false", mode: replace'
                ),
                "ours": self.rainbow("copy", 'table: copied, query: "select * from lineitem", mode: replace'),
                "peer": self.shell(pipe),
            },
            repeats=max(1, self.bench.repeats - 2),
        )
        cpu, wall = self.less_start("ours", usages)
        what = f"PostgreSQL to PostgreSQL, {self.count:,} rows"
        peak = (median(usages["ours"], "peak_bytes") - median(usages["start"], "peak_bytes")) / MEGABYTE
        return [
            Row(what, wall, "s", 1.10, median(usages["peer"], "wall_seconds"), "psql pipe"),
            Row(f"the same, {what}", cpu, "CPU s", 1.10, median(usages["peer"], "cpu_seconds"), "psql pipe"),
            Row("its memory above that of a run without rows", peak, "MB", 64),
        ]

    def upsert(self) -> list[Row]:
        """An upsert in which nothing changed, beside an append of the same rows."""
        count = min(self.count, 1_000_000)
        query = f'query: "select * from lineitem where l_orderkey <= {count}"'
        keys = f"{query}, mode: upsert, keys: [l_orderkey]"
        first = self.rainbow("upsert", f"table: upserted, {keys}")()
        if first.code:
            raise RuntimeError(first.err)
        usages = interleaved(
            {
                "start": self.rainbow(
                    "start", 'table: none, query: "select * from lineitem where false", mode: replace'
                ),
                "ours": self.rainbow("upsert", f"table: upserted, {keys}"),
                "peer": self.rainbow("append", f"table: appended, {query}, mode: append"),
            },
            repeats=max(1, self.bench.repeats - 2),
        )
        (ours, _), (peer, _) = self.less_start("ours", usages), self.less_start("peer", usages)
        return [Row(f"upsert of {count:,} rows, nothing changed", ours, "CPU s", 2.0, peer, "append of them")]


CASES: dict[str, Callable[[Etl], list[Row]]] = {"copy": Etl.copy, "upsert": Etl.upsert}


def main() -> int:
    """Measure, print, and tell by the exit status whether all bars are met."""
    wanted = _arguments(None, CASES)
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rainbow-bench-") as folder, ExitStack() as stack:
        home = Path(folder)
        env |= {
            "HOME": folder,
            "PREFECT_HOME": str(home / "prefect"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "CI": "true",
        }
        env["PREFECT_API_URL"] = stack.enter_context(prefect_server(home, env))
        etl = Etl(Bench(home, env, wanted.repeats, wanted.scale), stack.enter_context(postgres(home / "postgres")))
        for name in wanted.names:
            print(f"{name}: {CASES[name].__doc__}", file=sys.stderr)
            rows += CASES[name](etl)
    psql = shutil.which("psql") or "psql"
    version = subprocess.run([psql, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    text = f"{markdown(rows)}\n\n{_machine()} {version}."
    print(f"\n{text}")
    if wanted.write:
        write(HERE / "etl.md", text)
    missed = [row for row in rows if not row.is_met]
    for row in missed:
        print(f"MISSED: {' | '.join(filter(None, [*row.cells(), row.note]))}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    adopt_orphans()
    sys.exit(main())
