"""`mode: scd2`, `delete_missing` and `deleted_flag` in SQLite, PostgreSQL, MariaDB and DuckDB."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import BadValue, Mode, Query, Refused, Session
from rainbow_prefect.sql_etl.deletes import DeleteMissing, Deletes
from rainbow_prefect.sql_etl.history import History
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

EACH = ["sqlite", "duckdb", "postgres", "mariadb"]
USERS = """
    drop table if exists users;
    create table users (id integer not null, name text, city text, seen integer, gone boolean);
    insert into users values (1, 'ann', 'Oslo', 10, 0), (2, 'bob', null, 10, 0), (3, 'cy', 'Rome', 10, 0);
"""
ALL = "select id, name, city, seen, gone from users"
ONE = "select id, name, city from users"


class Mart:
    """A file of SQLite as the source, another database as the sink."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.said: list[str] = []
        self.runs = 0
        self.do(USERS)

    def do(self, script: str) -> None:
        db = sqlite3.connect(self.folder / "source.db")
        db.executescript(script)
        db.close()

    def order(self, sql: str = ONE, *, mode: Mode = "scd2", keys: Any = ("id",), **more: Any) -> Order:
        self.runs += 1
        run_key = more.pop("run_key", f"run-{self.runs}")
        return Order("a/p/t", run_key, Query(sql), (None, "t"), mode, keys, quality=Quality(**more))

    def __call__(self, sql: str = ONE, **more: Any) -> Moved:
        session = Session(root=self.folder, say=self.said.append)
        return move(self.order(sql, **more), SqlSource(url="sqlite:///source.db"), SqlSink(url=self.url), session)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        writer = SqlSink(url=self.url).open(Session(root=self.folder))
        try:
            return [tuple(one) for one in writer.query(sql)]
        finally:
            writer.close()

    def versions(self, columns: str = "id, name, city") -> list[tuple[Any, ...]]:
        """The versions in their order; the last value says whether it holds now."""
        found = self.rows(f"select {columns}, is_current, valid_to is null as open_ from t order by id, valid_from")
        assert all(bool(row[-1]) == bool(row[-2]) for row in found)
        return [(*row[:-2], bool(row[-2])) for row in found]


@pytest.fixture(params=EACH)
def mart(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mart]:
    name = request.param
    files = {"sqlite": f"sqlite:///{tmp_path}/mart.db", "duckdb": f"duckdb:///{tmp_path}/mart.duckdb"}
    yield Mart(tmp_path, files.get(name) or request.getfixturevalue(name))


def told(call: Callable[[], Any], kind: type[Exception] = BadValue) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# -- history


def test_a_new_version_is_made_of_what_changed_and_the_old_one_ends(mart: Mart) -> None:
    first = mart()
    mart.do("update users set city = 'oslo' where id = 1; update users set city = 'Ulm' where id = 2")
    mart.do("insert into users values (4, 'dee', 'Bern', 11, 0)")

    second = mart()

    assert (first.counts.inserted, first.counts.updated) == (3, 0)
    assert (second.counts.read, second.counts.inserted, second.counts.updated) == (4, 3, 2)
    assert mart.versions() == [
        (1, "ann", "Oslo", False),
        (1, "ann", "oslo", True),
        (2, "bob", None, False),
        (2, "bob", "Ulm", True),
        (3, "cy", "Rome", True),
        (4, "dee", "Bern", True),
    ]
    assert mart.rows(
        "select count(*) from t as a join t as b on a.id = b.id where a.valid_to = b.valid_from and a.valid_from < a.valid_to"
    ) == [(2,)]


def test_what_did_not_change_makes_no_version_and_the_same_run_loads_once(mart: Mart) -> None:
    mart()
    again = mart()
    mart.do("update users set name = 'eve' where id = 3")
    once = mart(run_key="same")
    mart.do("update users set name = 'fay' where id = 3")
    skipped = mart(run_key="same")

    assert (again.counts.inserted, again.counts.updated) == (0, 0)
    assert (once.counts.inserted, skipped.skipped) == (1, True)
    assert mart.versions("id, name") == [(1, "ann", True), (2, "bob", True), (3, "cy", False), (3, "eve", True)]


