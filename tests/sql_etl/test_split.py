"""Loads in parts, of and into real databases: each row once, in one snapshot, whatever was killed or written meanwhile."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pymysql
import pytest
from sqlalchemy import make_url

from rainbow_prefect.sql_etl import parts
from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.checks import Checks
from rainbow_prefect.sql_etl.deletes import DeleteMissing, Deletes
from rainbow_prefect.sql_etl.incremental import Incremental
from rainbow_prefect.sql_etl.move import Order
from rainbow_prefect.sql_etl.parts import Shared
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.split import Split
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from tests.conftest import ROOT

WAYS = ["postgres", "mariadb", "sqlite", "duckdb"]


class Base:
    """A database of a kind, by plain statements."""

    def __init__(self, kind: str, url: str, folder: Path) -> None:
        self.kind, self.url, self.folder = kind, url, folder
        self._session: Any = None

    def do(self, script: str) -> list[Any]:
        """Run statements; gives the rows of the last one."""
        found: list[Any] = []
        for sql in filter(None, map(str.strip, script.split(";"))):
            found = self._done(sql)
        return found

    def _done(self, sql: str) -> list[Any]:
        if self.kind == "postgres":
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        if self.kind == "mariadb":
            url = make_url(self.url)
            with (
                pymysql.connect(
                    host=url.host, port=url.port or 0, user="root", database=url.database, autocommit=True
                ) as client,
                client.cursor() as cursor,
            ):
                cursor.execute(sql)
                return list(cursor.fetchall() or ())
        if self.kind == "duckdb":
            with duckdb.connect(str(self.folder / self.url.rpartition("/")[2])) as file:
                return file.execute(sql).fetchall()
        db = sqlite3.connect(self.folder / self.url.rpartition("/")[2])
        try:
            found = db.execute(sql).fetchall()
            db.commit()
            return found
        finally:
            db.close()

    def rows(self, table: str = "t", columns: str = "k, v") -> list[Any]:
        return sorted(map(tuple, self.do(f"select {columns} from {table}")), key=repr)

    def tables(self) -> set[str]:
        sql = {
            "postgres": "select tablename from pg_tables where schemaname = 'public'",
            "mariadb": "show tables",
            "sqlite": "select name from sqlite_master where type = 'table'",
            "duckdb": "select table_name from duckdb_tables()",
        }[self.kind]
        return {row[0] for row in self.do(sql)} - {"_rainbow_etl_ledger"}


class Case:
    """A source and a sink, and one task that is split between them."""

    def __init__(self, source: Base, sink: Base, folder: Path) -> None:
        self.source, self.sink, self.folder = source, sink, folder
        self.said: list[str] = []
        self.split = Split(by="k", executors=3)
        self.order = Order("app/nightly/t", "run-1", Query(table=(None, "s")), (None, "t"))

    def session(self) -> Session:
        return Session(root=self.folder, say=self.said.append)

    def stores(self) -> tuple[SqlSource, SqlSink]:
        return SqlSource(url=self.source.url), SqlSink(url=self.sink.url)

    def slice(self, index: int) -> Shared:
        source, sink = self.stores()
        count = self.split.executors
        return parts.share(self.order, self.split, source, sink, self.session(), index=index, count=count)

    def begin(self) -> None:
        parts.begin(self.order, self.split, *self.stores(), self.session())

    def end(self) -> None:
        parts.forget(self.order.run_key, "t")

    def __call__(self, **more: Any) -> list[Shared]:
        """All slices at once, as a run does it."""
        self.order = replace(self.order, **more)
        try:
            self.begin()
            with ThreadPoolExecutor(self.split.executors) as pool:
                return list(pool.map(self.slice, range(self.split.executors)))
        finally:
            self.end()


@pytest.fixture
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Base]:
    def made(kind: str, which: str = "") -> Base:
        if kind in ("sqlite", "duckdb"):
            name = f"{which or 'source'}.{'db' if kind == 'sqlite' else 'duckdb'}"
            return Base(kind, f"{kind}:///{name}", tmp_path)
        return Base(kind, request.getfixturevalue(f"other_{kind}" if which == "sink" else kind), tmp_path)

    return made


@pytest.fixture
def case(base: Callable[..., Base], tmp_path: Path) -> Iterator[Callable[..., Case]]:
    made: list[Case] = []

    def build(source: str = "postgres", sink: str = "", rows: int = 50) -> Case:
        one = Case(base(source), base(sink or source, "sink"), tmp_path)
        one.source.do("create table s (k int, v varchar(20))")
        if rows:
            values = ", ".join(f"({n if n < 40 else 1}, 'row {n}')" for n in range(1, rows + 1))
            one.source.do(f"insert into s values {values}, (null, 'none'), (9999, 'far')")
        made.append(one)
        return one

    yield build
    for one in made:
        one.end()


# -- each row once


@pytest.mark.parametrize(
    ("kind", "atomic"),
    [("postgres", False), ("postgres", True), ("mariadb", True), ("sqlite", False), ("duckdb", True)],
)
def test_skewed_keys_and_null_come_once(case: Callable[..., Case], kind: str, atomic: bool) -> None:
    one = case(kind)
    one.split = Split(by="k", executors=3, atomic=atomic)

    done = one()

    assert one.sink.rows() == one.source.rows("s")
    assert sum(part.counts.written for shared in done for part in shared.parts) == 52
    assert one.sink.tables() == {"t"}
    assert [shared.end is not None for shared in done].count(True) == (1 if atomic else 0)


@pytest.mark.parametrize("kind", ["mariadb", "duckdb"])
def test_hashes_come_once(case: Callable[..., Case], kind: str) -> None:
    one = case(kind)
    one.split = Split(by="v", method="hash", executors=4)

    one()

    assert one.sink.rows() == one.source.rows("s")


@pytest.mark.parametrize(("source", "sink"), [("sqlite", "postgres"), ("mariadb", "duckdb")])
def test_parts_go_from_any_database_to_any_other(case: Callable[..., Case], source: str, sink: str) -> None:
    one = case(source, sink)
    one.split = Split(by="k", executors=2, atomic=True)

    one()

    assert one.sink.rows() == one.source.rows("s")


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_empty_table_makes_the_table(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)

    one()

    assert one.sink.rows() == []


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_fewer_keys_than_parts_leave_slices_with_nothing_to_do(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (7, 'a'), (7, 'b'), (8, 'c')")
    one.split = Split(by="k", executors=5)

    done = one()

    assert one.sink.rows() == [(7, "a"), (7, "b"), (8, "c")]
    assert any(not shared.parts for shared in done)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_windows_of_a_time_are_shared_by_the_slices(case: Callable[..., Case], kind: str) -> None:
    one = case(kind)
    one.source.do("create table d (k int, v varchar(20), at timestamp null)")
    days = ", ".join(f"({n}, 'x', '2024-02-{n:02} 13:00:00')" for n in range(20, 28))
    one.source.do(f"insert into d values {days}, (0, 'none', null)")
    one.split = Split(by="at", every="1d", executors=3)

    done = one(query=Query(table=(None, "d")))

    assert [len(shared.parts) for shared in done] == [3, 3, 2]
    assert one.sink.rows() == one.source.rows("d")


def test_pages_of_a_table_are_parts(case: Callable[..., Case]) -> None:
    one = case(rows=0)
    one.source.do("insert into s select i, repeat('x', 20) from generate_series(1, 5000) i")
    one.split = Split(method="ctid", executors=3)

    done = one()

    assert [shared.parts[0].part for shared in done] == ["ctid 1/3", "ctid 2/3", "ctid 3/3"]
    assert one.sink.rows() == one.source.rows("s")


PARTITIONED = {
    "postgres": "create table p (k int, v text) partition by range (k); create table low partition of p for values from (0)"
    " to (10); create table high partition of p default; insert into p select i, 'x' from generate_series(1, 30) i",
    "mariadb": "create table p (k int, v varchar(5)) partition by range (k) (partition low values less than (10), partition"
    " high values less than maxvalue); insert into p select seq, 'x' from seq_1_to_30",
}


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_partitions_of_a_table_are_parts(case: Callable[..., Case], kind: str) -> None:
    one = case(kind)
    one.source.do(PARTITIONED[kind])
    one.split = Split(method="partition", executors=2)

    done = one(query=Query(table=(None, "p")))

    assert sorted(shared.parts[0].counts.written for shared in done) == [9, 21]
    assert one.sink.rows() == one.source.rows("p")


# -- modes


MODES = {
    "postgres": ["upsert", "delete_insert", "replace"],
    "mariadb": ["replace"],
    "sqlite": ["upsert", "fail"],
    "duckdb": ["insert_new", "replace"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_modes_in_parts(case: Callable[..., Case], kind: str, mode: Any) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'new'), (2, 'new'), (3, 'new'), (4, 'new')")
    if mode != "fail":
        one.sink.do("create table t (k int primary key, v varchar(20)); insert into t values (2, 'old'), (9, 'old')")

    one(mode=mode, keys=("k",))

    new = [(1, "new"), (2, "new"), (3, "new"), (4, "new")]
    left = {"insert_new": [new[0], (2, "old"), *new[2:], (9, "old")], "replace": new, "fail": new}
    assert one.sink.rows() == left.get(mode, [*new, (9, "old")])
    assert one.sink.tables() == {"t"}


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_all_rows_are_known_when_what_is_missing_goes(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'new'), (2, 'new'), (3, 'new')")
    one.sink.do("create table t (k int primary key, v varchar(20)); insert into t values (2, 'old'), (9, 'old')")
    one.split = Split(by="k", executors=2, atomic=True)

    one(mode="upsert", keys=("k",), quality=Quality(deletes=Deletes(DeleteMissing())))

    assert one.sink.rows() == [(1, "new"), (2, "new"), (3, "new")]


@pytest.mark.parametrize("kind", ["duckdb"])
def test_keys_that_come_twice_in_two_parts_are_refused_as_a_whole(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'a'), (2, 'b'), (3, 'a')")
    one.split = Split(by="k", executors=3, atomic=True)

    with pytest.raises(BadValue, match="more than once"):
        one(mode="upsert", keys=("v",))

    assert "t" not in one.sink.tables() or one.sink.rows() == []
    one.source.do("delete from s where k = 3")
    one(mode="upsert", keys=("v",), run_key="run-2")
    assert one.sink.rows() == [(1, "a"), (2, "b")]


# -- what was loaded is not loaded again


@pytest.mark.parametrize(
    ("kind", "atomic"),
    [("postgres", False), ("postgres", True), ("mariadb", True), ("sqlite", True), ("duckdb", False)],
)
def test_a_part_that_failed_is_loaded_alone(case: Callable[..., Case], kind: str, atomic: bool) -> None:
    one = case(kind)
    one.split = Split(by="k", executors=3, atomic=atomic)
    one.begin()
    one.slice(0)
    one.slice(2)
    one.end()
    assert ("t" in one.sink.tables()) is not atomic
    late = 5000 if kind == "mariadb" else 20  # which has ranges of equal width
    one.source.do(f"insert into s values ({late}, 'late'), (10000, 'later')")

    again = one()

    assert [part.skipped for shared in again for part in shared.parts] == [True, False, True]
    assert len(one.sink.rows()) == 53
    assert (late, "late") in one.sink.rows()
    third = one()
    assert all(part.skipped for shared in third for part in shared.parts)
    assert len(one.sink.rows()) == 53
    assert one.sink.tables() == {"t"}


def test_another_run_loads_again(case: Callable[..., Case]) -> None:
    one = case("sqlite")
    one()

    one(run_key="run-2")

    assert len(one.sink.rows()) == 104


def test_a_task_that_was_changed_cannot_go_on(case: Callable[..., Case]) -> None:
    one = case("sqlite")
    one()

    with pytest.raises(Refused) as raised:
        one(query=Query(sql="select k, v from s where k > 1"))

    assert raised.value.message == "the task was changed after this run had cut its parts; start a new run"


# -- one snapshot


def test_all_parts_read_one_moment(case: Callable[..., Case]) -> None:
    one = case()
    before = one.source.rows("s")
    one.begin()
    one.slice(0)
    one.source.do("update s set k = 10000 - k; insert into s values (5, 'late'); delete from s where v = 'row 3'")

    one.slice(1)
    one.slice(2)

    assert one.sink.rows() == before
    assert one.said.count("warning") == 0


def test_a_snapshot_that_is_gone_is_told(case: Callable[..., Case]) -> None:
    one = case()
    one.begin()
    one.slice(0)
    one.source.do(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )

    done = one.slice(1)

    told = (
        "the snapshot in which other parts were read is gone: part 'k 2/3' is read as of now; a row of which `k` "
        "changed in between may be in two parts or in none"
    )
    assert done.as_dict(one.order)["warnings"] == [told]
    one.slice(2)
    assert one.sink.rows() == one.source.rows("s")


def test_pages_cannot_be_read_in_another_snapshot(case: Callable[..., Case]) -> None:
    one = case(rows=0)
    one.source.do("insert into s select i, repeat('x', 20) from generate_series(1, 5000) i")
    one.split = Split(method="ctid", executors=2)
    one.begin()
    one.slice(0)
    one.end()
    one.begin()

    with pytest.raises(Refused) as raised:
        one.slice(1)

    assert raised.value.message == (
        "the snapshot in which other parts were read is gone, and rows that changed since then stand in other places "
        "(ctid); start a new run, or split `by` a column"
    )


def test_no_session_is_left(case: Callable[..., Case]) -> None:
    one = case()

    one()

    left = one.source.do(
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert left == [(0,)]


# -- only what is new, and what must hold for all


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_the_cursor_moves_once_after_all_parts(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
    one.split = Split(by="k", executors=2, atomic=True)
    one.order = replace(one.order, incremental=Incremental("k"))
    one.begin()
    one.slice(0)
    one.source.do("insert into s values (5, 'e')")
    one.slice(1)
    one.end()
    assert one.sink.rows() == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]

    one(run_key="run-2")

    assert one.sink.rows() == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]


def test_two_runs_with_one_cursor_do_not_both_load(case: Callable[..., Case]) -> None:
    one = case("sqlite", rows=4)
    one.split = Split(by="k", executors=1, atomic=True)
    one.order = replace(one.order, incremental=Incremental("k", nulls="exclude"))
    one.begin()
    other = replace(one.order, run_key="run-2")
    source, sink = one.stores()
    parts.begin(other, one.split, source, sink, one.session())
    one.slice(0)

    with pytest.raises(Refused) as raised:
        parts.share(other, one.split, source, sink, one.session())

    parts.forget("run-2", "t")
    assert raised.value.message == "another run moved the cursor of this task meanwhile; start a new run"
    assert len(one.sink.rows()) == 5


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_checks_are_about_all_parts(case: Callable[..., Case], kind: str) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'a'), (2, 'b'), (3, 'a'), (4, 'c')")
    one.split = Split(by="k", executors=2, atomic=True)
    checks = _checks({"v": {"unique": True}, "rows": {"min": 5}})

    with pytest.raises(BadValue) as raised:
        one(quality=Quality(checks=checks))

    assert "column 'v' comes more than once in 2 rows" in raised.value.message
    assert "4 rows came, at least 5 must" in raised.value.message
    assert "t" not in one.sink.tables() or one.sink.rows() == []


@pytest.mark.parametrize(("kind", "atomic"), [("postgres", True), ("mariadb", False), ("sqlite", True)])
def test_bad_rows_are_put_aside(case: Callable[..., Case], kind: str, atomic: bool) -> None:
    one = case(kind, rows=0)
    one.source.do("insert into s values (1, 'a'), (2, null), (3, 'c'), (4, null)")
    one.split = Split(by="k", executors=2, atomic=atomic)

    one(quality=Quality(checks=_checks({"v": {"not_null": True}}), on_bad_row="quarantine"))

    assert one.sink.rows() == [(1, "a"), (3, "c")]
    assert len(one.sink.do("select error from t__rejected")) == 2


def _checks(data: dict[str, Any]) -> Checks:
    from pydantic import TypeAdapter

    from rainbow_prefect.sql_etl.checks import AnyChecks

    return TypeAdapter(AnyChecks).validate_python(data)


# -- killed


WORKER = """
import os, signal, sys
from pathlib import Path
from rainbow_prefect.sql_etl import parts
from rainbow_prefect.sql_etl.base import Query, Session
from rainbow_prefect.sql_etl.move import Order
from rainbow_prefect.sql_etl.split import Split
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

