"""Rows that a table cannot hold are left out or put aside: PostgreSQL, MariaDB and DuckDB, whatever way the rows go."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.sql_etl.base import BadValue, Mode, Query, Refused, Session
from rainbow_prefect.sql_etl.contract import Contract
from rainbow_prefect.sql_etl.move import Moved, Order, move
from rainbow_prefect.sql_etl.quality import Quality
from rainbow_prefect.sql_etl.sqlalchemy import SqlSink, SqlSource
from rainbow_prefect.sql_etl.types import Column, Schema, Type
from tests.sql_etl.test_reloading import do, rows

EACH = ["postgres", "mariadb", "duckdb"]
ROWS = [
    (1, "ann", "1.5", "a"),
    (2, "anna", "2.001", "b"),  # DuckDB has no varchar(3)
    (9_999_999_999, "bob", "3", "c"),
    (4, "cy", "4.125", "d"),
    (5, None, "12345.5", "e"),
    (6, "dee", None, None),
]
NARROW = "create table t (id int, name varchar(3), price decimal(6, 2), note varchar(9))"
GOOD = [(1, "ann", Decimal("1.50"), "a"), (6, "dee", None, None)]
DISCARDS = Contract(types="discard_row")


class Mart:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.runs = folder, url, 0
        self.said: list[str] = []
        self.fill("n integer, name text, price decimal(12, 4), note varchar(9)", ROWS)

    def fill(self, columns: str, values: Any) -> None:
        db = sqlite3.connect(self.folder / "source.db")
        db.execute("drop table if exists s")
        db.execute(f"create table s ({columns})")
        db.executemany(f"insert into s values ({', '.join('?' * len(values[0]))})", values)
        db.commit()
        db.close()

    def do(self, script: str) -> None:
        do(self.url, self.folder, script)

    def rows(self, sql: str = "select * from t order by 1") -> list[tuple[Any, ...]]:
        return rows(self.url, self.folder, sql)

    def __call__(
        self,
        sql: str = "select n as id, name, price, note from s",
        *,
        mode: Mode = "append",
        keys: Any = (),
        engine: Any = "auto",
        source: str = "sqlite:///source.db",
        **more: Any,
    ) -> Moved:
        self.runs += 1
        quality = Quality(**more)
        order = Order("a/p/t", f"run-{self.runs}", Query(sql), (None, "t"), mode, keys, engine=engine, quality=quality)
        session = Session(root=self.folder, say=self.said.append)
        return move(order, SqlSource(url=source), SqlSink(url=self.url), session)


@pytest.fixture(params=EACH)
def mart(request: pytest.FixtureRequest, tmp_path: Path) -> Mart:
    url = f"duckdb:///{tmp_path}/m.duckdb" if request.param == "duckdb" else request.getfixturevalue(request.param)
    return Mart(tmp_path, url)


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_rows_that_do_not_fit_are_left_out_and_counted(mart: Mart, mode: Any) -> None:
    mart.do(NARROW)

    moved = mart(mode=mode, keys=("id",) if mode == "upsert" else (), contract=DISCARDS)

    assert mart.rows() == GOOD
    found = moved.as_dict()
    assert [found[f"rows_{one}"] for one in ("read", "written", "discarded", "quarantined")] == [6, 2, 4, 0]
    assert moved.warnings == [
        "left out 4 rows that do not fit, e.g. "
        + (
            "column 'price', row 2: 2.001 has more digits after the point than DECIMAL(6,2) keeps"
            if "duckdb" in mart.url
            else "column 'name', row 2: 'anna' has 4 characters, and the table takes 3"
        )
    ]


def test_rows_that_do_not_fit_are_put_aside_with_their_reason(mart: Mart) -> None:
    mart.do(NARROW)

    moved = mart(contract=DISCARDS, on_bad_row="quarantine")

    assert mart.rows() == GOOD
    assert (moved.counts.quarantined, moved.counts.discarded, moved.counts.written) == (4, 0, 2)
    q = "`" if "mysql" in mart.url else '"'
    found = mart.rows(f"select ordinal, {q}column{q}, error, {q}row{q} from t__rejected order by ordinal")
    assert [(row[0], row[1]) for row in found] == [
        (2, "price" if "duckdb" in mart.url else "name"),
        (3, "id"),
        (4, "price"),
        (5, "price"),
    ]
    assert "9999999999 is out of the range of int" in found[1][2].lower()
    assert "4.125" in found[2][2]
    assert "has more digits after the point than" in found[2][2]
    assert "is out of the range of" in found[3][2]
    assert json.loads(found[3][3])["note"] == "e"


def test_more_bad_rows_than_may_be_end_the_load(mart: Mart) -> None:
    mart.do(NARROW)

    with pytest.raises(BadValue) as caught:
        mart(contract=DISCARDS, on_bad_row="quarantine", max_bad_rows=3)

    assert str(caught.value).startswith("more bad rows than `max_bad_rows` lets pass (3), e.g. column 'price', row 5: ")
    assert mart.rows() == []


def test_types_that_do_not_fit_are_refused_unless_rows_may_be_left_out(mart: Mart) -> None:
    mart.do("create table t (id date)")

    for contract in (Contract(), DISCARDS):
        with pytest.raises(Refused) as caught:
            mart("select n as id from s", contract=contract)
        assert "may not hold all its values" in str(caught.value)
    mart.do("drop table t; " + NARROW)
    with pytest.raises(Refused):
        mart(on_bad_row="quarantine")


def test_rows_that_constraints_refuse_are_put_aside(mart: Mart) -> None:
    mart.do(
        "create table kinds (kind varchar(9) primary key); insert into kinds values ('a'), ('b');"
        "create table t (id bigint primary key, kind varchar(9), price decimal(12, 4), code varchar(9), unique (code),"
        " constraint dear check (price < 100 and kind <> 'x'), foreign key (kind) references kinds (kind))"
    )
    columns = "id integer not null, kind varchar(9), price decimal(12, 4), code varchar(9)"
    good = [(1, "a", 1, "p"), (2, None, None, None), (3, "b", 99, None)]
    bad = [(4, "c", 1, "q"), (5, "a", 100, "r"), (6, "a", 1, "s"), (7, "a", 1, "s")]
    mart.fill(columns, [*good, *bad])

    moved = mart("select * from s", on_bad_row="quarantine", contract=DISCARDS)

    assert [row[0] for row in mart.rows("select id from t order by id")] == [1, 2, 3]
    assert (moved.counts.written, moved.counts.quarantined) == (3, 4)
    q = "`" if "mysql" in mart.url else '"'
    assert sorted(mart.rows(f"select {q}sqlstate{q}, count(*) from t__rejected group by {q}sqlstate{q}")) == [
        ("23503", 1),
        ("23505", 2),
        ("23514", 1),
    ]


def test_constraints_are_looked_at_in_an_upsert_too(mart: Mart) -> None:
    mart.do(
        "create table t (id bigint primary key, price decimal(12, 4) not null, constraint dear check (price < 100))"
    )
    mart.fill("id integer, price decimal(12, 4)", [(1, 1), (2, 100), (None, 3), (4, None), (5, 5)])

    moved = mart("select * from s", mode="upsert", keys=("id",), on_bad_row="quarantine")

    assert [row[0] for row in mart.rows()] == [1, 5]
    assert moved.counts.quarantined == 3


@pytest.mark.parametrize("engine", ["auto", "rows"])
def test_what_fits_by_its_type_goes_the_fast_way_and_bad_rows_are_still_found(
    postgres: str, tmp_path: Path, engine: Any
) -> None:
    mart = Mart(tmp_path, postgres)
    mart.do(
        "create table src as select i as id, i * 1.5 as price from generate_series(1, 1000) as i;"
        "create table t (id int primary key, price numeric, constraint odd check (id <> 500)); insert into t values (7, 0)"
    )

    moved = mart("select * from src", source=postgres, engine=engine, on_bad_row="quarantine")

    assert moved.engine == {"auto": "pg_binary", "rows": "rows"}[engine]
    assert (moved.counts.written, moved.counts.quarantined) == (998, 2)


def test_text_that_postgres_cannot_hold_is_put_aside(postgres: str, tmp_path: Path) -> None:
    mart = Mart(tmp_path, postgres)
    mart.fill("id integer, note text", [(1, "a\0b"), (2, "ok")])

    moved = mart("select * from s", on_bad_row="quarantine")

    assert mart.rows("select id, note from t") == [(2, "ok")]
    assert moved.counts.quarantined == 1


def test_numbers_that_mariadb_cannot_hold_are_put_aside(postgres: str, mariadb: str, tmp_path: Path) -> None:
    mart = Mart(tmp_path, mariadb)
    do(postgres, tmp_path, "create table src (id int, x float8, n numeric(10, 2))")
    do(postgres, tmp_path, "insert into src values (1, 'NaN', 1), (2, 2, 'NaN'), (3, 3, 3), (4, '-Infinity', 4)")

    moved = mart("select * from src", source=postgres, on_bad_row="quarantine")

    assert mart.rows() == [(3, 3.0, Decimal("3.00"))]
    assert moved.counts.quarantined == 3


@pytest.mark.parametrize("digits", ["0.10", "1E+2", "-99.99", "0", "100.000"])
def test_a_decimal_that_fits_stays_as_it_is(digits: str) -> None:
    from rainbow_prefect.sql_etl.sieve import Sieve, fixes

    came = Schema((Column("n", Type("decimal")),))
    found = fixes(came, Schema((Column("n", Type("decimal", precision=5, scale=2)),)), "mysql", nulls=False)
    sieve = Sieve(("n",), found)

    assert list(sieve.passed([[(Decimal(digits),)]])) == [[(Decimal(digits),)]]
    assert list(sieve.passed([[(Decimal("1000"),)], [(Decimal("0.001"),)], [(Decimal("NaN"),)]])) == []
    assert sieve.count == 3