def test_versions_end_when_rows_are_gone_and_begin_again_when_they_are_back(mart: Mart) -> None:
    missing = {"deletes": Deletes(DeleteMissing())}
    mart(**missing)
    mart.do("delete from users where id = 2")
    gone = mart(**missing)
    mart.do("insert into users values (2, 'bob', null, 12, 0)")
    mart(**missing)

    assert gone.counts.deleted == 1
    assert [row for row in mart.versions() if row[0] == 2] == [(2, "bob", None, False), (2, "bob", None, True)]
    assert len(mart.versions()) == 4


def test_a_flag_of_the_source_ends_a_version(mart: Mart) -> None:
    flag = {"deletes": Deletes(flag="gone"), "history": History(by="seen")}
    mart(ALL, **flag)
    mart.do("update users set gone = 1, seen = 20 where id = 3; update users set name = 'al', seen = 21 where id = 1")

    moved = mart(ALL, **flag)
    again = mart(ALL, **flag)

    assert (moved.counts.deleted, moved.counts.inserted, moved.counts.updated) == (1, 1, 1)
    assert (again.counts.deleted, again.counts.inserted, again.counts.updated) == (0, 0, 0)
    assert mart.rows("select id, name, valid_from, valid_to from t order by id, valid_from") == [
        (1, "ann", 10, 21),
        (1, "al", 21, None),
        (2, "bob", 10, None),
        (3, "cy", 10, 20),
    ]


def test_rows_that_come_late_are_refused_with_their_keys(mart: Mart) -> None:
    by = {"history": History(by="seen")}
    mart(ALL, **by)
    mart.do("update users set name = 'x', seen = 9 where id = 2")

    text = told(lambda: mart(ALL, **by))

    assert text == (
        "rows came late: their 'seen' is not after that of the version in the table (id=2); leave them out in the query; "
        "nothing was written"
    )
    assert [row[1] for row in mart.versions()] == ["ann", "bob", "cy"]


def test_only_some_columns_make_a_version(mart: Mart) -> None:
    tracked = {"history": History(columns=("city",), valid_from="since", valid_to="until", is_current="now_")}
    mart(**tracked)
    mart.do("update users set name = 'zoe' where id = 1; update users set city = 'Kiel' where id = 2")

    mart(**tracked)

    assert [(row[0], row[1], bool(row[2])) for row in mart.rows("select id, name, now_ from t order by id, since")] == [
        (1, "ann", True),
        (2, "bob", False),
        (2, "bob", True),
        (3, "cy", True),
    ]


def test_keys_that_come_twice_or_are_empty_are_refused(mart: Mart) -> None:
    mart()
    before = mart.versions()
    mart.do("insert into users values (1, 'ann', 'Graz', 10, 0)")

    text = told(mart)

    assert "1" in text
    assert "more than once" in text
    assert mart.versions() == before


def test_a_table_without_the_columns_of_versions_is_refused(mart: Mart) -> None:
    mart(mode="append", keys=())

    text = told(mart, Refused)

    assert text == (
        "the table 't' has no column 'valid_from', 'valid_to', 'is_current', which `mode: scd2` needs; add it, name it in "
        "`history`, or load into a new table"
    )
    assert told(lambda: mart("select id, 1 as valid_to from users"), Refused).startswith(
        "the query gives 'valid_to', a column that `mode: scd2` fills"
    )


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_versions_of_one_database_in_itself(postgres: str, tmp_path: Path, engine: Any) -> None:
    """By the bytes of COPY, and row by row; also of columns that have no equality."""
    from tests.sql_etl.test_reloading import do, rows

    do(postgres, tmp_path, "create table src as select 1 as id, '{}'::json as j, 1.50::numeric as n, point(1, 2) as p")

    def load(run: str) -> Moved:
        order = Order("a/p/t", run, Query("select * from src"), (None, "t"), "scd2", ("id",), engine=engine)
        return move(order, SqlSource(url=postgres), SqlSink(url=postgres), Session(root=tmp_path))

    first, same = load("1"), load("2")
    do(postgres, tmp_path, "update src set j = '{\"a\": 1}'")
    load("3")

    assert first.engine == {"auto": "pg_binary", "rows": "rows"}[engine]
    assert same.counts.inserted == 0
    assert rows(postgres, tmp_path, "select j::text, is_current from t order by valid_from") == [
        ("{}", False),
        ('{"a": 1}', True),
    ]


# -- rows that are gone