source, sink, folder, atomic, mode, dies = sys.argv[1:]
order = Order("app/nightly/t", "run-1", Query(table=(None, "s")), (None, "t"), mode=mode, keys=("k",) if mode == "upsert" else ())
split = Split(by="k", executors=3, atomic=atomic == "True")
written = []
ended = parts._ended

def end(*given):
    written.append(1)
    if dies == "before the end" and len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    done = ended(*given)
    if dies == "after a part" and len(written) == 2 or dies == "after the end" and len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

parts._ended = end
for index in range(3):
    parts.share(order, split, SqlSource(url=source), SqlSink(url=sink), Session(root=Path(folder)), index=index, count=3)
"""


@pytest.mark.parametrize(
    ("kind", "atomic", "dies"),
    [
        ("postgres", False, "after a part"),
        ("postgres", True, "before the end"),
        ("postgres", True, "after the end"),
        ("mariadb", True, "before the end"),
    ],
)
def test_a_killed_load_goes_on_where_it_was(case: Callable[..., Case], kind: str, atomic: bool, dies: str) -> None:
    one = case(kind)
    given = [one.source.url, one.sink.url, str(one.folder), str(atomic), "append", dies]
    killed = subprocess.run([sys.executable, "-c", WORKER, *given], cwd=ROOT, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    one.split = Split(by="k", executors=3, atomic=atomic)

    again = one()

    skipped = [part.skipped for shared in again for part in shared.parts]
    assert skipped == ([True, True, False] if dies == "after a part" else [True, True, True])
    assert one.sink.rows() == one.source.rows("s")
    assert one.sink.tables() == {"t"}


# -- stages, files


def test_a_stage_that_nobody_wants_any_more_is_removed(case: Callable[..., Case]) -> None:
    one = case("sqlite")
    one.split = Split(by="k", executors=2, atomic=True)
    one.begin()
    one.slice(0)
    one.end()
    stages = one.sink.tables()
    one(run_key="run-2")
    assert one.sink.tables() == {"t", *stages}, "its run may be tried again"
    one.sink.do("update _rainbow_etl_ledger set begun = '2020-01-01T00:00:00' where part = '(plan)'")

    one(run_key="run-3")

    assert one.sink.tables() == {"t"}


def test_files_take_parts(case: Callable[..., Case]) -> None:
    from rainbow_prefect.sql_etl.files import FilesSink, FilesSource

    one = case("sqlite")
    sink = FilesSink(path="lake")
    source, session = SqlSource(url=one.source.url), one.session()
    for index in (0, 1, 2, 1):
        parts.share(one.order, one.split, source, sink, session, index=index, count=3)
    one.end()

    reader = FilesSource(path="lake").open(session)
    query = Query(table=(None, "t"))
    rows = [row for some in reader.rows(query, reader.describe(query)) for row in some]
    assert sorted(rows, key=repr) == one.source.rows("s")


def test_one_file_of_duckdb_is_not_read_and_written_in_parts(case: Callable[..., Case]) -> None:
    one = case("duckdb", rows=2)
    one.sink = one.source

    with pytest.raises(Refused) as raised:
        one()

    assert raised.value.message == "one file of DuckDB cannot be read and written in parts; remove `split`"


def test_one_file_of_sqlite_is_read_and_written_in_parts(case: Callable[..., Case]) -> None:
    one = case("sqlite")
    one.sink = one.source
    one.split = Split(by="k", executors=2, atomic=True)

    one()

    assert one.sink.rows() == one.source.rows("s")
