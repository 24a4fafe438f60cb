"""`make bench-etl`: SQL ETL beside the pipe of psql, `\\copy` and other tools; makes its data with a seed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from .cases import MEGABYTE, Bench, prefect_server
from .etl_peers import TABLES, Peers
from .etl_server import Server, postgres
from .measure import Usage, adopt_orphans, interleaved, median, run
from .run import _FOREIGN, _machine
from .table import Row, markdown, write

HERE = Path(__file__).parent
MARKERS = "<!-- etl: begin -->", "<!-- etl: end -->"
ROWS = 6_000_000
THIRD = 0.333  # of the time of others: three times their rows a second
LARGE = 1_000_000
"""So many rows at most go through the lanes that take long."""

LINEITEM = """
    select i as l_orderkey, (hash % 200000)::int as l_partkey, (hash % 10000)::int as l_suppkey,
        (i % 7)::int as l_linenumber, (hash % 50)::numeric(15,2) as l_quantity,
        (hash * 0.0000113)::numeric(15,2) as l_extendedprice, (hash % 11 / 100.0)::numeric(15,2) as l_discount,
        (hash % 9 / 100.0)::numeric(15,2) as l_tax, 'N'::char(1) as l_returnflag, 'O'::char(1) as l_linestatus,
        date '1995-01-01' + (hash % 2000)::int as l_shipdate, date '1995-02-01' + (hash % 2000)::int as l_commitdate,
        date '1995-03-01' + (hash % 2000)::int as l_receiptdate, 'DELIVER IN PERSON'::char(25) as l_shipinstruct,
        'TRUCK'::char(10) as l_shipmode, md5(i::text)::varchar(44) as l_comment
    from (select i, abs(hashint8extended(i, {seed})) % 1000000007 as hash from generate_series(1::bigint, {count}) as i) as q
"""
"""Rows like those of TPC-H's lineitem: its 16 columns with their types; each value is made of the seed and the row's number."""

CSV_TYPES = (
    "{l_orderkey: bigint, l_partkey: integer, l_suppkey: integer, l_linenumber: integer,"
    " l_quantity: 'decimal(15,2)', l_extendedprice: 'decimal(15,2)', l_discount: 'decimal(15,2)', l_tax: 'decimal(15,2)',"
    " l_shipdate: date, l_commitdate: date, l_receiptdate: date}"
)
CHECKS = "checks: {l_orderkey: {unique: true, not_null: true}, l_quantity: {ge: 0}, rows: {min: 1}}"

YAML = """\
name: etl
sources:
  - {{source: shop, url: '{url}'}}
  - {{source: lite, url: 'sqlite:///{files}/lineitem.db'}}
  - {{source: parquet, type: files, path: '{files}/parquet', format: parquet}}
  - {{source: csv, type: files, path: '{files}/csv', format: csv, types: {types}}}
sinks:
  - {{sink: mart, url: '{url}', schema: mart}}
  - {{sink: lake, type: files, path: '{files}/lake', format: parquet}}
pipelines:
  - pipeline: copy
    tasks:
      - {{task: rows, type: sql_etl, source: {source}, sink: {sink}, {keys}}}
"""


@dataclass(frozen=True)
class Net:
    """What a run used without its start, which a run over no rows has alone; `peak_bytes` is what its rows add to the memory."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: float


def net(usages: Sequence[Usage], start: Sequence[Usage]) -> Net:
    """The median of some runs less that of runs over no rows; what is left is never nothing."""
    cpu, wall, peak = (
        median(usages, what) - median(start, what) for what in ("cpu_seconds", "wall_seconds", "peak_bytes")
    )
    return Net(max(cpu, 0.001), max(wall, 0.001), max(peak, 0))