@pytest.mark.parametrize("mode", ["upsert", "insert_new"])
def test_rows_that_the_source_no_longer_has_are_deleted(mart: Mart, mode: Any) -> None:
    mart(mode=mode)
    mart.do("delete from users where id = 2; update users set name = 'x' where id = 1")

    moved = mart(mode=mode, deletes=Deletes(DeleteMissing(max_share=0.5)))

    assert moved.counts.deleted == 1
    assert moved.as_dict()["rows_deleted"] == 1
    assert mart.rows("select id, name from t order by id") == [(1, "x" if mode == "upsert" else "ann"), (3, "cy")]


def test_a_source_without_rows_does_not_empty_the_table_unless_it_may(mart: Mart) -> None:
    mart(mode="upsert")
    mart.do("delete from users")

    text = told(lambda: mart(mode="upsert", deletes=Deletes(DeleteMissing())))
    left = mart.rows("select count(*) from t")
    moved = mart(mode="upsert", deletes=Deletes(DeleteMissing(allow_empty=True)))

    assert text == (
        "the source gave no row, so all of the table 't' would be deleted; if that is right, write "
        "`delete_missing: {allow_empty: true}`; nothing was written"
    )
    assert left == [(3,)]
    assert (moved.counts.deleted, mart.rows("select count(*) from t")) == (3, [(0,)])


@pytest.mark.parametrize("mode", ["upsert", "scd2"])
def test_more_rows_than_may_go_end_the_load(mart: Mart, mode: Any) -> None:
    mart(mode=mode)
    mart.do("delete from users where id > 1")

    text = told(lambda: mart(mode=mode, deletes=Deletes(DeleteMissing(max_share=0.5))))

    assert text == (
        "2 of 3 rows of the table 't' are no longer in the source, more than `max_share: 50%` of `delete_missing`; "
        "nothing was written"
    )
    assert mart.rows("select count(*) from t") == [(3,)]


def test_rows_with_a_flag_are_deleted_and_not_written(mart: Mart) -> None:
    flag = {"mode": "upsert", "deletes": Deletes(flag="gone")}
    mart.do("update users set gone = 1 where id = 3")
    mart(ALL, **flag)
    first = mart.rows("select id from t order by id")
    mart.do("update users set gone = 1 where id = 1; update users set gone = null where id = 2")

    moved = mart(ALL, **flag)

    assert first == [(1,), (2,)]
    assert (moved.counts.deleted, mart.rows("select id from t")) == (1, [(2,)])


def test_a_flag_that_says_neither_yes_nor_no_is_refused(mart: Mart) -> None:
    text = told(lambda: mart(mode="upsert", deletes=Deletes(flag="city")), Refused)

    assert text.startswith("`deleted_flag` names 'city', which is ")


@pytest.mark.parametrize("mode", ["upsert", "scd2"])
def test_explain_shows_what_goes(mart: Mart, mode: Any) -> None:
    from rainbow_prefect.sql_etl.move import prepare

    mart(mode=mode)
    reader = SqlSource(url="sqlite:///source.db").open(Session(root=mart.folder, only_looks=True))
    writer = SqlSink(url=mart.url).open(Session(root=mart.folder, only_looks=True))
    try:
        prepared = prepare(mart.order(mode=mode, deletes=Deletes(DeleteMissing())), reader, writer)
    finally:
        reader.close()
        writer.close()

    shown = "\n".join(prepared.statements)
    assert ("valid_to" in shown) is (mode == "scd2")
    assert ("DELETE" in shown) is (mode == "upsert")
    assert "_rainbow_stage" in shown


@pytest.mark.parametrize("mode", ["upsert", "scd2"])
def test_many_keys_in_sqlite_are_not_compared_each_with_each(tmp_path: Path, mode: Any) -> None:
    """Without an index of the stage it took minutes."""
    import time

    mart = Mart(tmp_path, f"sqlite:///{tmp_path}/mart.db")
    mart.do("delete from users; with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)"
            " insert into users select i, 'x' || i, null, 1, 0 from n")  # fmt: skip
    mart(mode=mode)
    mart.do("delete from users where id = 7; update users set name = 'y' where id = 8")
    begun = time.process_time()

    moved = mart(mode=mode, deletes=Deletes(DeleteMissing()))

    assert time.process_time() - begun < 20
    assert (moved.counts.deleted, moved.counts.updated) == (1, 1)
