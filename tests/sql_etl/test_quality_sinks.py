"""Contracts, checks and bad rows in PostgreSQL, DuckDB and MariaDB: the same as in SQLite, told and done alike."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rainbow_prefect.sql_etl.base import BadValue, Query, Refused, Session
from rainbow_prefect.sql_etl.checks import AnyChecks
from rainbow_prefect.sql_etl.contract import Contract
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.shape import Dedupe, Shape
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource

ROWS = [(1, "PL", 10.5, "a@x"), (2, "DE", 20.0, "b@x"), (3, "PL", 5.0, None), (3, "FR", 9.0, "c\\d'e")]
ALL = "select id, country, amount, email from orders"
EACH = ["postgres", "duckdb", "mariadb"]


def checks(**more: Any) -> Any:
    return TypeAdapter(AnyChecks).validate_python(more)


class Mart:
    """A file of SQLite as the source, another database as the sink."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.said: list[str] = []
        self.runs = 0
        with sqlite3.connect(folder / "source.db") as db:
            db.execute("create table orders (id integer, country text, amount double, email text)")
            db.executemany("insert into orders values (?, ?, ?, ?)", ROWS)
        db.close()

    def __call__(
        self, sql: str = ALL, *, of: dict[str, Any] | None = None, source: str = "sqlite:///source.db", **more: Any
    ) -> Moved:
        self.runs += 1
        order = Order(
            **{"name": "a/p/t", "run_key": f"run-{self.runs}", "query": Query(sql), "table": (None, "t"), **(of or {})},
            quality=Quality(**more),
        )
        session = Session(root=self.folder, say=self.said.append)
        return move(order, SqlSource(url=source), SqlSink(url=self.url), session)

    def rows(self, sql: str = "select * from t order by 1, 2") -> list[tuple[Any, ...]]:
        writer = SqlSink(url=self.url).open(Session(root=self.folder))
        try:
            return [tuple(one) for one in writer.query(sql)]
        finally:
            writer.close()

    def has(self, table: str) -> bool:
        writer = SqlSink(url=self.url).open(Session(root=self.folder))
        try:
            return writer.describe((None, table)) is not None
        finally:
            writer.close()


@pytest.fixture(params=EACH)
def mart(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mart]:
    url = f"duckdb:///{tmp_path}/mart.duckdb" if request.param == "duckdb" else request.getfixturevalue(request.param)
    yield Mart(tmp_path, url)


def refused(call: Callable[[], Any], kind: type[Exception] = BadValue) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_columns_are_added_and_widened(mart: Mart) -> None:
    mart("select id, cast(country as text) as country from orders where id = 1")
    narrow = "varchar(3)" if "mysql" in mart.url else ""
    assert mart.rows() == [(1, "PL")], narrow

    moved = mart("select id, country, amount from orders where id = 2", contract=Contract(columns="evolve"))

    assert mart.rows() == [(1, "PL", None), (2, "DE", 20.0)]
    assert len(moved.ddl) == 1
    assert "amount" in moved.ddl[0]


def test_types_are_widened(mart: Mart, tmp_path: Path) -> None:
    """From DuckDB, whose types are narrow; those of SQLite are not."""
    source = f"duckdb:///{tmp_path}/narrow.duckdb"
    import duckdb

    with duckdb.connect(str(tmp_path / "narrow.duckdb")) as db:
        db.execute("create table n as select 1::int as id, 1.5::decimal(6,2) as amount")
        db.execute("create table w as select 9999999999::bigint as id, 123456.1234::decimal(12,4) as amount")
    mart("select * from n", source=source)

    told = refused(lambda: mart("select * from w", source=source), Refused)
    moved = mart("select * from w", source=source, contract=Contract(types="evolve"))

    assert "may not hold all its values" in told
    assert moved.ddl
    assert [(row[0], str(row[1])) for row in mart.rows()] == [(1, "1.5000"), (9999999999, "123456.1234")]


def test_a_load_that_fails_leaves_no_column(mart: Mart) -> None:
    mart("select id from orders where id = 1")

    refused(lambda: mart(contract=Contract(columns="evolve"), checks=checks(rows={"min": 9})))

    assert mart.rows("select * from t") == [(1,)]


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_checks_see_the_rows_of_the_load_before_they_are_committed(mart: Mart, mode: str) -> None:
    of = {"mode": mode, "keys": ("id", "country") if mode == "upsert" else ()}
    mart("select 9 as id, 'XX' as country, -1.0 as amount, null as email", of=of)
    before = mart.rows()

    good = checks(
        id={"not_null": True, "ge": 1, "le": 3},
        country={"in": ["PL", "DE", "FR"], "regex": "^[A-Z]+$"},
        email={"regex": "@|'"},
        sql="select 1 from {staged} where amount < 0",
    )
    told = refused(
        lambda: mart(
            of=of,
            checks=checks(amount={"lt": 20}, email={"not_null": True}, sql="select id from {staged} where id = 2"),
        )
    )
    assert told == (
        "the rows for the table 't' do not hold: column 'amount' is not less than 20 in 1 row, e.g. 20.0; "
        "column 'email' has no value in 1 row; `select id from {staged} where id = 2` gave 1 row, e.g. (2); "
        "nothing was written"
    )
    assert mart.rows() == before
    mart(of=of, checks=good)
    assert len(mart.rows()) == {"append": 5, "replace": 4, "upsert": 5}[mode]