class Etl:
    """The cases, on one server with one table of lineitem and what is made of it."""

    def __init__(self, bench: Bench, server: Server, *, rows: int = ROWS, seed: int = 42, peers: bool = False) -> None:
        self.bench, self.server, self.seed = bench, server, seed
        self.count = bench.count(rows)
        self.large = min(self.count, LARGE)
        self.files = bench.home("files")
        self.peers = Peers(bench.home("peers"), bench.env, server) if peers else None
        server.sql("create schema mart")
        server.sql(f"create table lineitem as {LINEITEM.format(count=self.count, seed=seed)}")
        server.sql("vacuum analyze lineitem")

    @property
    def repeats(self) -> int:
        return max(1, self.bench.repeats - 2)

    def rainbow(
        self, name: str, keys: str, *, source: str = "shop", sink: str = "mart", **env: str
    ) -> Callable[[], Usage]:
        """`rainbow run` of one task with these keys; the CPU of the server is in it."""
        folder = self.bench.home(name)
        text = YAML.format(url=self.server.url, keys=keys, source=source, sink=sink, files=self.files, types=CSV_TYPES)
        (folder / "rainbow.yml").write_text(text)
        return self.server.counted(lambda: self.bench.rainbow("run", folder, "--quiet", **env))

    def shell(self, line: str) -> Callable[[], Usage]:
        env = {**self.bench.env, "URL": self.server.url, "FILES": str(self.files)}
        return self.server.counted(lambda: run(["bash", "-o", "pipefail", "-c", line], env=env))

    def query(self, count: int) -> str:
        return f'query: "select * from lineitem where l_orderkey <= {count}"'

    def copied(self, name: str, count: int, more: str = "mode: replace") -> Callable[[], Usage]:
        """PostgreSQL to PostgreSQL, so many rows."""
        return self.rainbow(name, f"table: {name}, {self.query(count)}, {more}")

    def written(self, name: str, count: int) -> Callable[[], Usage]:
        """PostgreSQL to Parquet, so many rows."""
        return self.rainbow(name, f"table: {name}, {self.query(count)}, mode: replace", sink="lake")

    def by_rows(self, name: str, count: int) -> Callable[[], Usage]:
        """SQLite to PostgreSQL by the lane of rows, so many rows."""
        self._make_sqlite()
        return self.rainbow(name, f"table: {name}, {self.query(count)}, mode: replace, engine: rows", source="lite")

    # -- the cases

    def copy(self) -> list[Row]:
        """PostgreSQL to PostgreSQL, beside two psql with a pipe between them, and beside other tools."""
        self.server.sql("create table mart.by_hand (like lineitem)")
        pipe = (
            'psql -qX "$URL" -c "truncate mart.by_hand" && psql -qX "$URL" -c "copy (select * from lineitem) to stdout'
            ' (format binary)" | psql -qX "$URL" -c "copy mart.by_hand from stdin (format binary)"'
        )
        usages = interleaved(
            {"start": self.copied("none", 0), "ours": self.copied("copied", self.count), "peer": self.shell(pipe)},
            repeats=self.repeats,
        )
        self._expect("mart.copied", self.count)
        ours = net(usages["ours"], usages["start"])
        what = f"PostgreSQL to PostgreSQL, {self.count:,} rows"
        rows = [
            Row(what, ours.wall_seconds, "s", 1.10, median(usages["peer"], "wall_seconds"), "psql pipe"),
            Row(
                f"the same, {what}", ours.cpu_seconds, "CPU s", 1.10, median(usages["peer"], "cpu_seconds"), "psql pipe"
            ),
            Row("its memory above that of a run without rows", ours.peak_bytes / MEGABYTE, "MB", 64),
        ]
        if self.peers is not None:
            rows += self._beside(ours, self.count)
        return rows

    def _beside(self, ours: Net, count: int) -> list[Row]:
        """The rows a second of the tools that install; theirs too are without their start."""
        assert self.peers is not None
        rows = []
        for name, command in self.peers.commands().items():
            try:
                usages = interleaved({"start": command(1), "peer": command(count)}, repeats=self.repeats)
            except RuntimeError as error:
                self.peers.gave_up(name, error)
                continue
            self._expect(TABLES[name], count)
            peer, version = net(usages["peer"], usages["start"]), self.peers.version(name)
            rows += [
                Row(f"the same beside {name}", ours.wall_seconds, "s", THIRD, peer.wall_seconds, version),
                Row(f"told only: CPU beside {name}", ours.cpu_seconds, "CPU s", None, peer.cpu_seconds, version),
            ]
        return rows

    def parquet(self) -> list[Row]:
        """PostgreSQL to Parquet, beside COPY to /dev/null."""
        usages = interleaved(
            {
                "start": self.written("no_parquet", 0),
                "ours": self.written("parquet", self.count),
                "peer": self.shell('psql -qX "$URL" -c "copy lineitem to stdout" >/dev/null'),
            },
            repeats=self.repeats,
        )
        ours = net(usages["ours"], usages["start"])
        peer = median(usages["peer"], "wall_seconds")
        peak = median(usages["ours"], "peak_bytes") / MEGABYTE
        return [
            Row(f"PostgreSQL to Parquet, {self.count:,} rows", ours.wall_seconds, "s", 1.9, peer, "COPY to /dev/null"),
            Row(
                "told only: its CPU",
                *(ours.cpu_seconds, "CPU s", None),
                *(median(usages["peer"], "cpu_seconds"), "COPY to /dev/null"),
            ),
            Row("its memory", peak, "MB", 512),
        ]

    def files_in(self) -> list[Row]:
        r"""Parquet and CSV to PostgreSQL, with the extra `fast` and without it, beside \copy of the CSV."""
        self._make_files()
        without = self.bench.home("without")
        (without / "sitecustomize.py").write_text("import sys\n\nsys.modules['pgpq'] = None\n")
        hidden = {"PYTHONPATH": os.pathsep.join(filter(None, [str(without), self.bench.env.get("PYTHONPATH")]))}

        def loaded(source: str, name: str, **env: str) -> Callable[[], Usage]:
            table = "lineitem" if name == "full" else "nothing"
            keys = f"table: {source}_{name}, source_table: {table}, mode: replace"
            return self.rainbow(f"{source}_{name}_{len(env)}", keys, source=source, **env)

        self.server.sql("create table if not exists mart.by_hand (like lineitem)")
        by_hand = (
            'psql -qX "$URL" -c "truncate mart.by_hand" && psql -qX "$URL" -c'
            " \"\\\\copy mart.by_hand from '$FILES/csv/lineitem/lineitem.csv' (format csv, header)\""
        )
        usages = interleaved(
            {
                "peer": self.shell(by_hand),
                **{f"{one} start": loaded(one, "empty") for one in ("parquet", "csv")},
                **{f"{one} fast": loaded(one, "full") for one in ("parquet", "csv")},
                **{f"{one} plain": loaded(one, "full", **hidden) for one in ("parquet", "csv")},
            },
            repeats=self.repeats,
        )
        self._expect("mart.parquet_full", self.large)
        self._expect("mart.csv_full", self.large)
        rows = []
        for one, how, what, bar in (
            ("parquet", "fast", "Parquet to PostgreSQL, {count} rows, with the extra `fast`", 1.0),
            ("parquet", "plain", "Parquet to PostgreSQL, {count} rows, without the extra `fast`", 1.4),
            ("csv", "fast", "CSV to PostgreSQL, {count} rows, with the extra `fast`", 1.0),
            ("csv", "plain", "CSV to PostgreSQL, {count} rows, without the extra `fast`", 1.4),
        ):
            told = what.format(count=f"{self.large:,}")
            ours = net(usages[f"{one} {how}"], usages[f"{one} start"])
            wall, cpu = (median(usages["peer"], key) for key in ("wall_seconds", "cpu_seconds"))
            rows += [
                Row(told, ours.wall_seconds, "s", bar, wall, r"`\copy` of CSV"),
                Row("told only: its CPU", ours.cpu_seconds, "CPU s", None, cpu, r"`\copy` of CSV"),
            ]
        return rows

    def rows(self) -> list[Row]:
        """SQLite to PostgreSQL by the lane of rows, beside pandas."""
        count = self.large
        commands = {"start": self.by_rows("no_rows", 0), "ours": self.by_rows("rows", count)}
        if self.peers is not None:
            pandas = self.peers.pandas(self.files / "lineitem.db")
            commands |= {"pandas start": pandas(1), "pandas": pandas(count)}
        usages = interleaved(commands, repeats=1 if self.peers is not None else self.repeats)
        self._expect("mart.rows", count)
        if self.peers is not None:
            self._expect(TABLES["pandas"], count)
        ours = net(usages["ours"], usages["start"])
        what = f"SQLite to PostgreSQL by rows, {count:,} rows"
        memory = Row("its memory above that of a run without rows", ours.peak_bytes / MEGABYTE, "MB", 128)
        if self.peers is None:
            return [Row(f"told only: {what}", ours.wall_seconds, "s"), memory]
        peer = net(usages["pandas"], usages["pandas start"])
        return [Row(what, ours.wall_seconds, "s", THIRD, peer.wall_seconds, self.peers.version("pandas")), memory]

    def upsert(self) -> list[Row]:
        """An upsert in which nothing changed, beside an append of the same rows."""
        keys = "mode: upsert, keys: [l_orderkey]"
        first = self.copied("upserted", self.large, keys)()
        if first.code:
            raise RuntimeError(first.err)
        usages = interleaved(
            {
                "start": self.copied("none", 0),
                "ours": self.copied("upserted", self.large, keys),
                "peer": self.copied("appended", self.large, "mode: append"),
            },
            repeats=self.repeats,
        )
        self._expect("mart.upserted", self.large)
        ours, peer = (net(usages[one], usages["start"]).cpu_seconds for one in ("ours", "peer"))
        return [Row(f"upsert of {self.large:,} rows, nothing changed", ours, "CPU s", 2.0, peer, "append of them")]

    def memory(self) -> list[Row]:
        """The peak of each lane with ten times the rows."""
        lanes = (
            ("PostgreSQL to PostgreSQL", self.copied, self.count),
            ("PostgreSQL to Parquet", self.written, self.count),
            ("SQLite to PostgreSQL by rows", self.by_rows, self.large),
        )
        rows = []
        for number, (what, lane, count) in enumerate(lanes):
            few, many = lane(f"few_{number}", count // 10), lane(f"many_{number}", count)
            usages = interleaved({"few": few, "many": many}, repeats=self.repeats)
            peaks = {one: median(usages[one], "peak_bytes") / MEGABYTE for one in usages}
            told = f"memory of {what}, {count:,} rows"
            rows.append(Row(told, peaks["many"], "MB", 1.10, peaks["few"], f"{count // 10:,} rows"))
        return rows

    def checks(self) -> list[Row]:
        """Ledger and checks, beside the bare copy of the same bytes by psycopg."""
        bare = HERE / "peers" / "etl_bare.py"

        def peer(count: int) -> Callable[[], Usage]:
            return self.server.counted(lambda: self.bench.python(bare, self.server.url, str(count)))

        usages = interleaved(
            {
                "start": self.copied("none", 0),
                "checked": self.copied("checked", self.count, f"mode: replace, {CHECKS}"),
                "unchecked": self.copied("unchecked", self.count),
                "bare start": peer(0),
                "bare": peer(self.count),
            },
            repeats=self.repeats,
        )
        self._expect("mart.checked", self.count)
        checked, unchecked = (net(usages[one], usages["start"]).cpu_seconds for one in ("checked", "unchecked"))
        bare_cpu = net(usages["bare"], usages["bare start"]).cpu_seconds
        return [
            Row("a load with its ledger", unchecked, "CPU s", 1.10, bare_cpu, "bare copy by psycopg"),
            Row("a load with its ledger and checks", checked, "CPU s", 1.10, bare_cpu, "bare copy by psycopg"),
            Row("told only: with checks, one of them of uniqueness", checked, "CPU s", None, unchecked, "without"),
        ]

    # -- what they read

    def _make_files(self) -> None:
        """The rows as a file of CSV by psql, and as Parquet with the types of its table; one of each without rows."""
        from pyarrow import csv, date32, decimal128, int32, int64, parquet, string

        kinds = {"bigint": int64(), "integer": int32(), "decimal(15,2)": decimal128(15, 2), "date": date32()}
        names = self.server.sql("select attname from pg_attribute where attrelid = 'lineitem'::regclass and attnum > 0")
        import yaml

        types = {name: string() for name in names.split()} | {
            name: kinds[kind] for name, kind in yaml.safe_load(CSV_TYPES).items()
        }
        for table, count in (("lineitem", self.large), ("nothing", 0)):
            plain, arrow = (self.files / kind / table for kind in ("csv", "parquet"))
            for folder in (plain, arrow):
                folder.mkdir(parents=True, exist_ok=True)
            file = plain / f"{table}.csv"
            self.server.sql(
                f"\\copy (select * from lineitem where l_orderkey <= {count}) to '{file}' (format csv, header)"
            )
            options = csv.ConvertOptions(column_types=types)
            parquet.write_table(csv.read_csv(file, convert_options=options), arrow / f"{table}.parquet")

    def _make_sqlite(self) -> None:
        """The rows as a table of SQLite with the same types."""
        import sqlite3

        file = self.files / "lineitem.db"
        if file.exists():
            return
        done = subprocess.run(
            ["psql", "-qX", self.server.url, "-c", f"copy (select * from lineitem limit {self.large}) to stdout"],
            capture_output=True,
            text=True,
            check=True,
        )
        columns = self.server.sql(
            "select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attnum)"
            " from pg_attribute where attrelid = 'lineitem'::regclass and attnum > 0"
        )
        with sqlite3.connect(file) as made:
            made.execute(f"create table lineitem ({columns.replace('character', 'char')})")
            rows = (line.split("\t") for line in done.stdout.splitlines())
            made.executemany(f"insert into lineitem values ({', '.join('?' * 16)})", rows)
        made.close()

    def _expect(self, table: str, count: int) -> None:
        """A benchmark of a load that lost rows would say nothing."""
        found = int(self.server.sql(f"select count(*) from {table}"))
        if found != count:
            raise RuntimeError(f"{table} has {found} rows, not {count}")


CASES: dict[str, Callable[[Etl], list[Row]]] = {
    "copy": Etl.copy,
    "parquet": Etl.parquet,
    "files_in": Etl.files_in,
    "rows": Etl.rows,
    "upsert": Etl.upsert,
    "memory": Etl.memory,
    "checks": Etl.checks,
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit status whether all bars are met."""
    wanted = _arguments(words)
    if wanted.list:
        for name, case in CASES.items():
            print(f"{name:10} {case.__doc__}")
        return 0
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
        server = stack.enter_context(postgres(home / "postgres"))
        bench = Bench(home, env, wanted.repeats, wanted.scale)
        etl = Etl(bench, server, rows=wanted.rows, seed=wanted.seed, peers=wanted.peers)
        for name in wanted.names:
            print(f"{name}: {CASES[name].__doc__}", file=sys.stderr)
            rows += CASES[name](etl)
        told = f"{_machine()} {_psql()}; seed {wanted.seed}.{etl.peers.told() if etl.peers else ''}"
    text = f"{markdown(rows)}\n\n{told}"
    print(json.dumps([asdict(one) | {"is_met": one.is_met} for one in rows], indent=2) if wanted.json else f"\n{text}")
    if wanted.write:
        write(HERE / "README.md", text, MARKERS)
    missed = [row for row in rows if not row.is_met]
    for row in missed:
        print(f"MISSED: {' | '.join(filter(None, [*row.cells(), row.note]))}", file=sys.stderr)
    return 1 if missed else 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.etl", description=__doc__)
    parser.add_argument("--only", help="names of cases, with commas between them")
    parser.add_argument("--repeats", type=int, default=5, help="commands run two times less than that (default: 5)")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the table (default: {ROWS:,})")
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the rows, to try something out")
    parser.add_argument("--seed", type=int, default=42, help="what the values are made of (default: 42)")
    parser.add_argument("--peers", action="store_true", help="also measure other tools, installed into .cache/peers")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--list", action="store_true", help="name the cases")
    wanted = parser.parse_args(words)
    wanted.names = wanted.only.split(",") if wanted.only else list(CASES)
    unknown = [name for name in wanted.names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)} (known: {', '.join(CASES)})")
    return wanted


def _psql() -> str:
    psql = shutil.which("psql") or "psql"
    return subprocess.run([psql, "--version"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    adopt_orphans()
    sys.exit(main())