def test_unique_and_foreign_keys(mart: Mart) -> None:
    mart("select 'PL' as code union select 'DE'", of={"table": (None, "lands")})
    mart("select * from orders where id < 3")
    asked = checks(id={"unique": True}, country={"foreign_key": {"table": "lands", "column": "code"}})

    told = refused(lambda: mart("select * from orders where id > 1", checks=asked))

    assert "column 'id' comes more than once in 2 rows, e.g. 3, 3; " in told
    assert "column 'id' is in the table already in 1 row, e.g. 2; " in told
    assert "column 'country' is not in lands.code in 1 row, e.g. FR; " in told


def test_the_ledger_knows_how_many_rows_came_before(mart: Mart) -> None:
    asked = checks(rows={"drift": "50%"})
    for _ in range(2):
        mart(of={"mode": "replace"}, checks=asked)

    told = refused(lambda: mart(f"{ALL} where id = 1", of={"mode": "replace"}, checks=asked))

    assert "1 row came, 4 in the mean of the last 2 loads" in told


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_bad_rows_are_put_aside_with_the_load(mart: Mart, mode: str) -> None:
    mart("select * from orders where id = 1", of={"mode": mode})

    moved = mart(of={"mode": mode}, checks=checks(id={"unique": True}, amount={"lt": 15}), on_bad_row="quarantine")

    assert (moved.counts.read, moved.counts.written, moved.counts.quarantined) == (
        4,
        *((1, 3) if mode == "replace" else (0, 4)),
    )
    q = "`" if "mysql" in mart.url else '"'
    kept = mart.rows(f"select {q}column{q}, error, {q}row{q} from t__rejected order by 1, 2, 3")
    assert [one[0] for one in kept] == ["amount", *["id"] * (2 if mode == "replace" else 3)]
    (odd,) = (json.loads(one[2]) for one in kept if "FR" in one[2])
    assert odd == {"id": 3, "country": "FR", "amount": 9.0, "email": "c\\d'e"}


def test_more_bad_rows_than_allowed_leave_nothing(mart: Mart) -> None:
    refused(lambda: mart(checks=checks(id={"gt": 5}), on_bad_row="quarantine", max_bad_rows=3))

    assert not mart.has("t__rejected")


def test_rows_that_the_table_would_refuse_are_put_aside(mart: Mart) -> None:
    key = {"keys": ("id",), "mode": "append"}
    mart("select id, email from orders where id = 1", of=key)
    same = "insert into orders values (4, null, 1, null), (null, null, 2, 'n')"
    with sqlite3.connect(mart.folder / "source.db") as db:
        db.execute(same)
    db.close()

    refused(lambda: mart("select id, email from orders", of=key))
    moved = mart("select id, email from orders", of=key, on_bad_row="quarantine")

    assert mart.rows() == [(1, "a@x"), (2, "b@x"), (4, None)]
    assert (moved.counts.read, moved.counts.written, moved.counts.quarantined) == (6, 2, 4)
    state = "`sqlstate`" if "mysql" in mart.url else "sqlstate"
    kept = mart.rows(f"select error, {state} from t__rejected order by 1")
    assert kept == [
        ("column 'id' comes more than once", "23505"),
        ("column 'id' comes more than once", "23505"),
        ("column 'id' has no value", "23502"),
        ("column 'id' is in the table already", "23505"),
    ]


def test_statements_of_the_sink_are_part_of_the_load(mart: Mart) -> None:
    mart("select * from orders where id = 1")

    mart(pre=("delete from t where id = 1",), post=("update t set country = 'ZZ' where id = 2",))
    refused(lambda: mart(pre=("delete from t",), checks=checks(rows={"min": 9})))

    assert [row[:2] for row in mart.rows()] == [(1, "PL"), (2, "ZZ"), (3, "FR"), (3, "PL")]


def test_a_source_shapes_its_rows(mart: Mart) -> None:
    """The database is the source here."""
    mart(of={"mode": "replace"})
    shape = Shape(
        select=("id", "email", "country"),
        rename={"email": "mail"},
        cast={"id": "char(1)" if "mysql" in mart.url else "varchar"},
        filter=("amount < 15",),
        dedupe=Dedupe(by="amount"),
        mask={"mail": "hash", "country": "redact"},
        salt="s'a\\lt",
        keys=("id",),
    )
    order = Order("b/p/t", "run", Query("select * from t;"), (None, "out"), quality=Quality(shape=shape))

    move(order, SqlSource(url=mart.url), SqlSink(url="sqlite:///out.db"), Session(root=mart.folder))
    sample = replace_quality(order, Shape(sample=0.5))
    move(sample, SqlSource(url=mart.url), SqlSink(url="sqlite:///sample.db"), Session(root=mart.folder))

    db = sqlite3.connect(mart.folder / "out.db")
    hashed = [hashlib.sha256(f"s'a\\lt{one}".encode()).hexdigest() for one in ("a@x", "c\\d'e")]
    assert db.execute("select * from out order by 1").fetchall() == [("1", hashed[0], "***"), ("3", hashed[1], "***")]
    db.close()


def replace_quality(order: Order, shape: Shape) -> Order:
    return Order(order.name, "sample", order.query, order.table, quality=Quality(shape=shape))
